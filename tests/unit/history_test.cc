#include <gtest/gtest.h>

#include <cstdlib>
#include <functional>
#include <iostream>
#include <random>
#include <set>
#include <sstream>

#include "history_checker.h"

namespace datawire::harness {
namespace {

using Op = HistoryOp;

/// Clients of a directory that is right: each op takes effect at one moment between its beginning
/// and its end, what it says is what was so then. Rounds of concurrent ops, quiet between them.
class World {
 public:
  explicit World(uint64_t seed) : random_(seed) {
    const size_t keys = 1 + Below(4);
    for (size_t i = 0; i < keys; ++i) keys_.push_back("//k/" + std::to_string(i));
  }

  uint64_t Below(uint64_t n) { return random_() % n; }
  std::string AnyKey() { return keys_[Below(keys_.size())]; }
  std::string NewValue() { return "v" + std::to_string(++values_); }
  /// A key of which nothing is outstanding.
  std::string SettledKey() {
    const std::string key = AnyKey();
    return open_keys_.contains(key) ? "//k/fresh" + std::to_string(++values_) : key;
  }
  std::string& Value(const std::string& key) { return now_[key]; }
  Revision at() const { return {1, revision_}; }

  size_t Begin(Op::Kind kind, const std::string& key, const std::string& value = "") {
    history.ops.push_back({kind, Op::kOpen, key, value, ++time_});
    return history.ops.size() - 1;
  }
  void End(size_t op, Op::End end = Op::kOk) {
    Op& ended = history.ops[op];
    ended.end = end;
    if (end != Op::kOpen) ended.ended = ++time_;
    if (end != Op::kOk) ended.at = {};
    if (end == Op::kOpen) open_keys_.insert(ended.key);
    group_.clear();  // what comes now is a later commit
  }
  /// The moment at which it takes effect.
  void Act(size_t op) {
    Op& acting = history.ops[op];
    std::string& now = now_[acting.key];
    if (acting.kind == Op::kRead) {
      acting.value = now;
      acting.at = at();
      return;
    }
    found_[op] = !now.empty();
    if (acting.kind == Op::kWithdraw && now.empty()) return;
    now = acting.value;
    if (group_.empty() || group_.contains(acting.key) || Below(2) == 0) {
      ++revision_;
      group_.clear();
    }
    group_.insert(acting.key);
    acting.at = at();
    history.events.push_back({acting.at, acting.key, acting.value});
  }
  size_t Do(Op::Kind kind, const std::string& key, const std::string& value = "") {
    const size_t op = Begin(kind, key, value);
    Act(op);
    End(op, kind == Op::kWithdraw && !found_[op] ? Op::kNone : Op::kOk);
    return op;
  }
  /// A read that says what it is told to.
  size_t Lie(const std::string& key, const std::string& value) {
    const size_t op = Do(Op::kRead, key);
    history.ops[op].value = value;
    return op;
  }

  void Round() {
    struct Client {
      size_t left = 0, op = 0;
      int phase = 0;
      bool acts = true;
      Op::End end = Op::kOk;
    };
    std::vector<Client> clients(1 + Below(6));
    for (Client& client : clients) client.left = Below(4);
    while (true) {
      std::vector<Client*> able;
      for (Client& client : clients)
        if (client.left > 0) able.push_back(&client);
      if (able.empty()) return;
      Client& client = *able[Below(able.size())];
      if (client.phase == 0) {
        const auto kind = static_cast<Op::Kind>(Below(3));
        client.op = Begin(kind, AnyKey(), kind == Op::kRegister ? NewValue() : "");
        static constexpr Op::End kEnds[] = {Op::kOpen, Op::kRefused, Op::kCut};
        client.end = Below(12) == 0 ? kEnds[Below(3)] : Op::kOk;
        client.acts = client.end != Op::kRefused && (client.end == Op::kOk || Below(2) == 0);
      } else if (client.phase == 1) {
        if (client.acts) Act(client.op);
      } else {
        const bool nothing =
            history.ops[client.op].kind == Op::kWithdraw && client.acts && !found_[client.op];
        End(client.op, client.end == Op::kOk && nothing ? Op::kNone : client.end);
        --client.left;
      }
      client.phase = (client.phase + 1) % 3;
    }
  }

  /// Watched from the beginning, in some ranges.
  History Finish() {
    uint64_t from = 0;
    while (from < revision_) {
      const uint64_t to = from + 1 + Below(revision_ - from);
      history.watched.push_back({{1, from}, {1, to}});
      from = to;
    }
    return history;
  }

  History history;

 private:
  std::mt19937_64 random_;
  std::vector<std::string> keys_;
  std::map<std::string, std::string> now_;
  std::set<std::string> open_keys_, group_;
  std::map<size_t, bool> found_;
  uint64_t time_ = 0, revision_ = 0, values_ = 0;
};

/// Something wrong, whatever came before and comes after. `while_it_runs`: between two rounds, else
/// in the finished history. `says`: what the checker must say, among other things.
struct Wrong {
  const char* name;
  const char* says;
  std::function<void(World&)> while_it_runs = [](World&) {};
  std::function<void(World&, History&)> afterwards = [](World&, History&) {};
};

void Overlap(World& world, Op::Kind kind, std::pair<std::string, std::string> values,
             const std::string& key, const std::vector<std::string>& reads) {
  const size_t first = world.Begin(kind, key, values.first);
  const size_t second = world.Begin(kind, key, values.second);
  world.Act(first);
  world.Act(second);
  for (const std::string& read : reads) world.Lie(key, read);
  world.End(first);
  world.End(second);
}

size_t AnyEvent(World& world, History& history) {
  world.Do(Op::kRegister, "//k/never-alone", world.NewValue());
  world.Do(Op::kRegister, "//k/never-alone", world.NewValue());
  history = world.history;
  const std::vector<HistoryEvent>& events = history.events;
  size_t any = world.Below(events.size());
  const auto told = [&](size_t i) {
    for (const Op& op : history.ops)
      if (op.end == Op::kOk && op.kind == Op::kRegister && op.key == events[i].key &&
          op.at == events[i].at)
        return true;
    return false;
  };
  while (!told(any)) any = (any + 1) % events.size();
  history.watched = {{{1, 0}, world.at()}};
  return any;
}

std::vector<Wrong> AllWrongs() {
  constexpr auto kRegister = Op::kRegister, kWithdraw = Op::kWithdraw, kRead = Op::kRead;
  return {
      {"an acknowledged registration is lost", "not linearizable",
       [](World& w) {
         const std::string key = w.SettledKey();
         w.Do(kRegister, key, w.NewValue());
         w.Lie(key, "");
       }},
      {"a read is stale", "not linearizable",
       [](World& w) {
         const std::string key = w.SettledKey(), old = w.NewValue();
         w.Do(kRegister, key, old);
         w.Do(kRegister, key, w.NewValue());
         w.Lie(key, old);
       }},
      {"a value that nobody wrote", "not linearizable",
       [](World& w) { w.Lie(w.AnyKey(), w.NewValue()); }},
      {"what was withdrawn comes back", "not linearizable",
       [](World& w) {
         const std::string key = w.SettledKey(), value = w.NewValue();
         w.Do(kRegister, key, value);
         w.Do(kWithdraw, key);
         w.Lie(key, value);
       }},
      {"two concurrent writes, seen to and fro", "not linearizable",
       [](World& w) {
         const std::string a = w.NewValue(), b = w.NewValue();
         Overlap(w, kRegister, {a, b}, w.SettledKey(), {a, b, a});
       }},
      {"two withdrawals of one registration", "not linearizable",
       [](World& w) {
         const std::string key = w.SettledKey();
         w.Do(kRegister, key, w.NewValue());
         Overlap(w, kWithdraw, {"", ""}, key, {});
       }},
      {"a withdrawal of nothing is acknowledged", "not linearizable",
       [](World& w) {
         const std::string key = w.SettledKey();
         w.Do(kWithdraw, key);
         w.End(w.Begin(kWithdraw, key));
       }},
      {"a withdrawal does not find what is there", "not linearizable",
       [](World& w) {
         const std::string key = w.SettledKey();
         w.Do(kRegister, key, w.NewValue());
         w.End(w.Begin(kWithdraw, key), Op::kNone);
       }},
      {"what was refused took effect", "not linearizable",
       [](World& w) {
         const std::string key = w.SettledKey(), value = w.NewValue();
         w.End(w.Begin(kRegister, key, value), Op::kRefused);
         w.Lie(key, value);
       }},
      {"what was cut takes effect after the cut", "not linearizable",
       [](World& w) {
         const std::string key = w.SettledKey(), value = w.NewValue();
         w.End(w.Begin(kRegister, key, value), Op::kCut);
         w.Do(kRead, key);
         w.Lie(key, value);
       }},
      {"an open one takes effect twice", "not linearizable",
       [](World& w) {
         const std::string key = w.SettledKey(), value = w.NewValue();
         w.End(w.Begin(kRegister, key, value), Op::kOpen);
         w.Lie(key, value);
         w.Do(kRegister, key, w.NewValue());
         w.Lie(key, value);
       }},
      {"a read sees the old value among many that see the new one", "not linearizable",
       [](World& w) {
         const std::string key = w.SettledKey(), old = w.NewValue();
         w.Do(kRegister, key, old);
         const size_t slow = w.Begin(kRead, key);
         const size_t write = w.Begin(kRegister, key, w.NewValue());
         w.Act(write);
         for (int i = 0; i < 8; ++i) w.Do(kRead, key);
         w.Lie(key, old);
         w.Act(slow);
         w.End(write);
         w.End(slow);
       }},
      {"revisions against time", "revisions:",
       [](World& w) {
         const size_t a = w.Do(kRegister, w.AnyKey(), w.NewValue());
         const size_t b = w.Do(kRegister, w.AnyKey(), w.NewValue());
         std::swap(w.history.ops[a].at, w.history.ops[b].at);
       }},
      {"a read behind what it could know", "revisions:",
       [](World& w) {
         const std::string key = w.AnyKey();
         w.Do(kRegister, key, w.NewValue());
         w.Do(kRegister, key, w.NewValue());
         --w.history.ops[w.Do(kRead, key)].at.number;
       }},
      {"one revision, two changes of a key", "revisions:",
       [](World& w) {
         const std::string a = w.NewValue(), b = w.NewValue();
         Overlap(w, kRegister, {a, b}, w.SettledKey(), {});
         auto& ops = w.history.ops;
         ops.back().at = ops[ops.size() - 2].at;
       }},
      {"a change is not told", "not told", [](World&) {},
       [](World& w, History& h) {
         const auto any = AnyEvent(w, h);
         h.events.erase(h.events.begin() + static_cast<ptrdiff_t>(any));
       }},
      {"a change is told twice", "twice", [](World&) {},
       [](World& w, History& h) {
         const auto any = AnyEvent(w, h);
         h.events.insert(h.events.begin() + static_cast<ptrdiff_t>(any), h.events[any]);
       }},
      {"changes are told out of order", "came after", [](World&) {},
       [](World& w, History& h) {
         AnyEvent(w, h);
         std::swap(h.events.back(), h.events.front());
       }},
      {"a change is told with another value", "told as", [](World&) {},
       [](World& w, History& h) { h.events[AnyEvent(w, h)].value += "x"; }},
      {"a change that nobody made", "nobody did that", [](World&) {},
       [](World& w, History& h) {
         AnyEvent(w, h);
         h.events.push_back({w.at(), "//k/unknown", "v"});
       }},
      {"the watch has a gap", "a gap after", [](World&) {},
       [](World& w, History& h) {
         AnyEvent(w, h);
         const uint64_t middle = w.Below(w.at().number);
         h.watched = {{{1, 0}, {1, middle}}, {{1, middle + 1}, w.at()}};
       }},
  };
}

uint64_t Seed() {
  const char* set = std::getenv("DATAWIRE_SEED");
  return set ? std::strtoull(set, nullptr, 10) : std::random_device()();
}

std::string Text(const History& history) {
  std::ostringstream out;
  WriteHistory(history, out);
  return out.str();
}

TEST(HistoryTest, AThousandGoodHistoriesPass) {
  const uint64_t seed = Seed();
  std::cout << "DATAWIRE_SEED=" << seed << "\n";
  size_t ops = 0;
  for (uint64_t i = 0; i < 1000; ++i) {
    World world(seed + i);
    for (uint64_t rounds = 1 + world.Below(12); rounds > 0; --rounds) world.Round();
    const History history = world.Finish();
    ops += history.ops.size();
    const auto defects = CheckHistory(history);
    ASSERT_EQ(defects, std::vector<std::string>()) << "DATAWIRE_SEED=" << seed + i << "\n"
                                                   << Text(history);
  }
  EXPECT_GT(ops, 20'000u);
}

TEST(HistoryTest, AThousandHistoriesThatAreWrongByConstructionAreRefused) {
  const uint64_t seed = Seed();
  std::cout << "DATAWIRE_SEED=" << seed << "\n";
  const std::vector<Wrong> wrongs = AllWrongs();
  for (uint64_t i = 0; i < 1000; ++i) {
    World world(seed + i);
    const Wrong& wrong = wrongs[i % wrongs.size()];
    const uint64_t rounds = 1 + world.Below(12), when = world.Below(rounds + 1);
    for (uint64_t round = 0; round <= rounds; ++round) {
      if (round == when) wrong.while_it_runs(world);
      if (round < rounds) world.Round();
    }
    History history = world.Finish();
    wrong.afterwards(world, history);
    bool said = false;
    std::string all;
    for (const std::string& defect : CheckHistory(history)) {
      said = said || defect.find(wrong.says) != std::string::npos;
      all += defect + "\n";
    }
    ASSERT_TRUE(said) << wrong.name << ", DATAWIRE_SEED=" << seed + i << "\n"
                      << all << Text(history);
  }
}

TEST(HistoryTest, AHistoryIsReadAsItWasWritten) {
  World world(7);
  for (int i = 0; i < 20; ++i) world.Round();
  const History history = world.Finish();
  std::stringstream file(Text(history));
  auto read = ReadHistory(file);
  ASSERT_TRUE(read.ok()) << read.status().ToString();
  // Open ones come last in a file.
  History sorted = history;
  std::stable_partition(sorted.ops.begin(), sorted.ops.end(),
                        [](const Op& op) { return op.end != Op::kOpen; });
  EXPECT_EQ(Text(*read).size(), Text(sorted).size());
  EXPECT_EQ(CheckHistory(*read), std::vector<std::string>());
  EXPECT_EQ(read->events.size(), history.events.size());
}

TEST(HistoryTest, AFileThatIsNotAHistoryIsRefusedWithItsLine) {
  for (const char* bad :
       {"hello\n", "call 1 2 //k read\nok 2 3 1:1 -\n", "ok 1 2 1:1\n", "call 1 2 //k register\n",
        "call 1 2 //k drop\n", "watched 1:1\n", "call 1 2 //k read\nok 1 3 11 -\n",
        "event 1:1 //k\n", "call 1 2 //k read\ncall 1 2 //k read\n"}) {
    std::stringstream file(bad);
    EXPECT_EQ(ReadHistory(file).status().code(), Code::kInvalid) << bad;
  }
  std::stringstream killed("call 1 2 //k read\nok 1 3 1:1 -\ncall 2 4 //k re");
  const auto history = ReadHistory(killed);
  ASSERT_TRUE(history.ok());
  EXPECT_EQ(history->ops.size(), 1u);
}

}  // namespace
}  // namespace datawire::harness
