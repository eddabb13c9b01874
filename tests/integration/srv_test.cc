// The resolver finds its servers by a real DNS server.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <filesystem>
#include <functional>
#include <map>
#include <mutex>
#include <thread>

#include "datawire/clock.h"
#include "datawire/limits.h"
#include "datawire/resolver.h"
#include "dns_server.h"
#include "fake_directory.h"

namespace datawire {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::DnsServer;
using testing::FakeDirectory;

const char kUrl[] = "amqp://127.0.0.1:1001";
const Address kAddress = Address::Parse("//d/a").value();

std::string PortOf(const FakeDirectory& fake) {
  return fake.server().substr(fake.server().find(':') + 1);
}

std::string Record(const FakeDirectory& fake, int priority, int weight = 1) {
  return "localhost," + PortOf(fake) + "," + std::to_string(priority) + "," +
         std::to_string(weight);
}

std::string Localhost(const FakeDirectory& fake) {
  return "localhost:" + PortOf(fake);
}

// What the observer was told.
class Events {
 public:
  std::function<void(const ResolverEvent&)> Observer() {
    return [this](const ResolverEvent& event) {
      std::lock_guard lock(mutex_);
      events_.push_back(event);
      some_.notify_all();
    };
  }
  // Waits for the `count`th event of the kind; the last of them.
  ResolverEvent Await(ResolverEvent::Kind kind, size_t count = 1) {
    std::unique_lock lock(mutex_);
    ResolverEvent last;
    const bool came = some_.wait_for(lock, seconds(30), [&] {
      size_t found = 0;
      for (const ResolverEvent& event : events_)
        if (event.kind == kind) last = event, found++;
      return found >= count;
    });
    EXPECT_TRUE(came) << "event " << static_cast<int>(kind) << " never came";
    return last;
  }

 private:
  std::mutex mutex_;
  std::condition_variable some_;
  std::vector<ResolverEvent> events_;
};

class Srv : public ::testing::Test {
 protected:
  void SetUp() override {
    for (FakeDirectory* fake : {&one, &two}) {
      fake->Set(kAddress.text(), {kUrl});
      fake->Start();
    }
  }
  std::unique_ptr<Resolver> Open(ResolverOptions options = {}) {
    options.domain = "example.test";
    options.dns_server = dns.address();
    options.observer = events.Observer();
    auto opened = Resolver::Open(std::move(options));
    EXPECT_TRUE(opened.ok()) << opened.status().message();
    return std::move(opened).value();
  }
  AnswerStatus Ask(Resolver& resolver, seconds deadline = seconds(20)) {
    return resolver.Resolve(kAddress, {.deadline = deadline})->status;
  }

  DnsServer dns;
  FakeDirectory one, two;
  Events events;
};

TEST_F(Srv, TheLowestPriorityIsUsedAndTheNextWhenItIsAway) {
  dns.Serve({Record(two, 20), Record(one, 10)});
  const auto resolver = Open();
  EXPECT_EQ(Ask(*resolver), AnswerStatus::kFound);
  EXPECT_EQ(resolver->Stats().server, Localhost(one));
  EXPECT_EQ(resolver->Servers(), (std::vector<std::string>{Localhost(one), Localhost(two)}));
  one.Stop();
  events.Await(ResolverEvent::Kind::kConnected, 2);
  EXPECT_EQ(resolver->Stats().server, Localhost(two));
}

TEST_F(Srv, WeightsSpreadProcesses) {
  dns.Serve({Record(two, 10, 5), Record(one, 10, 95)});
  std::map<std::string, int> first;
  for (int i = 0; i < 60; i++)
    first[LookUpServers({.servers = {}, .domain = "example.test", .dns_server = dns.address()},
                        seconds(5))
              ->front()]++;
  EXPECT_GE(first[Localhost(one)], 45);  // 57 are due; 44 once in 20 million runs
}

TEST_F(Srv, AStreamMovesWhenItsServerIsListedNoLongerAndNoResolveFails) {
  dns.Serve({Record(one, 1)});
  const auto resolver = Open();
  ASSERT_EQ(Ask(*resolver), AnswerStatus::kFound);
  std::atomic<bool> on{true};
  std::atomic<int> failed{0}, asked{0};
  std::thread reader([&] {
    for (int i = 0; on; i++, asked++) {
      const Address other = Address::Parse("//d/" + std::to_string(i / 100)).value();
      failed += resolver->Resolve(kAddress)->status != AnswerStatus::kFound;
      failed += resolver->Resolve(other)->status != AnswerStatus::kNotFound;  // not known before
    }
  });
  dns.Serve({Record(two, 1)});
  events.Await(ResolverEvent::Kind::kConnected, 2);
  EXPECT_EQ(resolver->Stats().server, Localhost(two));
  EXPECT_EQ(resolver->Servers(), std::vector<std::string>{Localhost(two)});
  EXPECT_TRUE(one.Await([](const FakeDirectory::Seen& seen) { return seen.open == 0; }));
  on = false;
  reader.join();
  EXPECT_EQ(failed, 0) << "of " << asked;
}

TEST_F(Srv, AStreamStaysWhileItsServerIsListed) {
  dns.Serve({Record(one, 1)});
  const auto resolver = Open();
  ASSERT_EQ(Ask(*resolver), AnswerStatus::kFound);
  dns.Serve({Record(two, 1), Record(one, 2)});
  events.Await(ResolverEvent::Kind::kServers, 2);
  EXPECT_EQ(resolver->Servers().size(), 2u);
  EXPECT_EQ(Ask(*resolver), AnswerStatus::kFound);
  EXPECT_EQ(resolver->Stats().server, Localhost(one));
  EXPECT_EQ(resolver->Stats().streams_opened, 1u);
}

TEST_F(Srv, WithoutDnsOrWithAnEmptyAnswerTheLastListIsKept) {
  dns.Serve({Record(one, 1), Record(two, 2)});
  const auto resolver = Open();
  ASSERT_EQ(Ask(*resolver), AnswerStatus::kFound);
  dns.Kill();
  const auto failed = events.Await(ResolverEvent::Kind::kNoServers);
  EXPECT_NE(failed.status.message().find("_datawire._tcp.example.test"), std::string::npos);
  dns.Serve({});
  EXPECT_NE(events.Await(ResolverEvent::Kind::kNoServers, 2).status.message().find("NXDOMAIN"),
            std::string::npos);
  dns.Serve({""});
  EXPECT_NE(
      events.Await(ResolverEvent::Kind::kNoServers, 3).status.message().find("names no directory"),
      std::string::npos);
  EXPECT_EQ(resolver->Servers().size(), 2u);
  EXPECT_EQ(resolver->Stats().dns_failures, 3u);
  EXPECT_EQ(resolver->Stats().streams_opened, 1u);
  EXPECT_TRUE(resolver->LastError().ok());
  one.Stop();  // and the list is still good for a failover
  events.Await(ResolverEvent::Kind::kConnected, 2);
  EXPECT_EQ(resolver->Stats().server, Localhost(two));
}

TEST_F(Srv, NoNameIsUnavailableWithItsReasonUntilThereIsOne) {
  dns.Serve({});
  const auto resolver = Open();
  events.Await(ResolverEvent::Kind::kNoServers);
  EXPECT_EQ(Ask(*resolver, seconds(1)), AnswerStatus::kUnavailable);
  EXPECT_EQ(resolver->LastError().code(), Code::kUnavailable);
  EXPECT_NE(resolver->LastError().message().find("NXDOMAIN"), std::string::npos);
  EXPECT_EQ(resolver->Servers().size(), 0u);
  EXPECT_FALSE(
      resolver->Resolve(kAddress, {.deadline = milliseconds(10), .min_revision = Revision{1, 1}})
          ->status == AnswerStatus::kNotFound);
  dns.Serve({Record(one, 1)});
  events.Await(ResolverEvent::Kind::kConnected);
  EXPECT_EQ(Ask(*resolver), AnswerStatus::kFound);
}

TEST_F(Srv, TargetsThatDoNotExistArePassedBy) {
  dns.Serve({"no-such-host.invalid,7400,1,100", "localhost,1,2,1", Record(one, 3)});
  const auto resolver = Open();
  EXPECT_EQ(Ask(*resolver), AnswerStatus::kFound);
  EXPECT_EQ(resolver->Stats().server, Localhost(one));
}

// More than UDP takes: c-ares asks again by TCP.
TEST_F(Srv, AThousandRecordsComeByTcpAndAreBounded) {
  std::vector<std::string> records{Record(one, 0)};
  for (int i = 1; i <= 1000; i++)
    records.push_back("h" + std::to_string(i) + ".example.test,7400,5,1");
  dns.Serve(records);
  const auto resolver = Open();
  EXPECT_EQ(Ask(*resolver), AnswerStatus::kFound);
  EXPECT_EQ(resolver->Servers().size(), 1 + limits::kDirectoryServersOfPriority);
  EXPECT_EQ(resolver->Stats().server, Localhost(one));
}

TEST_F(Srv, WhenAllServersFailTheNameIsLookedUpBeforeItsTtlIsOver) {
  dns.Serve({Record(one, 1)}, 600);
  const auto resolver = Open();
  ASSERT_EQ(Ask(*resolver), AnswerStatus::kFound);
  dns.Serve({Record(two, 1)}, 600);
  one.Stop();
  events.Await(ResolverEvent::Kind::kConnected, 2);
  EXPECT_EQ(resolver->Stats().server, Localhost(two));
}

TEST_F(Srv, AProcessStartedFromItsSnapshotAnswersWhileDnsIsDown) {
  const std::string file =
      std::filesystem::temp_directory_path() / ("datawire-srv-" + std::to_string(::getpid()));
  ResolverOptions options;
  options.snapshot_file = file;
  dns.Serve({Record(one, 1)});
  {
    const auto resolver = Open(options);
    ASSERT_EQ(Ask(*resolver), AnswerStatus::kFound);
  }
  dns.Kill();
  const auto resolver = Open(options);
  const auto answer = resolver->Resolve(kAddress);
  EXPECT_EQ(answer->status, AnswerStatus::kFound);
  EXPECT_EQ(answer->source, "snapshot");
  std::filesystem::remove(file);
}

TEST_F(Srv, ADnsServerThatNeverAnswersHoldsUpNeitherOpenNorTheEnd) {
  const int silent = ::socket(AF_INET, SOCK_DGRAM, 0);
  sockaddr_in at{};
  at.sin_family = AF_INET;
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof at;
  ASSERT_EQ(::bind(silent, reinterpret_cast<sockaddr*>(&at), size), 0);
  ASSERT_EQ(::getsockname(silent, reinterpret_cast<sockaddr*>(&at), &size), 0);
  const std::string address = "127.0.0.1:" + std::to_string(ntohs(at.sin_port));
  BootTime start = BootClock::now();
  {
    auto opened = Resolver::Open(
        {.directory = {}, .domain = "example.test", .dns_server = address, .tls = {}});
    ASSERT_TRUE(opened.ok());
    char byte;
    EXPECT_GT(::recv(silent, &byte, 1, 0), 0);  // it was asked
  }
  EXPECT_LT(BootClock::now() - start, milliseconds(900));  // before the first try is over
  start = BootClock::now();
  const auto servers = LookUpServers(
      {.servers = {}, .domain = "example.test", .dns_server = address}, milliseconds(300));
  EXPECT_EQ(servers.status().code(), Code::kUnavailable);
  EXPECT_NE(servers.status().message().find("no answer within 300 ms"), std::string::npos);
  EXPECT_LT(BootClock::now() - start, milliseconds(900));
  ::close(silent);
}

}  // namespace
}  // namespace datawire
