#include "srv_lookup.h"

#include <ares.h>
#include <arpa/inet.h>
#include <arpa/nameser.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>

#include "datawire/limits.h"

namespace datawire::resolver {
namespace {

using std::chrono::milliseconds;

constexpr int kTryMillis = 1000, kTries = 3;  // of each server; a look-up's deadline goes before

Status Failed(const std::string& domain, const std::string& dns_server, std::string_view why) {
  return {Code::kUnavailable, "DNS: " + SrvName(domain) +
                                  (dns_server.empty() ? "" : " at " + dns_server) + ": " +
                                  std::string(why)};
}

std::string Reason(int status) {
  if (status == ARES_ENOTFOUND) return "no such name (NXDOMAIN)";
  if (status == ARES_ENODATA) return "has no SRV record";
  return ares_strerror(status);
}

// The SRV records of a message's answer section; nothing if it is malformed.
std::optional<SrvReply> Parsed(const unsigned char* bytes, int size) {
  ns_msg message;
  if (::ns_initparse(bytes, size, &message) != 0) return std::nullopt;
  SrvReply reply;
  uint32_t ttl = UINT32_MAX;
  for (int i = 0; i < ns_msg_count(message, ns_s_an); i++) {
    ns_rr record;
    if (::ns_parserr(&message, ns_s_an, i, &record) != 0) return std::nullopt;
    ttl = std::min<uint32_t>(ttl, ns_rr_ttl(record));
    if (ns_rr_type(record) != ns_t_srv) continue;
    const unsigned char* data = ns_rr_rdata(record);
    char target[NS_MAXDNAME];
    if (ns_rr_rdlen(record) < 7 || ::ns_name_uncompress(ns_msg_base(message), ns_msg_end(message),
                                                        data + 6, target, sizeof target) < 0)
      return std::nullopt;
    const auto number = [&](int at) { return static_cast<uint16_t>(ns_get16(data + at)); };
    reply.records.push_back({number(0), number(2), number(4), target});
  }
  reply.ttl = std::chrono::seconds(ttl);
  return reply;
}

struct Query {
  const std::string& domain;
  const std::string& dns_server;
  std::optional<SrvReply> reply;

  static void Done(void* self, int status, int, unsigned char* bytes, int size) {
    auto& query = *static_cast<Query*>(self);
    auto parsed = status == ARES_SUCCESS ? Parsed(bytes, size) : std::nullopt;
    if (!parsed)
      parsed = SrvReply{.status =
                            Failed(query.domain, query.dns_server,
                                   status == ARES_SUCCESS ? "a malformed answer" : Reason(status))};
    query.reply = std::move(parsed);
  }
};

// Waits for what the channel waits for; false when `cancel` can be read.
bool Wait(ares_channel channel, milliseconds most, int cancel) {
  std::array<ares_socket_t, ARES_GETSOCK_MAXNUM> sockets{};
  const auto bits =
      static_cast<unsigned>(ares_getsock(channel, sockets.data(), ARES_GETSOCK_MAXNUM));
  std::array<pollfd, ARES_GETSOCK_MAXNUM + 1> waited{};
  waited[0] = {cancel, POLLIN, 0};  // poll passes -1 by
  size_t count = 1;
  for (unsigned i = 0; i < ARES_GETSOCK_MAXNUM; i++) {
    short events = 0;
    if (ARES_GETSOCK_READABLE(bits, i)) events |= POLLIN;
    if (ARES_GETSOCK_WRITABLE(bits, i)) events |= POLLOUT;
    if (events != 0) waited[count++] = {sockets[i], events, 0};
  }
  timeval longest{most.count() / 1000, most.count() % 1000 * 1000}, buffer{};
  const timeval* next = ares_timeout(channel, &longest, &buffer);
  ::poll(waited.data(), count, static_cast<int>(next->tv_sec * 1000 + next->tv_usec / 1000 + 1));
  if (waited[0].revents != 0) return false;
  for (size_t i = 1; i < count; i++) {
    const auto fd = [&](short events) {
      return (waited[i].revents & (events | POLLERR | POLLHUP)) != 0 ? waited[i].fd
                                                                     : ARES_SOCKET_BAD;
    };
    ares_process_fd(channel, fd(POLLIN), fd(POLLOUT));
  }
  ares_process_fd(channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);  // what timed out
  return true;
}

}  // namespace

SrvReply LookUpSrv(const std::string& domain, const std::string& dns_server, milliseconds timeout,
                   int cancel) {
  const BootTime until = BootClock::now() + timeout;
  ares_options options{};
  options.timeout = kTryMillis;
  options.tries = kTries;
  ares_channel channel = nullptr;
  static const int ready = ares_library_init(ARES_LIB_INIT_ALL);  // not thread-safe by itself
  int status = ready;
  if (status == ARES_SUCCESS)
    status = ares_init_options(&channel, &options, ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES);
  if (status != ARES_SUCCESS) return {.status = Failed(domain, dns_server, Reason(status))};
  Query query{domain, dns_server, {}};
  if (!dns_server.empty()) status = ares_set_servers_ports_csv(channel, dns_server.c_str());
  if (status != ARES_SUCCESS)
    query.reply = SrvReply{.status = Failed(domain, dns_server, Reason(status))};
  else
    ares_query(channel, SrvName(domain).c_str(), ns_c_in, ns_t_srv, Query::Done, &query);
  while (!query.reply) {
    const auto left = std::chrono::ceil<milliseconds>(until - BootClock::now());
    if (left.count() <= 0 || !Wait(channel, left, cancel))
      query.reply =
          SrvReply{.status = Failed(domain, dns_server,
                                    "no answer within " + std::to_string(timeout.count()) + " ms")};
  }
  SrvReply reply = std::move(*query.reply);
  ares_destroy(channel);  // calls Done once more when the query is still under way
  return reply;
}

SrvLookup::SrvLookup(std::string domain, std::string dns_server, std::function<void(SrvReply)> done)
    : cancel_(::eventfd(0, EFD_CLOEXEC)),
      thread_([cancel = cancel_, domain = std::move(domain), dns_server = std::move(dns_server),
               done = std::move(done)] {
        done(LookUpSrv(domain, dns_server, limits::kSrvDeadline, cancel));
      }) {}

SrvLookup::~SrvLookup() {
  if (cancel_ >= 0) ::eventfd_write(cancel_, 1);
  thread_.join();
  if (cancel_ >= 0) ::close(cancel_);
}

}  // namespace datawire::resolver
