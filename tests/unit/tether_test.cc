#include "tether.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <future>

#include "datawire/clock.h"
#include "tether_fixture.h"

namespace datawire {
namespace {

using namespace tether_testing;  // NOLINT
using std::chrono::milliseconds;
using std::chrono::seconds;

size_t CountHellos(const std::vector<pb::TetherRequest>& all) {
  return std::count_if(all.begin(), all.end(), [](auto& m) { return m.has_hello(); });
}
size_t CountRegisters(const std::vector<pb::TetherRequest>& all) {
  return std::count_if(all.begin(), all.end(), [](auto& m) { return m.has_register_(); });
}

std::unique_ptr<TetherClient> Open(std::vector<std::string> servers) {
  auto client = TetherClient::Open({.directory = std::move(servers), .program = "test"});
  EXPECT_TRUE(client.ok()) << client.status().ToString();
  return std::move(client).value();
}

// Registers; the promise's future gets each call of `done`, of which there must be one.
std::future<Result<Revision>> Register(TetherClient& client) {
  auto promise = std::make_shared<std::promise<Result<Revision>>>();
  client.Register(Spec("//demo/upper", "amqp://127.0.0.1:4001"),
                  [promise](const Result<Revision>& result) { promise->set_value(result); });
  return promise->get_future();
}

Result<Revision> Await(std::future<Result<Revision>>& future) {
  if (future.wait_for(seconds(10)) != std::future_status::ready)
    return Status(Code::kTimeout, "no result within 10 s");
  return future.get();
}

TEST(Tether, RegistersAndSaysByeOnClose) {
  ScriptedServer server([&](auto& line, int) { server.ServeWell(line); });
  auto client = Open({server.address()});
  auto result = Register(*client);
  EXPECT_TRUE(Await(result).ok());
  EXPECT_EQ(client->session_id().size(), 32u);
  client->Close(seconds(5));
  EXPECT_TRUE(server.received().back().has_bye());
}

TEST(Tether, ALostAckIsAnsweredOnceAfterAResume) {
  ScriptedServer server([&](auto& line, int stream) {
    if (stream > 1) return server.ServeWell(line);
    pb::TetherRequest message;
    while (server.Read(line, &message)) {
      if (message.has_hello()) line.Write(Welcome(0, false));
      if (message.has_register_()) return;  // dies after doing it, before telling
    }
  });
  auto client = Open({server.address()});
  auto result = Register(*client);
  const auto got = Await(result);
  ASSERT_TRUE(got.ok()) << got.status().ToString();
  const auto all = server.received();
  std::vector<uint64_t> ops;
  for (const auto& message : all)
    if (message.has_register_()) ops.push_back(message.register_().op_id());
  ASSERT_EQ(ops.size(), 2u);
  EXPECT_EQ(ops[0], ops[1]);
  EXPECT_EQ(CountHellos(all), 2u);
}

TEST(Tether, FailsOverWhenItsServerDies) {
  ScriptedServer a([&](auto& line, int) { a.ServeWell(line); });
  ScriptedServer b([&](auto& line, int) { b.ServeWell(line); });
  auto client = Open({a.address(), b.address()});
  auto result = Register(*client);
  ASSERT_TRUE(Await(result).ok());
  ScriptedServer& first = a.received().empty() ? b : a;
  ScriptedServer& second = a.received().empty() ? a : b;
  first.Stop();
  EXPECT_TRUE(second.WaitFor([](auto& all) { return !all.empty(); }));
  const auto hello = second.received().front().hello();
  EXPECT_EQ(hello.session_id(), std::string(16, 'i'));
  EXPECT_EQ(hello.attach_number(), 1u);
}

TEST(Tether, AnEndedSessionRegistersAgainInANewOne) {
  ScriptedServer server([&](auto& line, int stream) {
    if (stream > 1) return server.ServeWell(line);
    pb::TetherRequest message;
    while (server.Read(line, &message)) {
      if (message.has_hello()) line.Write(Welcome(0, false));
      if (!message.has_register_()) continue;
      line.Write(Acknowledged(message.register_().op_id()));
      line.Write(Ended(pb::SESSION_EXPIRED, 0, "expired"));
      return;
    }
  });
  auto client = Open({server.address()});
  auto result = Register(*client);
  EXPECT_TRUE(Await(result).ok());
  EXPECT_TRUE(server.WaitFor([](auto& all) { return CountRegisters(all) == 2; }));
}

TEST(Tether, StartsBeforeItsDirectory) {
  auto dead = std::make_unique<ScriptedServer>([](auto&, int) {});
  const std::string address = dead->address();
  dead.reset();
  ScriptedServer alive([&](auto& line, int) { alive.ServeWell(line); });
  auto client = Open({address, alive.address()});
  auto result = Register(*client);
  EXPECT_TRUE(Await(result).ok());
}

TEST(Tether, DestructionIsBoundedWhileAServerHangs) {
  std::promise<void> release;
  auto released = release.get_future().share();
  ScriptedServer server([&](auto& line, int) {
    pb::TetherRequest message;
    server.Read(line, &message);
    released.wait_for(seconds(30));
  });
  auto client = Open({server.address()});
  auto result = Register(*client);
  ASSERT_TRUE(server.WaitFor([](auto& all) { return !all.empty(); }));
  const BootTime from = BootClock::now();
  client.reset();
  EXPECT_LT(BootClock::now() - from, seconds(3));
  EXPECT_EQ(Await(result).status().code(), Code::kCancelled);
  release.set_value();
}

TEST(Tether, DestructionIsQuickWithNothingRegistered) {
  const BootTime from = BootClock::now();
  Open({"127.0.0.1:1"}).reset();
  EXPECT_LT(BootClock::now() - from, milliseconds(900));
}

TEST(Tether, CallsFromManyThreadsAreEachAnsweredOnce) {
  ScriptedServer server([&](auto& line, int) { server.ServeWell(line); });
  auto client = Open({server.address()});
  std::atomic<int> answers{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      for (int i = 0; i < 25; ++i)
        client->Register(Spec("//demo/x", "amqp://127.0.0.1:" + std::to_string(1000 + t * 25 + i)),
                         [&](const Result<Revision>& r) { answers += r.ok() ? 1 : 1000; });
    });
  for (auto& thread : threads) thread.join();
  EXPECT_TRUE(server.WaitFor([](auto& all) { return CountRegisters(all) == 100; }));
  client->Close(seconds(5));
  EXPECT_EQ(answers, 100);
}

TEST(Tether, RefusesATtlOutOfRange) {
  auto client = TetherClient::Open({.directory = {"127.0.0.1:1"}, .ttl = milliseconds(2999)});
  ASSERT_FALSE(client.ok());
  EXPECT_EQ(client.status().message(), "session TTL 2999 ms is out of range, 3 s to 1 h");
}

}  // namespace
}  // namespace datawire
