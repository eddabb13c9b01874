#include <cstdlib>
#include <iostream>
#include <map>
#include <random>

#include "view_fixture.h"

namespace datawire::directory::testing_view {
namespace {

/// What the view should say, computed each time from all registrations.
struct Model {
  struct Claim {
    Reg reg;
    bool ended = false, kept = false, dead = false;  // of an ended session
  };
  struct Session {
    pb::EndpointState mark = pb::ENDPOINT_STATE_UP;
  };
  std::map<std::string, Session> sessions;  // live
  std::map<std::string, std::map<std::string, Claim>> addresses;
  std::map<std::string, int> policies;

  bool Live(const Claim& c) const {
    return !c.ended && !c.kept && !c.dead &&
           (c.reg.session.empty() || sessions.contains(c.reg.session));
  }
  bool Listed(const Claim& c) const { return Live(c) || (c.kept && !c.ended); }
  int State(const Claim& c) const {
    if (c.kept) return 2;
    const int own = c.reg.draining ? 1 : 0;
    if (c.reg.session.empty()) return own;
    const int mark = sessions.at(c.reg.session).mark;
    return mark == 2 ? 2 : std::max(mark, own);
  }
  size_t Count(const std::map<std::string, Claim>& claims, bool below, bool up) const {
    size_t n = 0;
    for (const auto& [i, c] : claims)
      n += Live(c) && (!below || c.reg.subtree) && (!up || State(c) == 0);
    return n;
  }
  void End(const std::vector<std::string>& ids, pb::Reason reason) {
    for (const auto& id : ids) sessions.erase(id);
    for (auto& [a, claims] : addresses)
      for (auto& [i, c] : claims) {
        const bool of_these = std::count(ids.begin(), ids.end(), c.reg.session) > 0;
        if (c.ended || c.kept || c.dead || !of_these) continue;
        const bool last =
            Count(claims, false, false) == 0 || (c.reg.subtree && Count(claims, true, false) == 0);
        (reason == pb::REASON_EXPIRED && last ? c.kept : c.dead) = true;
      }
  }
  void Supersede() {
    for (auto& [a, claims] : addresses)
      for (auto& [i, c] : claims)
        if (c.kept && Count(claims, c.reg.subtree, true) > 0) c.kept = false, c.dead = true;
  }
  std::optional<std::string> RowAt(const std::string& address, bool below) const {
    const auto found = addresses.find(address);
    if (found == addresses.end()) return {};
    std::vector<std::tuple<int, uint32_t, std::string, std::string>> order;
    for (const auto& [i, c] : found->second)
      if (Listed(c) && (!below || c.reg.subtree))
        order.emplace_back(State(c), c.reg.priority, i, c.reg.url);
    if (order.empty()) return {};
    std::sort(order.begin(), order.end());
    std::string out = std::get<0>(order[0]) == 0 ? "FOUND " : "NO_ENDPOINT ";
    out += address + " total=" + std::to_string(order.size()) + ":";
    std::set<std::string> urls;
    for (const auto& [state, priority, instance, url] : order)
      if (urls.insert(url).second)
        out += " " + url + "/" + std::string(EndpointStateName(static_cast<EndpointState>(state)));
    return out;
  }
  int PolicyAt(const std::string& address) const {
    const auto found = policies.find(address);
    return found == policies.end() ? 0 : found->second;
  }
  // And the policy: that of the address asked for, else of the one that matches.
  std::string Resolve(const std::string& text) const {
    const auto with = [](const std::string& answer, int policy) {
      return answer + " policy " + std::to_string(policy);
    };
    const Address address = A(text);
    const bool own = policies.contains(text);
    if (auto row = RowAt(text, false)) return with(*row, PolicyAt(text));
    for (size_t depth = address.depth(); depth-- > 0;) {
      const std::string above = address.Ancestor(depth).text();
      if (auto row = RowAt(above, true)) return with(*row, PolicyAt(own ? text : above));
    }
    return own ? with("NO_ENDPOINT " + text + " total=0:", PolicyAt(text)) : with("NOT_FOUND", 0);
  }
  std::string All() const {
    std::string out;
    for (const auto& [a, claims] : addresses)
      for (const auto& [i, c] : claims)
        if (Listed(c)) out += a + " " + i + " " + std::to_string(State(c)) + "\n";
    return out;
  }
};

class Random {
 public:
  explicit Random(uint64_t seed) : random_(seed) {}
  uint64_t operator()(uint64_t below) { return random_() % below; }

 private:
  std::mt19937_64 random_;
};

class ViewModelTest : public ViewTest {
 protected:
  // Of the values written lately a few are known, most are read from the store.
  ViewOptions Options() override {
    ViewOptions options;
    options.recent_bytes = 4 << 10;
    return options;
  }

 protected:
  static constexpr const char* kAddresses[] = {
      "//d", "//d/a", "//d/a/b", "//d/a/b/c", "//d/ab", "//d/a/x", "//e", "//e/a/b", "//e/a/b/c/d"};
  std::string AnyAddress() { return kAddresses[random_(std::size(kAddresses))]; }
  std::string AnySession() {
    if (model_.sessions.empty()) return "";
    auto it = model_.sessions.begin();
    std::advance(it, random_(model_.sessions.size()));
    return it->first;
  }

  void Register() {
    Reg reg{.session = random_(4) == 0 ? "" : AnySession(),
            .url = "amqp://h:" + std::to_string(1 + random_(4)),
            .subtree = random_(2) == 0,
            .priority = static_cast<uint32_t>(random_(2)),
            .draining = random_(8) == 0};
    const std::string address = AnyAddress(), instance = std::to_string(random_(6));
    driver_->Register(address, instance, reg);
    model_.addresses[address][instance] = {reg};
  }
  void Withdraw(bool sweep_last) {
    const std::string address = AnyAddress();
    auto& claims = model_.addresses[address];
    for (auto& [instance, c] : claims) {
      if (c.ended || (sweep_last && !c.kept)) continue;
      Reg reg = c.reg;
      reg.ended = sweep_last ? pb::REASON_LAST_EXPIRED : pb::REASON_WITHDRAWN;
      driver_->Register(address, instance, reg);
      c.ended = true;
      c.kept = c.dead = false;
      return;
    }
  }
  void SetPolicy() {
    const std::string address = AnyAddress();
    record::AddressPolicy policy;
    if (random_(3) == 0) {
      policy.mutable_ended();
      model_.policies.erase(address);
    } else {
      policy.set_policy(static_cast<pb::Policy>(random_(3)));
      model_.policies[address] = policy.policy();
    }
    driver_->Put(keys::Policy(A(address)), policy.SerializeAsString());
  }
  void EndSome() {
    std::vector<std::string> ids;
    const pb::Reason reason = random_(3) == 0 ? pb::REASON_CLOSED : pb::REASON_EXPIRED;
    for (size_t n = 1 + random_(3); n > 0 && !model_.sessions.empty(); --n) {
      const std::string id = AnySession();
      if (std::count(ids.begin(), ids.end(), id) > 0) continue;
      ids.push_back(id);
      driver_->End(id, reason);
    }
    model_.End(ids, reason);
  }
  void Sweep() {
    for (const Due& due : view_->DueTombstones(view_->Applied().number, 20)) {
      const auto stored = view_->Get(due.key).value();
      ASSERT_TRUE(stored) << "due, but gone";
      ASSERT_EQ(stored->modified, due.modified);
      driver_->Erase(due.key);
      if (due.key[0] != 'd') continue;
      const auto parsed = keys::ParseRegistration(due.key).value();
      auto& claims = model_.addresses[parsed.first.text()];
      ASSERT_FALSE(model_.Listed(claims.at(parsed.second))) << "swept while listed";
      claims.erase(parsed.second);
    }
  }
  void Step() {
    switch (random_(10)) {
      case 0:
        driver_->Open("s" + std::to_string(++opened_));
        model_.sessions["s" + std::to_string(opened_)] = {};
        break;
      case 1:
        if (const std::string id = AnySession(); !id.empty()) {
          const auto state = static_cast<pb::EndpointState>(random_(3));
          if (state == 0)
            driver_->Erase(keys::SessionMark(id));
          else
            driver_->Mark(id, state);
          model_.sessions[id].mark = state;
        }
        break;
      case 2:
        if (random_(2) == 0) EndSome();
        break;
      case 3:
        Withdraw(random_(2) == 0);
        break;
      case 4:
        Sweep();
        break;
      case 5:
        SetPolicy();
        break;
      default:
        Register();
    }
    driver_->Commit();
    model_.Supersede();
  }
  // The events, added up, are the listed registrations.
  void Follow() {
    record::History history;
    ASSERT_TRUE(history.ParseFromString(published_.back()->events));
    published_.clear();
    for (const pb::Event& e : history.events()) {
      if (e.kind() == pb::Event::KIND_POLICY) {
        if (e.has_policy())
          followed_policies_[e.address()] = e.policy();
        else
          followed_policies_.erase(e.address());
        continue;
      }
      std::string instance;
      for (size_t i = 0; i < e.instance().size(); i += 2)
        instance += static_cast<char>(std::stoi(e.instance().substr(i, 2), nullptr, 16));
      const std::string key = e.address() + " " + instance;
      if (e.kind() == pb::Event::KIND_GONE)
        followed_.erase(key);
      else
        followed_[key] = e.endpoint().state();
    }
  }
  std::string Followed() const {
    std::string out;
    for (const auto& [key, state] : followed_) out += key + " " + std::to_string(state) + "\n";
    return out;
  }

  static uint64_t Seed() {
    const char* set = std::getenv("DATAWIRE_SEED");
    return set ? std::strtoull(set, nullptr, 10) : std::random_device()();
  }
  const uint64_t seed_ = Seed();
  Random random_{seed_};
  Model model_;
  int opened_ = 0;
  std::map<std::string, int> followed_, followed_policies_;
};

TEST_F(ViewModelTest, RowsAndEventsAreThoseOfAModelThatComputesThemAnew) {
  std::cout << "DATAWIRE_SEED=" << seed_ << "\n";
  for (int step = 0; step < 20000; ++step) {
    Step();
    Follow();
    ASSERT_EQ(Followed(), model_.All()) << "step " << step << ", seed " << seed_;
    ASSERT_EQ(followed_policies_, model_.policies) << "step " << step << ", seed " << seed_;
    for (int i = 0; i < 2; ++i) {
      const std::string asked = AnyAddress() + (random_(3) == 0 ? "/z" : "");
      const std::string policy = " policy " + std::to_string(RowOf(*view_, asked).policy());
      ASSERT_EQ(Answer(*view_, asked) + policy, model_.Resolve(asked))
          << asked << ", step " << step << ", seed " << seed_;
    }
    if (step == 10000) Reopen();
    if (HasFatalFailure()) return;
  }
  EXPECT_EQ(view_->counts().sessions, model_.sessions.size());
  EXPECT_EQ(view_->counts().registrations, followed_.size());
}

}  // namespace
}  // namespace datawire::directory::testing_view
