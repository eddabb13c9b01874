// Runs the scenarios of the files (or folder) it is given: README.md is the language.

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <sstream>

#include "chooser.h"
#include "world.h"

namespace datawire::scenarios {
namespace {

using Words = std::vector<std::string>;

struct Wrong {
  std::string what;
};

[[noreturn]] void Expected(const std::string& expected, const std::string& got) {
  throw Wrong{"expected " + expected + ", got " + got};
}

double Number(const std::string& text, size_t* used = nullptr) {
  try {
    return std::stod(text, used);
  } catch (const std::exception&) {
    throw Wrong{"'" + text + "' is no number"};
  }
}

sim::Time Span(const std::string& text) {
  static const std::map<std::string, double> kUnits = {
      {"ms", 1e6}, {"s", 1e9}, {"m", 60e9}, {"h", 3600e9}, {"us", 1e3}};
  size_t used = 0;
  const double number = Number(text, &used);
  const auto unit = kUnits.find(text.substr(used));
  if (unit == kUnits.end()) throw Wrong{"'" + text + "' is no time: ms, s, m or h"};
  return sim::Time(std::llround(number * unit->second));
}

Revision RevisionOf(const std::string& text) {
  const size_t dot = text.find('.');
  if (dot == std::string::npos) return {1, static_cast<uint64_t>(Number(text))};
  return {static_cast<uint64_t>(Number(text.substr(0, dot))),
          static_cast<uint64_t>(Number(text.substr(dot + 1)))};
}

Address A(const std::string& text) {
  auto address = Address::Parse(text);
  if (!address.ok()) throw Wrong{address.status().message()};
  return std::move(address).value();
}

std::string Told(const Answer& answer) {
  std::ostringstream out;
  out << AnswerStatusName(answer.status);
  for (const Endpoint& e : answer.endpoints)
    out << ' ' << (e.state == EndpointState::kSuspect ? "~" : "") << e.url.text();
  out << ' ' << (answer.stale ? "stale" : "current") << " age=" << answer.age.count()
      << "ms rev=" << answer.revision.epoch << '.' << answer.revision.number
      << " from=" << answer.source;
  if (answer.matched) out << " matched=" << answer.matched->text();
  return out.str();
}

void Check(const Answer& answer, const Words& words) {
  std::string urls, given;
  for (const Endpoint& e : answer.endpoints)
    given += (e.state == EndpointState::kSuspect ? " ~" : " ") + e.url.text();
  bool status_said = false;
  for (const std::string& word : words) {
    bool right = true;
    if (word.starts_with("amqp:") || word.starts_with("~")) {
      urls += " " + word;
    } else if (word == "stale" || word == "current") {
      right = answer.stale == (word == "stale");
    } else if (word.starts_with("age=")) {  // shown up to 500 ms too low
      const auto age = Span(word.substr(4));
      right = answer.age <= age && answer.age > age - resolver::kAgeShown - milliseconds(1);
    } else if (word.starts_with("rev=")) {
      right = answer.revision == RevisionOf(word.substr(4));
    } else if (word.starts_with("from=")) {
      right = answer.source == word.substr(5);
    } else if (word.starts_with("matched=")) {
      right = answer.matched && answer.matched->text() == word.substr(8);
    } else if (word == "UNAVAILABLE" || word == "NOT_FOUND" || word == "NO_ENDPOINT" ||
               word == "FOUND") {
      status_said = true;
      right = AnswerStatusName(answer.status) == word;
    } else {
      throw Wrong{"'" + word + "' says nothing of an answer"};
    }
    if (!right) Expected(word, Told(answer));
  }
  if (!urls.empty() && urls != given) Expected("endpoints" + urls, Told(answer));
  if (!status_said && urls.find(" amqp") != std::string::npos &&
      answer.status != AnswerStatus::kFound)
    Expected("FOUND", Told(answer));
}

/// One scenario as it runs.
class Play {
 public:
  void Line(Words words) {
    if (words[0] == "policy") return SetPolicy(words);
    if (words[0] == "selection" || words[0] == "locality") return SetSelection(words);
    if (words[0] == "servers") {
      servers_ = {words.begin() + 1, words.end()};
      return;
    }
    if (words[0] != "at" || words.size() < 3) throw Wrong{"a line is: at TIME STEP ..."};
    if (!world_) world_ = std::make_unique<World>(policy_, servers_);
    const sim::Time at = Span(words[1]);
    if (at < world_->now()) throw Wrong{words[1] + " is before the line above"};
    world_->Advance(at);
    Step(words[2], {words.begin() + 3, words.end()});
    world_->Settle();
  }

 private:
  struct Call {
    bool done = false;
    resolver::AnswerPtr answer;
  };
  struct Ear {
    Chooser chooser;
    std::shared_ptr<resolver::Listener> listener;
    std::vector<resolver::AnswerPtr> told;
  };

  void SetPolicy(const Words& words) {
    static const std::map<std::string, milliseconds ResolverPolicy::*> kTimes = {
        {"positive_ttl", &ResolverPolicy::positive_ttl},
        {"negative_ttl", &ResolverPolicy::negative_ttl},
        {"max_stale", &ResolverPolicy::max_stale},
        {"deadline", &ResolverPolicy::deadline},
        {"reconnect_least", &ResolverPolicy::reconnect_least},
        {"reconnect_most", &ResolverPolicy::reconnect_most},
        {"stale_answer_after", &ResolverPolicy::stale_answer_after}};
    static const std::map<std::string, double ResolverPolicy::*> kNumbers = {
        {"ttl_spread", &ResolverPolicy::ttl_spread},
        {"prefetch_from", &ResolverPolicy::prefetch_from},
        {"prefetch_to", &ResolverPolicy::prefetch_to},
        {"failure_memo_spread", &ResolverPolicy::failure_memo_spread}};
    if (world_ || words.size() != 3) throw Wrong{"policy NAME VALUE, before the first step"};
    if (const auto at = kTimes.find(words[1]); at != kTimes.end())
      policy_.*at->second = std::chrono::duration_cast<milliseconds>(Span(words[2]));
    else if (const auto number = kNumbers.find(words[1]); number != kNumbers.end())
      policy_.*number->second = Number(words[2]);
    else if (words[1] == "cache_entries")
      policy_.cache_entries = static_cast<size_t>(Number(words[2]));
    else
      throw Wrong{"no policy '" + words[1] + "'"};
  }

  void SetSelection(const Words& words) {
    if (world_ || words.size() != 3) throw Wrong{words[0] + " A B, before the first step"};
    if (words[0] == "locality") {
      own_ = {words[1], words[2]};
      return;
    }
    const bool time = words[2].find_first_not_of("0123456789.") != std::string::npos;
    const double value =
        time ? Span(words[2]) / std::chrono::duration<double, std::milli>(1) : Number(words[2]);
    if (!SetKnob(selection_, words[1], value)) throw Wrong{"no knob '" + words[1] + "'"};
  }

  void Step(const std::string& verb, Words words) {
    World& w = *world_;
    const auto need = [&](size_t count) {
      if (words.size() < count) throw Wrong{verb + " wants more words"};
    };
    const auto rest = [&](size_t from) { return Words(words.begin() + from, words.end()); };
    if (verb == "server") {
      need(1);
      static const std::map<std::string, World::Mode> kModes = {{"up", World::Mode::kUp},
                                                                {"down", World::Mode::kDown},
                                                                {"mute", World::Mode::kMute},
                                                                {"hang", World::Mode::kHang}};
      if (!kModes.contains(words.back())) throw Wrong{"no such mode '" + words.back() + "'"};
      w.SetMode(words.size() > 1 ? words[0] : "", kModes.at(words.back()));
    } else if (verb == "ends") {
      w.EndStream({Code::kUnavailable, "told to end"});
    } else if (verb == "refuses-streams") {
      need(1);
      w.refusal = words[0] == "no" ? Status() : Refusal(words);
    } else if (verb == "cluster") {
      need(1);
      w.cluster = words[0];
    } else if (verb == "revision") {
      need(1);
      w.revision = RevisionOf(words[0]);
    } else if (verb == "marks" || verb == "answers" || verb == "confirms" || verb == "takes") {
      need(1);
      const bool on = words[0] == "on";
      if (!on && words[0] != "off") throw Wrong{verb + " on or off"};
      if (verb == "takes") return w.Hold(!on);
      (verb == "marks" ? w.marks : verb == "answers" ? w.answers : w.confirms) = on;
    } else if (verb == "unary") {
      need(1);
      static const std::map<std::string, World::Unary> kKinds = {{"ok", World::Unary::kOk},
                                                                 {"behind", World::Unary::kBehind},
                                                                 {"fail", World::Unary::kFail},
                                                                 {"silent", World::Unary::kSilent}};
      if (!kKinds.contains(words[0])) throw Wrong{"no such kind '" + words[0] + "'"};
      w.unary = kKinds.at(words[0]);
    } else if (verb == "set" || verb == "quietly") {
      const size_t times = Times(words);
      need(1);
      for (size_t i = 0; i < times; i++) w.Set(Nth(words[0], i), rest(1), verb == "set");
    } else if (verb == "push") {
      need(2);
      w.Push(words[0], RevisionOf(words[1]), rest(2));
    } else if (verb == "confirm") {
      need(2);
      w.Confirm(words[0], RevisionOf(words[1]));
    } else if (verb == "refuse") {
      need(2);
      w.Refuse(words[0], Refusal(rest(1)));
    } else if (verb == "mark") {
      need(1);
      const auto age = words.size() > 1 ? Span(words[1]) : sim::Time(0);
      w.SendMark(RevisionOf(words[0]), std::chrono::duration_cast<milliseconds>(age));
    } else if (verb == "sleep") {
      need(1);
      w.Sleep(Span(words[0]));
    } else if (verb == "wall") {
      need(1);
      w.StepWall(Span(words[0]) / milliseconds(1));
    } else if (verb == "resolve") {
      Resolve(std::move(words));
    } else if (verb == "answered") {
      Answered(std::move(words));
    } else if (verb == "waiting") {
      need(1);
      size_t waiting = 0;
      for (const auto& [address, calls] : calls_)
        for (const auto& call : calls) waiting += !call->done;
      Count("calls that wait", words, waiting);
    } else if (verb == "subscribe") {
      need(1);
      auto ear = std::make_shared<Ear>(Chooser(selection_, own_));
      ears_[words[0]] = ear;
      ear->listener = w.With([&] {
        return w.core().Listen(A(words[0]), [raw = ear.get()](const resolver::AnswerPtr& answer) {
          raw->told.push_back(answer);
          raw->chooser.Told(answer, BootClock::now());
        });
      });
    } else if (verb == "unsubscribe") {
      need(1);
      w.core().Unlisten(EarOf(words[0]).listener);
    } else if (verb == "told") {
      need(2);
      const Ear& ear = EarOf(words[0]);
      Count("answers told", {words[1]}, ear.told.size());
      if (!ear.told.empty()) Check(*ear.told.back(), rest(2));
    } else if (verb == "failed" || verb == "worked") {
      const size_t times = Times(words);
      need(verb == "failed" ? 3 : 2);
      Chooser& chooser = EarOf(words[0]).chooser;
      for (size_t i = 0; i < times; i++) {
        if (verb == "worked")
          chooser.Worked(words[1], Now());
        else if (!chooser.Failed(words[1], words[2], Now()))
          throw Wrong{"refused, lost or task?"};
      }
    } else if (verb == "ejected") {
      need(2);
      Same("ejected", rest(1), EarOf(words[0]).chooser.Ejected(Now()));
    } else if (verb == "picks") {
      need(2);
      Picks(EarOf(words[0]).chooser.Picks(Now()), rest(1));
    } else if (verb == "asked") {
      need(2);
      Count("times asked for " + words[0], rest(1), w.adds[words[0]].size());
    } else if (verb == "dropped") {
      need(2);
      Count("times dropped " + words[0], rest(1), w.drops[words[0]]);
    } else if (verb == "held") {
      need(2);
      const auto& adds = w.adds[words[0]];
      const Revision held = adds.empty() ? Revision{} : FromPb(adds.back());
      if (held != RevisionOf(words[1])) Expected("held at " + words[1], held.ToString());
    } else if (verb == "opens") {
      Count("streams begun", words, w.opens);
    } else if (verb == "calls") {
      Count("unary calls", words, w.unary_calls);
    } else if (verb == "state") {
      need(2);
      const std::string state = StateOf(words[0]);
      if (state != words[1]) Expected(words[1], state);
    } else if (verb == "stat") {
      need(2);
      Count(words[0], rest(1), Stat(words[0]));
    } else {
      throw Wrong{"no such step '" + verb + "'"};
    }
  }

  void Resolve(Words words) {
    World& w = *world_;
    const size_t times = Times(words);
    if (words.size() < 2) throw Wrong{"resolve ADDRESS [min=R] [within=T] hit|waits|fails ..."};
    const std::string address = words[0];
    ResolveOptions options;
    size_t at = 1;
    for (; at < words.size(); at++) {
      if (words[at].starts_with("min="))
        options.min_revision = RevisionOf(words[at].substr(4));
      else if (words[at].starts_with("within="))
        options.deadline = std::chrono::duration_cast<milliseconds>(Span(words[at].substr(7)));
      else
        break;
    }
    if (at == words.size()) throw Wrong{"hit, waits or fails?"};
    const std::string how = words[at];
    Words check(words.begin() + static_cast<long>(at) + 1, words.end());
    const bool asks = std::erase(check, "asks") > 0;
    const uint64_t before = w.asked;
    for (size_t i = 0; i < times; i++) {
      const std::string name = Nth(address, i);
      auto call = std::make_shared<Call>();
      w.With([&] {
        w.core().Resolve(A(name), options, [call](const resolver::AnswerPtr& answer) {
          call->done = true;
          call->answer = answer;
        });
      });
      if (how == "waits") {
        if (call->done) Expected("a call that waits", Told(*call->answer));
        calls_[name].push_back(call);
        continue;
      }
      if (!call->done) Expected("an answer at once (" + how + ")", "a call that waits");
      const bool failed = call->answer->status == AnswerStatus::kUnavailable;
      if (how != "hit" && how != "fails") throw Wrong{"hit, waits or fails, not '" + how + "'"};
      if (failed != (how == "fails")) Expected(how, Told(*call->answer));
      Check(*call->answer, check);
    }
    if (how == "waits") return;
    w.Settle();
    if ((w.asked > before) != asks)
      Expected(asks ? "that the directory is asked" : "no call to the directory",
               std::to_string(w.asked - before) + " asked");
  }

  void Answered(Words words) {
    const size_t times = Times(words);
    if (words.empty()) throw Wrong{"answered ADDRESS ..."};
    for (size_t i = 0; i < times; i++) {
      auto& calls = calls_[Nth(words[0], i)];
      const auto call =
          std::find_if(calls.rbegin(), calls.rend(), [](const auto& c) { return c->done; });
      if (call == calls.rend())
        Expected("an answered call",
                 std::to_string(calls.size()) + " that wait (answered " + std::to_string(i) + ")");
      Check(*(*call)->answer, {words.begin() + 1, words.end()});
      calls.erase(std::next(call).base());
    }
  }

  static Status Refusal(const Words& words) {
    static const std::map<std::string, Code> kCodes = {{"OVERLOADED", Code::kOverloaded},
                                                       {"UNAVAILABLE", Code::kUnavailable},
                                                       {"BEHIND", Code::kBehind},
                                                       {"DENIED", Code::kDenied}};
    if (words.empty() || !kCodes.contains(words[0])) throw Wrong{"no such code"};
    Status status(kCodes.at(words[0]), "told so");
    if (words.size() > 1)
      status.set_retry_after(std::chrono::duration_cast<milliseconds>(Span(words[1])));
    return status;
  }

  static Revision FromPb(const SubscribeRequest::Held& held) {
    return {held.revision().epoch(), held.revision().number()};
  }

  Ear& EarOf(const std::string& address) {
    if (!ears_.contains(address)) throw Wrong{"nobody subscribed to " + address};
    return *ears_[address];
  }

  std::string StateOf(const std::string& address) {
    std::ostringstream out;
    world_->With([&] { world_->core().WriteState(out); });
    const std::string text = out.str(), key = "\"address\": \"" + address + "\", \"state\": \"";
    const size_t at = text.find(key);
    if (at == std::string::npos) return "ABSENT";
    return text.substr(at + key.size(), text.find('"', at + key.size()) - at - key.size());
  }

  uint64_t Stat(const std::string& name) {
    static const std::map<std::string, uint64_t ResolverStats::*> kStats = {
        {"hits", &ResolverStats::hits},
        {"misses", &ResolverStats::misses},
        {"coalesced", &ResolverStats::coalesced},
        {"stale_served", &ResolverStats::stale_served},
        {"negatives", &ResolverStats::negatives},
        {"unavailable", &ResolverStats::unavailable},
        {"refused", &ResolverStats::refused},
        {"foreign", &ResolverStats::foreign},
        {"corrupt", &ResolverStats::corrupt},
        {"retries", &ResolverStats::retries},
        {"prefetches", &ResolverStats::prefetches},
        {"entries", &ResolverStats::entries},
        {"failovers", &ResolverStats::failovers},
        {"streams_lost", &ResolverStats::streams_lost}};
    if (!kStats.contains(name)) throw Wrong{"no counter '" + name + "'"};
    return world_->core().Stats().*kStats.at(name);
  }

  BootTime Now() {
    return world_->With([] { return BootClock::now(); });
  }

  static void Same(const std::string& what, Words expected, Words got) {
    if (expected == Words{"none"}) expected.clear();
    std::sort(expected.begin(), expected.end());
    std::sort(got.begin(), got.end());
    const auto list = [](const Words& words) {
      std::string text;
      for (const std::string& word : words) text += " " + word;
      return text.empty() ? " none" : text;
    };
    if (expected != got) Expected(what + list(expected), list(got).substr(1));
  }

  // `URL` or `URL=PERCENT`, give or take 2.
  static void Picks(const std::vector<Chooser::Part>& parts, const Words& words) {
    Words expected, got;
    std::map<std::string, double> percents;
    for (const Chooser::Part& part : parts) {
      got.push_back(part.url);
      percents[part.url] = part.percent;
    }
    for (const std::string& word : words) expected.push_back(word.substr(0, word.find('=')));
    Same("picks", expected, got);
    for (const std::string& word : words) {
      if (word.find('=') == std::string::npos) continue;
      const double is = percents[word.substr(0, word.find('='))];
      if (std::abs(is - Number(word.substr(word.find('=') + 1))) > 2)
        Expected(word + " %", std::to_string(is));
    }
  }

  // `N`, `<=N` or `>=N`.
  static void Count(const std::string& what, const Words& words, uint64_t got) {
    if (words.size() != 1) throw Wrong{"how many?"};
    const bool most = words[0].starts_with("<="), least = words[0].starts_with(">=");
    const auto count = static_cast<uint64_t>(Number(words[0].substr(most || least ? 2 : 0)));
    if (most ? got > count : least ? got < count : got != count)
      Expected(words[0] + " " + what, std::to_string(got));
  }

  static size_t Times(Words& words) {
    size_t times = 1;
    std::erase_if(words, [&](const std::string& word) {
      if (word.size() < 2 || word[0] != 'x' || word[1] < '0' || word[1] > '9') return false;
      times = static_cast<size_t>(Number(word.substr(1)));
      return true;
    });
    return times;
  }
  static std::string Nth(std::string address, size_t i) {
    const size_t at = address.find('#');
    return at == std::string::npos ? address : address.replace(at, 1, std::to_string(i));
  }

  ResolverPolicy policy_;
  SelectionPolicy selection_;
  Locality own_;
  Words servers_{"s1"};
  std::unique_ptr<World> world_;
  std::map<std::string, std::deque<std::shared_ptr<Call>>> calls_;
  std::map<std::string, std::shared_ptr<Ear>> ears_;
};

/// Returns how many scenarios ran; what is wrong goes to stderr.
size_t RunFile(const std::string& path, size_t* failed) {
  std::ifstream in(path);
  std::string line;
  std::unique_ptr<Play> play;
  size_t number = 0, count = 0;
  bool broken = false;
  while (std::getline(in, line)) {
    number++;
    std::istringstream text(line.substr(0, line.find(" #")));
    Words words;
    for (std::string word; text >> word;) words.push_back(word);
    if (words.empty() || line[0] == '#') continue;
    if (words[0] == "scenario") {
      play = std::make_unique<Play>();
      count++;
      broken = false;
      continue;
    }
    if (broken) continue;
    try {
      if (!play) throw Wrong{"no scenario yet"};
      play->Line(std::move(words));
    } catch (const Wrong& wrong) {
      std::fprintf(stderr, "%s:%zu: %s\n  %s\n", path.c_str(), number, wrong.what.c_str(),
                   line.c_str());
      broken = true;
      (*failed)++;
    }
  }
  return count;
}

}  // namespace
}  // namespace datawire::scenarios

int main(int argc, char** argv) {
  std::vector<std::string> files;
  for (int i = 1; i < argc; i++) {
    if (!std::filesystem::is_directory(argv[i])) {
      files.emplace_back(argv[i]);
      continue;
    }
    for (const auto& entry : std::filesystem::directory_iterator(argv[i]))
      if (entry.path().extension() == ".scenario") files.push_back(entry.path().string());
  }
  size_t count = 0, failed = 0;
  for (const std::string& file : files) count += datawire::scenarios::RunFile(file, &failed);
  std::printf("%zu scenarios, %zu failed\n", count, failed);
  return failed > 0 || count == 0 ? 1 : 0;
}
