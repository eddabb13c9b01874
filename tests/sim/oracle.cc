#include "oracle.h"

#include <algorithm>

#include "core/ids.h"
#include "datawire/limits.h"
#include "view/keys.h"

namespace datawire::sim {
namespace {

using directory::Batch;
using directory::Record;
using directory::View;

uint64_t Number(const std::string& op_id) {
  uint64_t out = 0;
  for (const unsigned char c : op_id) out = out << 8 | c;
  return out;
}

std::string Seconds(Time t) {
  return std::to_string(double(t.count()) / 1e9) + " s";
}

}  // namespace

Oracle::Oracle(Scheduler& scheduler, const MachineClock& clock, std::vector<Address> addresses)
    : scheduler_(scheduler), clock_(clock), addresses_(std::move(addresses)) {}

std::string Oracle::NameOf(const std::string& session) const {
  const Session* found = Find(session);
  return directory::Hex(session) + (found ? " of " + found->program : "");
}

const Oracle::Session* Oracle::Find(const std::string& session) const {
  const auto it = sessions_.find(session);
  return it == sessions_.end() ? nullptr : &it->second;
}

const Oracle::Registration* Oracle::Find(const Key& key) const {
  const auto record = latest_.find(key);
  if (record == latest_.end()) return nullptr;
  const auto& instances = registrations_.at(key.first);
  const auto it = instances.find(record->second);
  return it == instances.end() ? nullptr : &it->second;
}

bool Oracle::Live(const Registration& registration) const {
  return !registration.ended && sessions_.contains(registration.session);
}

// ---- what reached the directory

void Oracle::OnAway(Time from) {
  // Shorter ones delay an expiry by their length; two looks at the health are a tick apart.
  if (Local(scheduler_.now()) - Local(from) >= 3s + 2 * tick_most) back_ = scheduler_.now();
}

void Oracle::OnHeartbeat(const std::string& session, uint64_t attach) {
  const auto it = sessions_.find(session);
  if (it == sessions_.end() || it->second.attach != attach) return;
  std::deque<Time>& seen = it->second.seen;
  seen.push_back(scheduler_.now());
  while (scheduler_.now() - seen.front() > 200s) seen.pop_front();
  if (scheduler_.tracing()) scheduler_.Say("  heartbeat of " + NameOf(session));
}

void Oracle::OnOp(const std::string& session, uint64_t attach, uint64_t op) {
  uint64_t& greatest = brought_by_[{session, op}];
  greatest = std::max(greatest, attach);
}

void Oracle::OnWithdrawAsked(const std::string& program, const Key& key) {
  withdraw_asked_.insert({program, key});
}

// ---- what a client was told

void Oracle::OnRegistered(const Key& key, Revision at) {
  if (!written_[key].contains(at.number))
    scheduler_.Fail("acknowledged at " + at.ToString() + " but not committed then: " + key.second +
                    " at " + key.first);
}

void Oracle::OnWithdrawn(const std::string& session, const Key& key) {
  const Registration* found = Find(key);
  if (found != nullptr && found->session == session && Live(*found))
    scheduler_.Fail("withdrawn, says the directory, but still there: " + key.second + " at " +
                    key.first);
}

// ---- commits

void Oracle::OnStart(const View& view) {
  if (view.Applied().number != applied_)
    return scheduler_.Fail("started at revision " + view.Applied().ToString() + ", " +
                           std::to_string(applied_) + " was acknowledged");
  back_ = scheduler_.now();
  // The node counts what expired in its memory: the budget is one of each life (README.md).
  expiries_.clear();
  CheckAnswers({}, view);
}

void Oracle::OnCommit(const Batch& batch, const std::map<std::string, Time>& decided,
                      const View& view) {
  if (batch.at.number != applied_ + 1)
    return scheduler_.Fail("revision " + batch.at.ToString() + " follows " +
                           std::to_string(applied_));
  applied_ = batch.at.number;
  last_commit_ = scheduler_.now();
  if (keep_log) log_.push_back(batch);
  std::map<std::string, Session> ending;
  // Guards see the state before the batch: a write may share it with its session's end.
  for (const Record& put : batch.puts)
    if (put.key.starts_with("d/")) TakeRegistration(put);
  for (const std::string& key : batch.erased) {
    if (key.starts_with("s/")) {
      const auto it = sessions_.find(key.substr(2));
      ending.insert(*it);
      sessions_.erase(it);
    } else if (key.starts_with("q/")) {
      TakeMark(nullptr, key);
    } else if (key.starts_with("d/")) {
      const auto parsed = directory::keys::ParseRegistration(key);
      Instances& instances = registrations_[parsed->first.text()];
      touched_.insert(parsed->first.text());
      if (Live(instances.at(key)))
        scheduler_.Fail("a live registration was erased: " + instances.at(key).url + " at " +
                        parsed->first.text());
      latest_.erase({parsed->first.text(), instances.at(key).url});
      instances.erase(key);
    }
  }
  for (const Record& put : batch.puts) {
    if (put.key.starts_with("s/")) TakeSession(put);
    if (put.key.starts_with("q/")) TakeMark(&put, put.key);
    if (!put.key.starts_with("t/")) continue;
    const auto session = ending.find(put.key.substr(2));
    if (session == ending.end())
      scheduler_.Fail("a session ended twice");
    else
      TakeEnd(put, session->second, decided.at(put.key));
  }
  if (keep_events) {
    const auto history = view.History({batch.at.epoch, applied_ - 1}, 1);
    if (history.ok() && !history->empty())
      events_.emplace_back(history->front().first.number, history->front().second);
  }
  CheckAnswers(batch, view);
}

void Oracle::TakeSession(const Record& put) {
  record::v1::Session record;
  record.ParseFromString(put.value);
  const auto [it, opened] = sessions_.try_emplace(put.key.substr(2));
  Session& session = it->second;
  if (ended_.contains(it->first)) scheduler_.Fail("an ended session is back: " + NameOf(it->first));
  if (!opened && record.attach_number() <= session.attach)
    scheduler_.Fail("attach number " + std::to_string(record.attach_number()) + " took over from " +
                    std::to_string(session.attach) + " at " + NameOf(it->first));
  session.attach = record.attach_number();
  session.ttl = std::chrono::milliseconds(record.ttl_ms());
  session.program = record.program();
  session.seen.push_back(scheduler_.now());
  if (opened) session.opened = scheduler_.now();
  if (scheduler_.tracing())
    scheduler_.Say(std::string(opened ? "  session " : "  resumed ") + NameOf(it->first) +
                   " attach " + std::to_string(session.attach));
}

void Oracle::TakeMark(const Record* put, const std::string& key) {
  const auto it = sessions_.find(key.substr(2));
  if (it == sessions_.end()) return;
  record::v1::SessionMark mark;
  if (put != nullptr) mark.ParseFromString(put->value);
  it->second.mark.reset();
  if (mark.state() != pb::ENDPOINT_STATE_UP) {
    it->second.mark = mark.state();
    if (scheduler_.tracing())
      scheduler_.Say("  marked " + NameOf(it->first) + " " + pb::EndpointState_Name(mark.state()));
    suspected_ += mark.state() == pb::ENDPOINT_STATE_SUSPECT;
  }
  for (const auto& [address, instances] : registrations_)
    for (const auto& [record, registration] : instances)
      if (registration.session == it->first) touched_.insert(address);
}

void Oracle::TakeEnd(const Record& put, const Session& session, Time decided) {
  const std::string id = put.key.substr(2);
  record::v1::SessionEnded ended;
  ended.ParseFromString(put.value);
  ended_.insert(id);
  if (scheduler_.tracing())
    scheduler_.Say("  ended " + directory::Hex(id) + " of " + session.program + ": " +
                   pb::Reason_Name(ended.reason()));
  for (auto& [address, instances] : registrations_)
    for (auto& [key, registration] : instances) {
      if (registration.session != id) continue;
      touched_.insert(address);
      if (registration.ended) continue;
      if (ended.reason() == pb::REASON_EXPIRED)
        registration.orphan_since = scheduler_.now();
      else
        emptied_by_will_.insert(address);
    }
  if (ended.reason() == pb::REASON_EXPIRED) return CheckExpiry(id, session, decided);
  if (ended.reason() != pb::REASON_CLOSED || !bye_.contains(session.program))
    scheduler_.Fail("ended without having said bye: session of " + session.program);
}

void Oracle::TakeRegistration(const Record& put) {
  const auto parsed = directory::keys::ParseRegistration(put.key);
  const std::string address = parsed->first.text();
  record::v1::Registration record;
  record.ParseFromString(put.value);
  Registration& held = registrations_[address][put.key];
  const Registration before = held;
  touched_.insert(address);
  held.session = record.session_id();
  held.url = record.endpoint().url();
  held.op = Number(record.op_id());
  held.modified = put.modified;
  held.ended = record.has_ended();
  const Key key{address, held.url};
  latest_[key] = put.key;
  written_[key].insert(put.modified);
  uint64_t op = held.op;
  if (held.ended) {
    held.reason = record.ended().reason();
    op = held.ended_by_op = Number(record.ended().op_id());
    if (held.reason == pb::REASON_LAST_EXPIRED) {
      if (Local(scheduler_.now()) - Local(held.orphan_since) < limits::kLastEndpointLife - 1s ||
          held.orphan_since == 0s)
        scheduler_.Fail("the kept last endpoint " + held.url + " at " + address + " was ended " +
                        Seconds(Local(scheduler_.now()) - Local(held.orphan_since)) +
                        " after its session");
      emptied_by_will_.insert(address);
      return;
    }
    const Session* session = Find(held.session);
    if (held.reason != pb::REASON_WITHDRAWN || session == nullptr ||
        !withdraw_asked_.contains({session->program, key}))
      scheduler_.Fail("nobody withdrew " + held.url + " from " + address);
    emptied_by_will_.insert(address);
  } else {
    held.ended_by_op = 0;
    held.orphan_since = 0s;
  }
  const Session* session = Find(held.session);
  if (session == nullptr)
    return scheduler_.Fail("written for a session that is over: " + held.url + " at " + address);
  // P13, and exactly once.
  if (const auto by = brought_by_.find({held.session, op});
      by == brought_by_.end() || by->second < session->attach)
    scheduler_.Fail("a fenced former holder (" +
                    std::to_string(by == brought_by_.end() ? 0 : by->second) +
                    ") changed something: op " + std::to_string(op) + " of " +
                    NameOf(held.session) + ", held by " + std::to_string(session->attach));
  const auto [first, fresh] = done_.try_emplace({held.session, op}, put.modified);
  if (!fresh && first->second != put.modified)
    scheduler_.Fail("done twice: op " + std::to_string(op) + " of " + NameOf(held.session) +
                    " at revisions " + std::to_string(first->second) + " and " +
                    std::to_string(put.modified));
  if (scheduler_.tracing())
    scheduler_.Say("  " + std::string(held.ended ? "withdrawn " : "registered ") + held.url +
                   " at " + address + " by " + NameOf(held.session) + " op " + std::to_string(op));
}

// P9 (no earlier than its TTL), P10.
void Oracle::CheckExpiry(const std::string& id, const Session& session, Time decided) {
  ++expired_total_;
  const Time now = Local(scheduler_.now());
  const auto later = std::upper_bound(session.seen.begin(), session.seen.end(), decided);
  const Time seen = later == session.seen.begin() ? session.opened : *std::prev(later);
  const Time silent = Local(decided) - Local(seen);
  // A heartbeat counts from the tick before it, which is less than 1 s ago: a longer gap is an
  // absence.
  if (silent < session.ttl - 1s)
    scheduler_.Fail("session " + directory::Hex(id) + " of " + session.program + " expired " +
                    Seconds(silent) + " after its last heartbeat, TTL " + Seconds(session.ttl));
  const Time grace = std::max<Time>(session.ttl, limits::kSessionGrace);
  const Time since = now - Local(back_);
  if (session.opened < back_ && since < grace - 2 * tick_most)
    scheduler_.Fail("session " + directory::Hex(id) + " of " + session.program + " expired " +
                    Seconds(since) + " after the directory was away, grace " + Seconds(grace));
  expiries_.push_back(now);
  CheckBudget();
}

// P11.
void Oracle::CheckBudget() {
  while (Local(scheduler_.now()) - expiries_.front() >= limits::kBrakeWindow - 2 * tick_most)
    expiries_.pop_front();
  const size_t population = sessions_.size() + expiries_.size();
  const size_t budget = std::max(limits::kBrakeLeast, population * limits::kBrakePercent / 100 + 1);
  if (expiries_.size() > budget)
    scheduler_.Fail(std::to_string(expiries_.size()) + " sessions of " +
                    std::to_string(population) + " expired in 60 s, the budget is " +
                    std::to_string(budget));
}

// ---- answers

void Oracle::CheckAnswers(const Batch&, const View& view) {
  std::vector<directory::Match> matches;
  const auto at = view.Resolve(addresses_, &matches);
  if (!at.ok()) return scheduler_.Fail("the view does not read: " + at.status().ToString());
  for (size_t i = 0; i < addresses_.size(); ++i) {
    const std::string& text = addresses_[i].text();
    std::vector<Past>& past = past_[text];
    const bool changed = past.empty() || past.back().hash != matches[i].hash;
    if (changed) past.push_back({applied_, matches[i].hash, scheduler_.now()});
    if (changed || touched_.contains(text)) CheckRow(addresses_[i], matches[i], empty_[text]);
  }
  touched_.clear();
  emptied_by_will_.clear();
}

bool Oracle::MayBeEmpty(const std::string& address) const {
  if (emptied_by_will_.contains(address)) return true;
  const auto instances = registrations_.find(address);
  if (instances == registrations_.end()) return true;
  // Withdrawn on purpose while others had expired before and made way for it.
  return std::none_of(instances->second.begin(), instances->second.end(), [](const auto& item) {
    return !item.second.ended && item.second.orphan_since > 0s;
  });
}

// The row lists what lives, in its state; and beside it at most a kept last endpoint (P12).
void Oracle::CheckRow(const Address& address, const directory::Match& match, bool was_empty) {
  const std::string& text = address.text();
  const auto instances = registrations_.find(text);
  std::map<std::string, pb::EndpointState> expected;
  std::set<std::string> orphans;
  bool some_up = false;
  if (instances != registrations_.end()) {
    for (const auto& [key, registration] : instances->second) {
      if (Live(registration)) {
        const auto& mark = sessions_.at(registration.session).mark;
        some_up |= !mark;
        expected[registration.url] = mark.value_or(pb::ENDPOINT_STATE_UP);
      } else if (!registration.ended && registration.orphan_since > 0s) {
        orphans.insert(registration.url);
      }
    }
  }
  pb::Row row;
  const bool own = match.matched && match.matched->text() == text;
  if (own && !row.ParseFromString(match.row->bytes)) return scheduler_.Fail("a row is garbage");
  size_t kept = 0;
  for (const pb::Endpoint& endpoint : row.endpoints()) {
    const auto it = expected.find(endpoint.url());
    if (it == expected.end()) {
      ++kept;
      if (!orphans.contains(endpoint.url()) || some_up ||
          endpoint.state() != pb::ENDPOINT_STATE_SUSPECT)
        scheduler_.Fail("listed at " + text + " and not there: " + endpoint.url());
      continue;
    }
    if (it->second != endpoint.state())
      scheduler_.Fail("listed at " + text + " as " + pb::EndpointState_Name(endpoint.state()) +
                      " and is " + pb::EndpointState_Name(it->second) + ": " + endpoint.url());
    expected.erase(it);
  }
  if (!expected.empty())
    scheduler_.Fail("registered at " + text + " and not listed: " + expected.begin()->first);
  const bool empty = row.endpoints().empty();
  if (empty && !was_empty && !MayBeEmpty(text))
    scheduler_.Fail("the last endpoint of " + text + " went without anybody's will");
  empty_[text] = empty;
}

void Oracle::OnAnswer(const std::string& who, const Address& address, const Answer& answer,
                      Time age_slack) {
  if (answer.status == AnswerStatus::kUnavailable) return;
  const std::string& text = address.text();
  Revision& shown = shown_[{who, text}];
  if (answer.revision < shown)
    scheduler_.Fail(who + ": the revision of " + text + " stepped back from " + shown.ToString() +
                    " to " + answer.revision.ToString());
  shown = answer.revision;
  if (answer.revision.number > applied_)
    scheduler_.Fail(who + ": " + text + " at revision " + answer.revision.ToString() +
                    ", there is " + std::to_string(applied_) + " only");
  // The content was right at its revision or at a later one, never only before.
  const std::vector<Past>& past = past_.at(text);
  size_t i = past.size();
  while (i > 0 && past[i - 1].hash != answer.hash) --i;
  const bool last = i == past.size();
  if (i == 0 || (!last && past[i].from <= answer.revision.number)) {
    scheduler_.Fail(who + ": " + text + " at revision " + answer.revision.ToString() +
                    " shows what was right " +
                    (i == 0 ? "never" : "before " + std::to_string(past[i].from) + " only") + ": " +
                    std::string(AnswerStatusName(answer.status)));
    return;
  }
  const Time allowed = Time(limits::kStaleAge) * 5 / 4 + age_slack;
  if (!last && !answer.stale && scheduler_.now() - past[i].since > allowed)
    scheduler_.Fail(who + ": " + text + " is not marked stale and was overtaken " +
                    Seconds(scheduler_.now() - past[i].since) + " ago");
}

}  // namespace datawire::sim
