#include "world.h"

#include "datawire/wire.h"

namespace datawire::scenarios {

using resolver::CallEvent;
using resolver::StreamEvent;

class World::Wire final : public resolver::Transport {
 public:
  explicit Wire(World& world) : w_(world) {}

  void Open(uint64_t stream, const std::string& server) override {
    Close();
    w_.opens++;
    w_.stream_ = stream;
    const Mode mode = w_.modes_.at(server);
    if (mode == Mode::kDown) return w_.EndStream({Code::kUnavailable, "connection refused"});
    if (!w_.refusal.ok()) return w_.EndStream(w_.refusal);
    w_.connected_ = mode != Mode::kHang;
    if (mode != Mode::kUp) return;
    w_.taken_ = true;
    w_.MarkNow(true);
    w_.next_mark_ = w_.now_ + std::chrono::seconds(1);
  }
  bool Connected() const override { return w_.connected_; }
  void Read() override {
    w_.reading_ = true;
    w_.Deliver();
  }
  void Write(const SubscribeRequest& request) override {
    if (w_.stream_ == 0 || w_.writes_held_) return;
    w_.busy_ = true;
    w_.sink_->OnStream({.stream = w_.stream_, .kind = StreamEvent::Kind::kWritten});
    SubscribeResponse response;
    for (const auto& add : request.add()) {
      w_.adds[add.address()].push_back(add);
      w_.asked++;
      if (!w_.live()) continue;
      w_.subscribed_.insert(add.address());
      if (!w_.answers) continue;
      const auto row = w_.rows_.find(add.address());
      auto answer =
          w_.Make(add.address(), w_.revision, row == w_.rows_.end() ? nullptr : &row->second);
      if (w_.confirms && add.has_revision() && add.hash() == answer.row().hash()) {
        response.add_confirmed(add.address());
        ToWire(w_.revision, response.mutable_confirmed_at());
      } else {
        *response.add_answers() = std::move(answer);
      }
    }
    for (const auto& drop : request.drop()) {
      w_.drops[drop]++;
      w_.subscribed_.erase(drop);
    }
    if (response.answers_size() + response.confirmed_size() > 0) w_.Send(response);
  }
  void Close() override {
    w_.stream_ = 0;
    w_.taken_ = w_.connected_ = w_.reading_ = false;
    w_.queue_.clear();
    w_.subscribed_.clear();
  }
  void Resolve(uint64_t call, const std::string& server,
               const resolver::pb::ResolveRequest& request, milliseconds) override {
    w_.unary_calls++;
    w_.asked++;
    CallEvent event{.call = call};
    if (w_.modes_.at(server) != Mode::kUp || w_.unary == Unary::kFail)
      event.status = {Code::kUnavailable, "connection refused"};
    else if (w_.unary == Unary::kSilent)
      return;
    else if (w_.unary == Unary::kBehind || FromWire(request.min_revision()) > w_.revision)
      event.status = {Code::kBehind, "not there yet"};
    event.response.mutable_source()->set_cluster_id(w_.cluster);
    for (const std::string& address : request.addresses()) {
      const auto row = w_.rows_.find(address);
      *event.response.add_answers() =
          w_.Make(address, w_.revision, row == w_.rows_.end() ? nullptr : &row->second);
    }
    w_.busy_ = true;
    w_.sink_->OnCall(std::move(event));
  }

 private:
  World& w_;
};

World::World(const ResolverPolicy& policy, std::vector<std::string> servers) {
  for (const std::string& server : servers) modes_[server] = Mode::kUp;
  core_ =
      std::make_shared<resolver::Core>(DirectoryPlace{.servers = std::move(servers)}, policy, 42);
  sink_ = core_->sink();
  With([&] { core_->StartStepped(std::make_unique<Wire>(*this)); });
  Settle();
}

World::~World() {
  With([&] { core_->FinishStepped(); });
}

void World::Settle() {
  With([&] {
    for (int round = 0; round < 10'000; round++) {
      busy_ = false;
      core_->Step();
      if (!busy_) return;
    }
    DW_ASSERT(false);  // it turns in circles
  });
}

void World::Advance(sim::Time to) {
  while (now_ < to) {
    sim::Time next = With([&] { return core_->Step() - clock_.At(now_); });
    next = std::min(to, now_ + std::max<sim::Time>(next, std::chrono::microseconds(100)));
    if (live() && marks) next = std::min(next, std::max(now_, next_mark_));
    now_ = next;
    if (live() && marks && now_ >= next_mark_) {
      MarkNow(false);
      next_mark_ = now_ + std::chrono::seconds(1);
    }
    Settle();
  }
}

void World::Sleep(sim::Time span) {
  now_ += span;
  next_mark_ = now_;
}

void World::SetMode(const std::string& server, Mode mode) {
  for (auto& [name, present] : modes_)
    if (server.empty() || name == server) present = mode;
  if (stream_ != 0 && mode == Mode::kDown) EndStream({Code::kUnavailable, "the server stopped"});
  if (mode == Mode::kMute) marks = false;
}

resolver::pb::Answer World::Make(const std::string& address, Revision at,
                                 const std::vector<std::string>* words) const {
  resolver::pb::Answer answer;
  answer.set_address(address);
  ToWire(at, answer.mutable_revision());
  answer.set_ttl_ms(30'000);
  auto* row = answer.mutable_row();
  uint64_t hash = 1;
  bool up = false;
  std::string matched = address;
  resolver::pb::Endpoint like;
  like.set_weight(100);
  for (const std::string& word : words == nullptr ? std::vector<std::string>{} : *words) {
    hash = hash * 31 + std::hash<std::string>()(word);
    if (word.starts_with("matched=")) {
      matched = word.substr(8);
    } else if (word.starts_with("age=")) {
      answer.set_age_ms(std::stoull(word.substr(4)));
    } else if (word.starts_with("ttl=")) {
      answer.set_ttl_ms(std::stoull(word.substr(4)));
    } else if (word.starts_with("region=")) {
      like.set_region(word.substr(7));
    } else if (word.starts_with("zone=")) {
      like.set_zone(word.substr(5));
    } else if (word.starts_with("weight=")) {
      like.set_weight(static_cast<uint32_t>(std::stoul(word.substr(7))));
    } else if (word.starts_with("priority=")) {
      like.set_priority(static_cast<uint32_t>(std::stoul(word.substr(9))));
    } else if (word.starts_with("created=")) {
      like.set_created(std::stoull(word.substr(8)));
    } else {
      const bool suspect = word.starts_with("~");
      auto* endpoint = row->add_endpoints();
      *endpoint = like;
      endpoint->set_url(suspect ? word.substr(1) : word);
      endpoint->set_state(suspect ? resolver::pb::ENDPOINT_STATE_SUSPECT
                                  : resolver::pb::ENDPOINT_STATE_UP);
      up = up || !suspect;
    }
  }
  row->set_hash(hash);
  row->set_total(static_cast<uint32_t>(row->endpoints_size()));
  row->set_status(row->endpoints_size() == 0 ? resolver::pb::ANSWER_STATUS_NOT_FOUND
                  : up                       ? resolver::pb::ANSWER_STATUS_FOUND
                                             : resolver::pb::ANSWER_STATUS_NO_ENDPOINT);
  if (row->endpoints_size() > 0) answer.set_matched(matched);
  return answer;
}

void World::Deliver() {
  if (!reading_ || queue_.empty() || stream_ == 0) return;
  reading_ = false;
  busy_ = true;
  StreamEvent event{.stream = stream_, .kind = StreamEvent::Kind::kRead};
  event.response = std::move(queue_.front());
  queue_.pop_front();
  sink_->OnStream(std::move(event));
}

void World::Send(const SubscribeResponse& response) {
  if (!live()) return;
  queue_.push_back(response);
  Deliver();
}

void World::EndStream(const Status& why) {
  if (stream_ == 0) return;
  busy_ = true;
  taken_ = connected_ = false;
  subscribed_.clear();
  queue_.clear();
  sink_->OnStream({.stream = std::exchange(stream_, 0),
                   .kind = StreamEvent::Kind::kEnded,
                   .response = {},
                   .status = why});
}

void World::MarkNow(bool first) {
  SubscribeResponse response;
  ToWire(revision, response.mutable_mark()->mutable_revision());
  if (first) response.mutable_mark()->mutable_source()->set_cluster_id(cluster);
  Send(response);
}

void World::SendMark(Revision at, milliseconds age) {
  SubscribeResponse response;
  ToWire(at, response.mutable_mark()->mutable_revision());
  response.mutable_mark()->set_age_ms(static_cast<uint64_t>(age.count()));
  Send(response);
}

void World::Set(const std::string& address, std::vector<std::string> words, bool push) {
  revision.number++;
  if (words.empty())
    rows_.erase(address);
  else
    rows_[address] = words;
  if (push && subscribed_.contains(address)) Push(address, revision, words);
}

void World::Push(const std::string& address, Revision at, const std::vector<std::string>& words) {
  SubscribeResponse response;
  *response.add_answers() = Make(address, at, &words);
  Send(response);
}

void World::Confirm(const std::string& address, Revision at) {
  SubscribeResponse response;
  response.add_confirmed(address);
  ToWire(at, response.mutable_confirmed_at());
  Send(response);
}

void World::Refuse(const std::string& address, const Status& why) {
  SubscribeResponse response;
  auto* refused = response.add_refused();
  refused->set_address(address);
  ToWire(why, refused->mutable_refusal());
  Send(response);
}

}  // namespace datawire::scenarios
