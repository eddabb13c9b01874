#pragma once

#include <grpcpp/grpcpp.h>

#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "datawire/directory/v1/directory.grpc.pb.h"
#include "datawire/wire.h"

namespace datawire::testing {

/// A directory server that does what a test tells it: real gRPC, no storage. Thread-safe.
class FakeDirectory {
 public:
  explicit FakeDirectory(std::string cluster = "c1", uint64_t revision = 10);
  ~FakeDirectory();

  void Start();  ///< on the port of the last time, if there was one
  void Stop();   ///< all streams end
  void TakePortOf(const FakeDirectory& stopped) { port_ = stopped.port_; }
  std::string server() const { return "127.0.0.1:" + std::to_string(port_); }

  /// How it behaves; set before Start or a stream.
  bool speaks = true;   ///< false: takes streams and says nothing at all
  bool answers = true;  ///< false: marks only
  bool confirms = true;
  uint64_t age_ms = 0;                      ///< of its answers
  std::map<std::string, std::string> grpc;  ///< by URL: the endpoint's label `grpc`
  Code unary = Code::kOk;                   ///< what unary calls are refused with
  Status streams;                           ///< what streams are refused with

  /// Sets the endpoints (none: NOT_FOUND) at the next revision, and pushes.
  void Set(const std::string& address, std::vector<std::string> urls);
  /// Sets without a push, as a server that is slow to tell would.
  void SetQuietly(const std::string& address, std::vector<std::string> urls);
  void Forget(const std::string& address);
  /// Raw: to all streams.
  void Send(const pb::SubscribeResponse& response);
  void Mark(uint64_t age_ms = 0);
  pb::Answer AnswerOf(const std::string& address);
  void set_revision(uint64_t number);

  /// What it saw.
  struct Seen {
    std::vector<pb::SubscribeRequest::Held> adds;
    std::vector<std::string> drops;
    uint64_t streams = 0, requests = 0, acknowledged = 0, unary = 0, open = 0;
    size_t AddsOf(const std::string& address) const {
      size_t count = 0;
      for (const auto& add : adds) count += add.address() == address;
      return count;
    }
  };
  Seen seen();
  /// Waits until `condition` holds of what it saw; false after 20 s.
  bool Await(const std::function<bool(const Seen&)>& condition);

 private:
  class Service;
  class Reactor;
  friend class Service;
  friend class Reactor;
  void OnRequest(Reactor* stream, const pb::SubscribeRequest& request);
  pb::Answer Make(const std::string& address);
  pb::SubscribeResponse MarkMessage(uint64_t age_ms, bool first);
  void Push(const std::string& address);

  std::mutex mutex_;
  std::condition_variable changed_;
  std::string cluster_;
  uint64_t revision_;
  struct Row {
    std::vector<std::string> urls;
    uint64_t modified;
  };
  std::map<std::string, Row> rows_;
  std::map<Reactor*, std::set<std::string>> streams_;
  Seen seen_;
  int port_ = 0;
  int reserved_ = -1;  // bound and silent: nobody else gets the port while we are stopped
  std::unique_ptr<Service> service_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace datawire::testing
