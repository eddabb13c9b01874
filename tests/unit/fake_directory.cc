#include "fake_directory.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>

namespace datawire::testing {
namespace {

grpc::Status Refused(const Status& status) {
  pb::Refusal refusal;
  ToWire(status, &refusal);
  return {static_cast<grpc::StatusCode>(MappingOf(status.code()).grpc), status.message(),
          refusal.SerializeAsString()};
}

// A socket on a port of the system's choice that shares it with a later listener (SO_REUSEADDR).
int Reserve(int* port) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int on = 1;
  sockaddr_in at{};
  at.sin_family = AF_INET;
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(at);
  if (::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0 ||
      ::bind(fd, reinterpret_cast<sockaddr*>(&at), size) != 0 ||
      ::getsockname(fd, reinterpret_cast<sockaddr*>(&at), &size) != 0)
    throw std::runtime_error("no free port");
  *port = ntohs(at.sin_port);
  return fd;
}

}  // namespace

// One stream; guarded by the fake's mutex.
class FakeDirectory::Reactor
    : public grpc::ServerBidiReactor<pb::SubscribeRequest, pb::SubscribeResponse> {
 public:
  explicit Reactor(FakeDirectory& fake) : fake_(fake) {
    {
      std::lock_guard lock(fake_.mutex_);
      fake_.streams_[this];
      fake_.seen_.streams++;
      fake_.seen_.open++;
      if (!fake_.streams.ok()) {
        ended_ = true;
        Finish(Refused(fake_.streams));
      } else if (fake_.speaks) {
        Queue(fake_.MarkMessage(0, true));
      }
      fake_.changed_.notify_all();
    }
    if (!ended_) StartRead(&request_);
  }
  void Queue(pb::SubscribeResponse response) {
    queue_.push_back(std::move(response));
    Next();
  }
  void OnReadDone(bool ok) override {
    if (!ok) {
      std::lock_guard lock(fake_.mutex_);
      End();
      return;
    }
    fake_.OnRequest(this, request_);
    StartRead(&request_);
  }
  void OnWriteDone(bool ok) override {
    std::lock_guard lock(fake_.mutex_);
    writing_ = false;
    if (!ok) return End();
    queue_.pop_front();
    Next();
  }
  void OnCancel() override {
    std::lock_guard lock(fake_.mutex_);
    End();
  }
  void OnDone() override {
    {
      std::lock_guard lock(fake_.mutex_);
      fake_.streams_.erase(this);
      fake_.seen_.open--;
      fake_.changed_.notify_all();
    }
    delete this;
  }

 private:
  void Next() {
    if (writing_ || ended_ || queue_.empty()) return;
    writing_ = true;
    StartWrite(&queue_.front());
  }
  void End() {
    if (ended_) return;
    ended_ = true;
    fake_.streams_.erase(this);
    Finish(grpc::Status::OK);
  }

  FakeDirectory& fake_;
  pb::SubscribeRequest request_;
  std::deque<pb::SubscribeResponse> queue_;
  bool writing_ = false, ended_ = false;
};

class FakeDirectory::Service : public pb::Directory::CallbackService {
 public:
  explicit Service(FakeDirectory& fake) : fake_(fake) {}
  grpc::ServerBidiReactor<pb::SubscribeRequest, pb::SubscribeResponse>* Subscribe(
      grpc::CallbackServerContext*) override {
    return new Reactor(fake_);
  }
  grpc::ServerUnaryReactor* Resolve(grpc::CallbackServerContext* context,
                                    const pb::ResolveRequest* request,
                                    pb::ResolveResponse* response) override {
    auto* reactor = context->DefaultReactor();
    std::lock_guard lock(fake_.mutex_);
    fake_.seen_.unary++;
    fake_.changed_.notify_all();
    Status status(fake_.unary, "told so");
    if (status.ok() && request->min_revision().number() > fake_.revision_)
      status = {Code::kBehind, "not there yet"};
    if (!status.ok()) {
      reactor->Finish(Refused(status));
      return reactor;
    }
    response->mutable_source()->set_cluster_id(fake_.cluster_);
    response->mutable_source()->set_epoch(1);
    for (const std::string& address : request->addresses())
      *response->add_answers() = fake_.Make(address);
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }

 private:
  FakeDirectory& fake_;
};

FakeDirectory::FakeDirectory(std::string cluster, uint64_t revision)
    : cluster_(std::move(cluster)), revision_(revision) {}

FakeDirectory::~FakeDirectory() {
  Stop();
  if (reserved_ >= 0) ::close(reserved_);
}

void FakeDirectory::Start() {
  if (port_ == 0) reserved_ = Reserve(&port_);
  service_ = std::make_unique<Service>(*this);
  grpc::ServerBuilder builder;
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddListeningPort("127.0.0.1:" + std::to_string(port_), grpc::InsecureServerCredentials(),
                           &port_);
  builder.RegisterService(service_.get());
  server_ = builder.BuildAndStart();
  if (!server_) throw std::runtime_error("cannot listen on " + server());
}

void FakeDirectory::Stop() {
  if (!server_) return;
  server_->Shutdown(std::chrono::system_clock::now());  // NOLINT: what gRPC takes
  server_->Wait();
  server_.reset();
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, std::chrono::seconds(5), [&] { return seen_.open == 0; });
}

pb::Answer FakeDirectory::Make(const std::string& address) {
  pb::Answer answer;
  answer.set_address(address);
  ToWire(Revision{1, revision_}, answer.mutable_revision());
  answer.set_ttl_ms(30'000);
  answer.set_age_ms(age_ms);
  auto* row = answer.mutable_row();
  const auto at = rows_.find(address);
  if (at == rows_.end()) {
    row->set_status(pb::ANSWER_STATUS_NOT_FOUND);
    row->set_hash(1);
    return answer;
  }
  answer.set_matched(address);
  row->set_status(pb::ANSWER_STATUS_FOUND);
  row->set_total(static_cast<uint32_t>(at->second.urls.size()));
  uint64_t hash = 7;
  for (const std::string& url : at->second.urls) {
    auto* endpoint = row->add_endpoints();
    endpoint->set_url(url);
    endpoint->set_weight(100);
    if (const auto label = grpc.find(url); label != grpc.end())
      (*endpoint->mutable_labels())["grpc"] = label->second;
    hash = hash * 31 + std::hash<std::string>()(url);
  }
  row->set_hash(hash);
  ToWire(Revision{1, at->second.modified}, row->mutable_modified());
  return answer;
}

pb::SubscribeResponse FakeDirectory::MarkMessage(uint64_t age_ms, bool first) {
  pb::SubscribeResponse response;
  ToWire(Revision{1, revision_}, response.mutable_mark()->mutable_revision());
  response.mutable_mark()->set_age_ms(age_ms);
  if (first) {
    response.mutable_mark()->mutable_source()->set_cluster_id(cluster_);
    response.mutable_mark()->mutable_source()->set_epoch(1);
  }
  return response;
}

void FakeDirectory::OnRequest(Reactor* stream, const pb::SubscribeRequest& request) {
  std::lock_guard lock(mutex_);
  seen_.requests++;
  seen_.acknowledged = std::max(seen_.acknowledged, request.acknowledged().number());
  changed_.notify_all();
  const auto at = streams_.find(stream);
  for (const auto& add : request.add()) seen_.adds.push_back(add);
  for (const auto& drop : request.drop()) seen_.drops.push_back(drop);
  if (at == streams_.end()) return;
  for (const auto& drop : request.drop()) at->second.erase(drop);
  pb::SubscribeResponse response;
  for (const auto& add : request.add()) {
    at->second.insert(add.address());
    if (!speaks || !answers) continue;
    pb::Answer answer = Make(add.address());
    if (confirms && add.has_revision() && add.hash() == answer.row().hash()) {
      response.add_confirmed(add.address());
      ToWire(Revision{1, revision_}, response.mutable_confirmed_at());
    } else {
      *response.add_answers() = std::move(answer);
    }
  }
  if (response.answers_size() + response.confirmed_size() > 0) stream->Queue(std::move(response));
}

void FakeDirectory::Push(const std::string& address) {
  for (auto& [stream, addresses] : streams_) {
    if (!addresses.contains(address)) continue;
    pb::SubscribeResponse response;
    *response.add_answers() = Make(address);
    stream->Queue(std::move(response));
  }
}

void FakeDirectory::Set(const std::string& address, std::vector<std::string> urls) {
  std::lock_guard lock(mutex_);
  rows_[address] = {std::move(urls), ++revision_};
  Push(address);
}

void FakeDirectory::SetQuietly(const std::string& address, std::vector<std::string> urls) {
  std::lock_guard lock(mutex_);
  rows_[address] = {std::move(urls), ++revision_};
}

void FakeDirectory::Forget(const std::string& address) {
  std::lock_guard lock(mutex_);
  rows_.erase(address);
  revision_++;
  Push(address);
}

void FakeDirectory::Send(const pb::SubscribeResponse& response) {
  std::lock_guard lock(mutex_);
  for (auto& [stream, addresses] : streams_) stream->Queue(response);
}

void FakeDirectory::Mark(uint64_t age_ms) {
  std::lock_guard lock(mutex_);
  for (auto& [stream, addresses] : streams_) stream->Queue(MarkMessage(age_ms, false));
}

pb::Answer FakeDirectory::AnswerOf(const std::string& address) {
  std::lock_guard lock(mutex_);
  return Make(address);
}

void FakeDirectory::set_revision(uint64_t number) {
  std::lock_guard lock(mutex_);
  revision_ = number;
}

FakeDirectory::Seen FakeDirectory::seen() {
  std::lock_guard lock(mutex_);
  return seen_;
}

bool FakeDirectory::Await(const std::function<bool(const Seen&)>& condition) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, std::chrono::seconds(20), [&] { return condition(seen_); });
}

}  // namespace datawire::testing
