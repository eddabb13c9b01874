#pragma once

#include <atomic>
#include <future>
#include <thread>

#include <proton/target_options.hpp>

#include "amqp_fixture.h"
#include "datawire/client.h"
#include "sender_shell.h"

namespace datawire {

using namespace std::chrono_literals;
using amqp::Board;

/// Answers that the test gives. Thread-safe.
class FakeResolver final : public Resolver {
 public:
  void Set(std::vector<std::string> urls, std::vector<std::string> draining = {}) {
    datawire::Answer answer{Address::Parse("//demo/x").value()};
    answer.status = urls.empty() ? AnswerStatus::kNotFound : AnswerStatus::kFound;
    for (const std::string& url : urls) {
      answer.endpoints.push_back(Endpoint{EndpointUrl::Parse(url).value()});
    }
    for (const std::string& url : draining) {
      answer.endpoints.push_back(Endpoint{EndpointUrl::Parse(url).value()});
      answer.endpoints.back().state = EndpointState::kDraining;
    }
    std::vector<Callback> callbacks;
    {
      const std::lock_guard lock(mutex_);
      answer_ = std::make_shared<const datawire::Answer>(std::move(answer));
      callbacks = callbacks_;
    }
    for (const Callback& callback : callbacks) callback(answer_);
  }
  AnswerPtr Resolve(const Address&, ResolveOptions) override { return answer_; }
  void Resolve(const Address&, ResolveOptions, Callback done) override { done(answer_); }
  std::unique_ptr<Subscription> Subscribe(const Address&, Callback changed) override {
    {
      const std::lock_guard lock(mutex_);
      callbacks_.push_back(changed);
    }
    if (answer_) changed(answer_);
    return std::make_unique<Subscription>();
  }
  ResolverStats Stats() const override { return {}; }
  Status LastError() const override { return {}; }
  std::vector<std::string> Servers() const override { return {}; }
  void NoteEjected(const std::string& url, const Status&) override {
    const std::lock_guard lock(mutex_);
    ejected_.push_back(url);
  }
  std::vector<std::string> ejected() {
    const std::lock_guard lock(mutex_);
    return ejected_;
  }

 private:
  std::mutex mutex_;
  std::vector<std::string> ejected_;
  AnswerPtr answer_;
  std::vector<Callback> callbacks_;
};

/// A client and services of one process; the directory is away, so physical URLs are used.
class ClientTest : public testing::Test {
 protected:
  static ClientOptions Options() {
    ClientOptions options;
    options.resolver.directory = {"127.0.0.1:1"};
    options.program = "client_test";
    return options;
  }
  /// A service of the test's server client, at //demo/x.
  std::unique_ptr<Service> Serve(Handler handler, ServiceOptions options = {}) {
    auto service = server_.Serve("//demo/x", std::move(handler), std::move(options));
    EXPECT_TRUE(service.ok()) << service.status().ToString();
    return std::move(service).value();
  }
  static std::string To(const Service& service, const std::string& node = "//demo/x") {
    return service.url() + "/" + node;
  }
  std::unique_ptr<Sender> Open(const std::string& url, SenderOptions options = {}) {
    auto sender = client_.OpenSender(url, options);
    EXPECT_TRUE(sender.ok()) << sender.status().ToString();
    return std::move(sender).value();
  }
  static DeliveryOutcome Outcome(Delivery delivery) { return delivery.Wait(); }
  static SendOptions Within(std::chrono::milliseconds deadline) {
    SendOptions options;
    options.deadline = deadline;
    return options;
  }

  Board board_;
  Client server_{Options()}, client_{Options()};
};

/// A peer made of bare AMQP: does what the test tells it. Thread-safe.
class RawPeer {
 public:
  /// `prepare` sets the hooks of each connection, numbered from 0.
  using Prepare = std::function<void(int number, amqp::Hooks& hooks)>;
  explicit RawPeer(Prepare prepare, uint16_t port = 0) {
    listener_ =
        amqp::Listener::Open(io_, {"127.0.0.1", port}, {}, [this, prepare = std::move(prepare)] {
          auto hooks = std::make_shared<amqp::Hooks>();
          prepare(count_++, *hooks);
          return amqp::Listener::Accepted{hooks, [](const Status&) {},
                                          [this](std::shared_ptr<amqp::Connection> c) {
                                            const std::lock_guard lock(mutex_);
                                            connections_.push_back(c);
                                          }};
        }).value();
  }
  ~RawPeer() { io_.Stop(); }
  std::string url(const std::string& node = "n") const {
    return "amqp://" + listener_->bound().ToString() + "/" + node;
  }
  uint16_t port() const { return listener_->bound().port; }
  int connections() const { return count_; }
  void AbortAll() {
    const std::lock_guard lock(mutex_);
    for (auto& weak : connections_) {
      if (auto c = weak.lock()) c->Abort(Status(Code::kCancelled, "test"));
    }
  }
  void Close() { listener_->Close(); }

 private:
  std::atomic<int> count_ = 0;
  std::mutex mutex_;
  std::vector<std::weak_ptr<amqp::Connection>> connections_;
  amqp::Io io_;
  std::unique_ptr<amqp::Listener> listener_;
};

inline std::string Body(const proton::message& message) {
  return proton::get<std::string>(message.body());
}

/// Opens links with so much credit, settling by hand.
inline std::function<void(proton::receiver&)> Takes(uint32_t credit) {
  return [credit](proton::receiver& receiver) {
    proton::target_options target;
    target.address(receiver.target().address());
    receiver.open(proton::receiver_options().target(target).credit_window(0).auto_accept(false));
    receiver.add_credit(credit);
  };
}

}  // namespace datawire
