#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>

#include "http/server.h"

namespace datawire::directory {
namespace {

/// The whole answer to one GET, at most 5 s.
std::string Get(uint16_t port, const std::string& path) {
  const int peer = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const timeval most{5, 0};
  ::setsockopt(peer, SOL_SOCKET, SO_RCVTIMEO, &most, sizeof most);
  sockaddr_in at{};
  at.sin_family = AF_INET;
  at.sin_port = htons(port);
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  std::string text;
  if (::connect(peer, reinterpret_cast<const sockaddr*>(&at), sizeof at) == 0) {
    const std::string request = "GET " + path + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    ::send(peer, request.data(), request.size(), MSG_NOSIGNAL);
    char bytes[4096];
    for (ssize_t got; (got = ::recv(peer, bytes, sizeof bytes, 0)) > 0;) text.append(bytes, got);
  }
  ::close(peer);
  return text;
}

bool Has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

HttpPages Pages(Status* ready) {
  return {.metrics = [] { return std::string("datawire_x 1\n"); },
          .ready = [ready] { return *ready; }};
}

TEST(Http, ReadyzIs503WithTheReasonWhileItDoesNotServe) {
  Status ready(Code::kUnavailable, "the disc is full");
  auto server = HttpServer::Start({"127.0.0.1", 0}, Pages(&ready));
  ASSERT_TRUE(server.ok()) << server.status().message();
  const std::string refused = Get((*server)->port(), "/readyz");
  EXPECT_TRUE(Has(refused, "HTTP/1.1 503")) << refused;
  EXPECT_TRUE(Has(refused, "the disc is full\n")) << refused;
  EXPECT_TRUE(Has(Get((*server)->port(), "/healthz"), "HTTP/1.1 200"));
  ready = Status::Ok();
  EXPECT_TRUE(Has(Get((*server)->port(), "/readyz"), "HTTP/1.1 200"));
}

TEST(Http, MetricsAreShownAsText) {
  Status ready;
  auto server = HttpServer::Start({"127.0.0.1", 0}, Pages(&ready));
  ASSERT_TRUE(server.ok()) << server.status().message();
  const std::string shown = Get((*server)->port(), "/metrics");
  EXPECT_TRUE(Has(shown, "text/plain; version=0.0.4")) << shown;
  EXPECT_TRUE(shown.ends_with("datawire_x 1\n")) << shown;
}

TEST(Http, AUsedPortIsRefusedWithTheAddress) {
  Status ready;
  auto first = HttpServer::Start({"127.0.0.1", 0}, Pages(&ready));
  ASSERT_TRUE(first.ok());
  const HostPort at{"127.0.0.1", (*first)->port()};
  const auto second = HttpServer::Start(at, Pages(&ready));
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.status().code(), Code::kUnavailable);
  EXPECT_TRUE(Has(second.status().message(), at.ToString())) << second.status().message();
}

TEST(Http, StopsAlsoJustAfterItsStart) {
  Status ready;
  for (int i = 0; i < 20; ++i) {
    auto server = HttpServer::Start({"127.0.0.1", 0}, Pages(&ready));
    ASSERT_TRUE(server.ok());
    (*server)->Stop();
  }
}

}  // namespace
}  // namespace datawire::directory
