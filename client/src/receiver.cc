#include "receiver.h"

#include <algorithm>
#include <random>

#include "datawire/endpoint_health.h"

namespace datawire {

using std::chrono::milliseconds;

/// What the receiver shares with its link, its answers and the exchanges it handed out.
class PullReceiver::Shell final : public std::enable_shared_from_this<Shell> {
 public:
  Shell(amqp::Io& io, std::shared_ptr<Links> links, const ClientOptions& client,
        Destination destination, uint32_t credit)
      : io_(io),
        links_(std::move(links)),
        destination_(std::move(destination)),
        credit_(credit),
        random_(std::random_device{}()),
        health_(client.selection, client.locality) {}

  void Start(Resolver* resolver) {
    if (destination_.physical) return Changed(destination_.Fixed());
    auto subscription = resolver->Subscribe(
        *destination_.address, [weak = weak_from_this()](const Resolver::AnswerPtr& answer) {
          if (const auto self = weak.lock()) self->Changed(answer);
        });
    const std::lock_guard lock(mutex_);
    subscription_ = std::move(subscription);
  }

  Result<Exchange> Receive(milliseconds wait) {
    const BootTime until = BootClock::now() + wait;
    std::unique_lock lock(mutex_);
    const auto ready = [this] { return closed_ || !came_.empty(); };
    while (!ready()) {
      const auto left = until - BootClock::now();
      if (left <= left.zero()) {
        return Status(Code::kTimeout, "no message within " + std::to_string(wait.count()) + " ms" +
                                          (why_.empty() ? "" : "; last: " + why_));
      }
      changed_.wait_for(lock, left, ready);
    }
    if (closed_) return Status(Code::kCancelled, "the receiver is closed");
    auto state = std::move(came_.front());
    came_.pop_front();
    lock.unlock();
    if (state->Expired(BootClock::now())) {
      const auto left = std::chrono::duration_cast<milliseconds>(until - BootClock::now());
      return Receive(std::max(left, milliseconds(0)));
    }
    return Exchange(std::move(state));
  }

  void Close() {
    std::deque<std::shared_ptr<Exchange::State>> released;
    std::unique_ptr<Resolver::Subscription> subscription;
    std::shared_ptr<PeerLink> link;
    {
      const std::lock_guard lock(mutex_);
      if (std::exchange(closed_, true)) return;
      released.swap(came_);
      subscription = std::move(subscription_);
      link = std::move(link_);
      ++turn_;
    }
    changed_.notify_all();
    subscription.reset();
    released.clear();  // before the link closes
    if (link) link->Close();
  }

 private:
  class Events;

  /// A failure to know changes nothing; a link that works stays, unless its endpoint drains and
  /// another one is there.
  void Changed(const Resolver::AnswerPtr& answer) {
    std::shared_ptr<PeerLink> left;
    {
      const std::lock_guard lock(mutex_);
      if (answer->status == AnswerStatus::kUnavailable && answer_) return;
      answer_ = answer;
      health_.Listed(answer->endpoints, BootClock::now());
      why_ = answer->endpoints.empty()
                 ? "the address is " + std::string(AnswerStatusName(answer->status))
                 : "";
      if (link_ && !leaving_ && Drains(*answer)) {
        leaving_ = true;
        left = link_;
      }
    }
    if (left) left->Leave();
    Connect();
  }

  /// Under mutex_.
  bool Drains(const Answer& answer) const {
    const auto at = [this](const Endpoint& e) { return e.url.text() == url_; };
    const auto here = std::find_if(answer.endpoints.begin(), answer.endpoints.end(), at);
    return here != answer.endpoints.end() && here->state == EndpointState::kDraining &&
           std::any_of(answer.endpoints.begin(), answer.endpoints.end(),
                       [](const Endpoint& e) { return e.state == EndpointState::kUp; });
  }

  /// Opens a link if there is none and somebody to open it to.
  void Connect() {
    std::optional<Endpoint> to;
    uint64_t turn = 0;
    std::string node;
    {
      const std::lock_guard lock(mutex_);
      if (closed_ || opening_ || link_ || !answer_) return;
      const BootTime now = BootClock::now();
      std::vector<const Endpoint*> endpoints;
      for (const Endpoint& endpoint : answer_->endpoints) endpoints.push_back(&endpoint);
      const EndpointHealth::Lineup lineup = health_.LineUp(endpoints, now);
      const auto pick = Select(answer_->policy, lineup.candidates, "", random_);
      if (!pick) return ConnectAt(lineup.next_change, now);
      since_ = now;
      opened_ = worked_ = leaving_ = false;
      to = answer_->endpoints[*pick];
      url_ = to->url.text();
      node = destination_.Node(answer_->matched.value_or(answer_->address), to->url);
      opening_ = true;
      turn = ++turn_;
    }
    LinkSpec spec;
    spec.kind = LinkSpec::Kind::kReceiver;
    spec.node = std::move(node);
    spec.credit = credit_;
    spec.identity = to->identity;
    auto link = links_->Open(to->url, std::move(spec), MakeEvents(turn, to->url.text()));
    {
      const std::lock_guard lock(mutex_);
      opening_ = false;
      if (turn_ == turn) {
        link_ = link;
        return;
      }
    }
    link->Close();  // closed or lost meanwhile
    Connect();
  }

  /// Under mutex_. One timer at a time.
  void ConnectAt(std::optional<BootTime> at, BootTime now) {
    if (!at || std::exchange(armed_, true)) return;
    io_.After(std::chrono::ceil<milliseconds>(*at - now), [weak = weak_from_this()] {
      const auto self = weak.lock();
      if (!self) return;
      {
        const std::lock_guard lock(self->mutex_);
        self->armed_ = false;
      }
      self->Connect();
    });
  }

  std::shared_ptr<LinkEvents> MakeEvents(uint64_t turn, const std::string& url);

  void Opened(uint64_t turn) {
    const std::lock_guard lock(mutex_);
    opened_ |= turn == turn_;
  }

  void Came(uint64_t turn, std::shared_ptr<Answerer> answerer, uint64_t token,
            const std::string& from, proton::message message) {
    auto state = std::make_shared<Exchange::State>(
        std::move(answerer), token, destination_.address ? destination_.address->text() : from,
        std::move(message));
    {
      const std::lock_guard lock(mutex_);
      if (closed_ || turn != turn_) return;
      if (!std::exchange(worked_, true)) health_.Worked(from, BootClock::now());
      came_.push_back(std::move(state));
    }
    changed_.notify_one();
  }

  void Lost(uint64_t turn, const std::string& url, const std::string& why) {
    std::deque<std::shared_ptr<Exchange::State>> stale;  // nobody can answer them any more
    {
      const std::lock_guard lock(mutex_);
      if (closed_ || turn != turn_) return;
      ++turn_;
      link_.reset();
      stale.swap(came_);
      why_ = url + ": " + why;
      const BootTime now = BootClock::now();
      const bool refused = !opened_ && now - since_ < limits::kConnect;
      using Failure = EndpointHealth::Failure;
      if (!leaving_) health_.Failed(url, refused ? Failure::kRefused : Failure::kLost, now);
    }
    Connect();
  }

  amqp::Io& io_;
  const std::shared_ptr<Links> links_;
  const Destination destination_;
  const uint32_t credit_;
  std::mutex mutex_;
  std::condition_variable changed_;
  Random random_;                                           // guarded by mutex_
  EndpointHealth health_;                                   // guarded by mutex_
  Resolver::AnswerPtr answer_;                              // guarded by mutex_
  std::string why_;                                         // guarded by mutex_
  std::deque<std::shared_ptr<Exchange::State>> came_;       // guarded by mutex_; at most credit
  std::shared_ptr<PeerLink> link_;                          // guarded by mutex_
  uint64_t turn_ = 0;                                       // guarded by mutex_; of the link
  BootTime since_;                                          // guarded by mutex_; asked for the link
  std::string url_;                                         // guarded by mutex_; of this link
  bool opened_ = false, worked_ = false, leaving_ = false;  // guarded by mutex_; this link
  bool armed_ = false, opening_ = false, closed_ = false;   // guarded by mutex_
  std::unique_ptr<Resolver::Subscription> subscription_;    // guarded by mutex_
};

/// Of one link; answers to its messages go back through it.
class PullReceiver::Shell::Events final : public LinkEvents,
                                          public Answerer,
                                          public std::enable_shared_from_this<Events> {
 public:
  Events(std::weak_ptr<Shell> shell, uint64_t turn, std::string url)
      : shell_(std::move(shell)), turn_(turn), url_(std::move(url)) {}

  void OnStart(std::weak_ptr<PeerLink> link) override { link_ = std::move(link); }
  void OnOpened() override {
    if (const auto shell = shell_.lock()) shell->Opened(turn_);
  }
  void OnMessage(uint64_t token, proton::message message) override {
    if (const auto shell = shell_.lock()) {
      shell->Came(turn_, shared_from_this(), token, url_, std::move(message));
    }
  }
  void OnLost(const std::string& condition, const std::string& description) override {
    if (const auto shell = shell_.lock()) {
      shell->Lost(turn_, url_, description.empty() ? condition : description);
    }
  }
  void Answer(uint64_t token, Settle how) override {
    if (const auto link = link_.lock()) link->SettleMessage(token, std::move(how));
  }
  Status Reply(uint64_t token, const std::string& reply_to, std::vector<char>) override {
    Answer(token, {Settle::Kind::kAccept, {}});
    return Status(Code::kInvalid,
                  "a receiver cannot reply to " + Shown(reply_to) + ": send to an address instead");
  }

 private:
  const std::weak_ptr<Shell> shell_;
  const uint64_t turn_;
  const std::string url_;
  std::weak_ptr<PeerLink> link_;  // set once, before the first message
};

std::shared_ptr<LinkEvents> PullReceiver::Shell::MakeEvents(uint64_t turn, const std::string& url) {
  return std::make_shared<Events>(weak_from_this(), turn, url);
}

PullReceiver::PullReceiver(amqp::Io& io, std::shared_ptr<Links> links, const ClientOptions& client,
                           Destination destination, ReceiverOptions options)
    : shell_(std::make_shared<Shell>(io, std::move(links), client, std::move(destination),
                                     std::max(options.credit, 1u))) {}

void PullReceiver::Start(Resolver* resolver) {
  shell_->Start(resolver);
}

Result<Exchange> PullReceiver::Receive(std::chrono::milliseconds wait) {
  return shell_->Receive(wait);
}

void PullReceiver::Close() {
  shell_->Close();
}

}  // namespace datawire
