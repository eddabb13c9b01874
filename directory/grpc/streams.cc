#include "grpc/streams.h"

#include <utility>

#include "datawire/limits.h"
#include "grpc/wire_bytes.h"

namespace datawire::directory {
namespace {

using grpc::ByteBuffer;

/// What the three reactors share: the outgoing half, its place among the open streams, its count.
/// `Reactor` is gRPC's class. `Begin` is the end of a derived constructor.
template <typename Reactor>
class OutgoingStream : public Reactor {
 public:
  void OnWriteDone(bool ok) override { outflow_->Written(ok); }
  void OnCancel() override { outflow_->Close(Status(Code::kCancelled, "the peer is gone")); }
  void OnDone() override {
    (void)outflow_->ended();  // its lock orders what other threads did with this stream before
    shared_.streams.Remove(outflow_.get());
    shared_.counts.Count(verb_, code_);
    Released();
    delete this;
  }

 protected:
  OutgoingStream(Shared& shared, Verb verb, const grpc::CallbackServerContext& context)
      : shared_(shared), verb_(verb), outflow_(std::make_shared<Outflow>(MakeActions())) {
    admitted_ = shared_.streams.Add(verb, outflow_);
    if (!admitted_) outflow_->Close(Status(Code::kUnavailable, "this server stops: try another"));
    if (Status known = CheckCaller(shared, context); admitted_ && !known.ok()) {
      admitted_ = false;
      outflow_->Close(std::move(known));
    }
  }

  virtual Pulled Pull() = 0;
  /// Drops what the core gave; the outflow still lives.
  virtual void Released() = 0;

  Shared& shared_;
  const Verb verb_;
  const std::shared_ptr<Outflow> outflow_;
  bool admitted_ = false;

 private:
  Outflow::Actions MakeActions() {
    return {.pull = [this] { return Pull(); },
            .write =
                [this](std::string bytes, bool more) {
                  outgoing_ = ToBuffer(std::move(bytes));
                  grpc::WriteOptions options;
                  if (more) options.set_buffer_hint();
                  this->StartWrite(&outgoing_, options);
                },
            .end =
                [this](const Status& status) {
                  code_ = status.code();
                  this->Finish(ToGrpc(status));
                },
            .run = [this](std::function<void()> task) { shared_.executor.Post(std::move(task)); }};
  }

  ByteBuffer outgoing_;
  Code code_ = Code::kOk;
};

/// Tether and Subscribe: reads one message after the other.
class BidiStream : public OutgoingStream<grpc::ServerBidiReactor<ByteBuffer, ByteBuffer>> {
 public:
  void OnReadDone(bool ok) override {
    if (outflow_->ended()) return;
    if (!ok) {
      OnHalfClosed();
      return;
    }
    if (!heard_) {
      heard_ = true;
      shared_.streams.ClearDeadline(outflow_.get());
    }
    if (Status status = OnMessage(incoming_); !status.ok()) outflow_->Close(std::move(status));
    if (!outflow_->ended()) StartRead(&incoming_);
  }

 protected:
  using OutgoingStream::OutgoingStream;

  void Begin() {
    shared_.streams.SetDeadline(outflow_.get(), BootClock::now() + limits::kFirstRequest,
                                Status(Code::kTimeout, "no first message within 10 s"));
    outflow_->Start();
    StartRead(&incoming_);
  }
  virtual Status OnMessage(const ByteBuffer& bytes) = 0;
  /// The peer will not send more. A broken stream comes by OnCancel.
  virtual void OnHalfClosed() {}

 private:
  ByteBuffer incoming_;
  bool heard_ = false;
};

class TetherStream final : public BidiStream {
 public:
  TetherStream(Shared& shared, const grpc::CallbackServerContext& context)
      : BidiStream(shared, Verb::kTether, context) {
    if (admitted_) tether_ = shared.directory.OpenTether(PeerOf(context), *outflow_);
    Begin();
  }

 private:
  Status OnMessage(const ByteBuffer& bytes) override {
    pb::TetherRequest request;
    DW_RETURN_IF_ERROR(Parse(bytes, limits::kBulkBytes, &request));
    if (tether_ == nullptr) return Status::Ok();
    outflow_->Hold();  // the reply to a heartbeat is there when OnMessage returns
    tether_->OnMessage(request);
    outflow_->Release();
    return Status::Ok();
  }

  // One ahead: acknowledgements of one commit go out in one packet.
  Pulled Pull() override {
    const auto next = ahead_ ? std::exchange(ahead_, std::nullopt) : tether_->Next();
    if (!next) return {};
    ahead_ = tether_->Next();
    return {.status = Status::Ok(),
            .bytes = next->SerializeAsString(),
            .last = next->has_ended(),
            .more = ahead_.has_value()};
  }

  // No heartbeat can come: it is only kept for the answers still due.
  void OnHalfClosed() override {
    shared_.streams.SetDeadline(outflow_.get(), BootClock::now() + limits::kFirstRequest,
                                Status::Ok());
  }

  void Released() override { tether_.reset(); }

  std::unique_ptr<Tether> tether_;
  std::optional<pb::TetherResponse> ahead_;
};

class SubscribeStream final : public BidiStream {
 public:
  SubscribeStream(Shared& shared, const grpc::CallbackServerContext& context)
      : BidiStream(shared, Verb::kSubscribe, context) {
    if (admitted_) {
      if (Status status = Open(PeerOf(context)); !status.ok()) outflow_->Close(std::move(status));
    }
    Begin();
  }

 private:
  Status Open(const Peer& peer) {
    DW_ASSIGN(subscriber_, shared_.directory.OpenSubscriber(peer, *outflow_));
    return Status::Ok();
  }

  Status OnMessage(const ByteBuffer& bytes) override {
    pb::SubscribeRequest request;
    DW_RETURN_IF_ERROR(Parse(bytes, limits::kBulkBytes, &request));
    return subscriber_ != nullptr ? subscriber_->OnRequest(request) : Status::Ok();
  }

  Pulled Pull() override { return {.status = Status::Ok(), .bytes = subscriber_->Next()}; }

  void Released() override { subscriber_.reset(); }

  std::unique_ptr<Subscriber> subscriber_;
};

class WatchStream final : public OutgoingStream<grpc::ServerWriteReactor<ByteBuffer>> {
 public:
  WatchStream(Shared& shared, const grpc::CallbackServerContext& context, const ByteBuffer& bytes)
      : OutgoingStream(shared, Verb::kWatch, context) {
    if (admitted_) {
      Status status = Open(PeerOf(context), bytes);
      if (!status.ok()) outflow_->Close(std::move(status));
    }
    outflow_->Start();
  }

 private:
  Status Open(const Peer& peer, const ByteBuffer& bytes) {
    pb::WatchRequest request;
    DW_RETURN_IF_ERROR(Parse(bytes, limits::kUnaryBytes, &request));
    DW_ASSIGN(watcher_, shared_.directory.OpenWatcher(request, peer, *outflow_));
    return Status::Ok();
  }

  Pulled Pull() override {
    auto next = watcher_->Next();
    if (!next.ok()) return {.status = next.status(), .bytes = {}};
    return {.status = Status::Ok(), .bytes = std::move(next).value()};
  }

  void Released() override { watcher_.reset(); }

  std::unique_ptr<Watcher> watcher_;
};

}  // namespace

Status CheckCaller(const Shared& shared, const grpc::CallbackServerContext& context) {
  return shared.certified ? IdentityOf(context).status() : Status::Ok();
}

grpc::ServerBidiReactor<ByteBuffer, ByteBuffer>* NewTetherStream(
    Shared& shared, const grpc::CallbackServerContext& context) {
  return new TetherStream(shared, context);
}

grpc::ServerBidiReactor<ByteBuffer, ByteBuffer>* NewSubscribeStream(
    Shared& shared, const grpc::CallbackServerContext& context) {
  return new SubscribeStream(shared, context);
}

grpc::ServerWriteReactor<ByteBuffer>* NewWatchStream(Shared& shared,
                                                     const grpc::CallbackServerContext& context,
                                                     const ByteBuffer& request) {
  return new WatchStream(shared, context, request);
}

}  // namespace datawire::directory
