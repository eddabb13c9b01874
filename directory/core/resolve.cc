#include "core/resolve.h"

#include "core/answers.h"
#include "datawire/wire.h"

namespace datawire::directory {
namespace {

constexpr size_t kWaitingMost = 10'000;  // calls held for a revision; each holds its addresses
constexpr std::chrono::seconds kBarrierWait{3};

Result<std::vector<Address>> ParseAll(const pb::ResolveRequest& request) {
  const auto count = static_cast<size_t>(request.addresses_size());
  if (count == 0) return Status(Code::kInvalid, "no address to resolve");
  if (count > limits::kResolveBatch)
    return Status(Code::kInvalid, std::to_string(count) + " addresses in one call, at most " +
                                      std::to_string(limits::kResolveBatch));
  std::vector<Address> out;
  out.reserve(count);
  for (const std::string& text : request.addresses()) {
    DW_ASSIGN(Address address, Address::Parse(text));
    out.push_back(std::move(address));
  }
  return out;
}

}  // namespace

void ResolveVerb::Resolve(const pb::ResolveRequest& request, Done done) {
  auto& counts = ground_->counts;
  ++counts.resolves;
  auto addresses = ParseAll(request);
  if (!addresses.ok()) {
    ++counts.refused;
    return done(addresses.status());
  }
  counts.resolved_names += addresses->size();
  const Revision least = FromWire(request.min_revision());
  switch (request.consistency()) {
    case pb::CONSISTENCY_LOCAL:
      return AnswerAt(least, std::move(*addresses), std::move(done));
    case pb::CONSISTENCY_BOUNDED: {
      const uint64_t age = ground_->AgeMs();
      if (age > request.max_age_ms())
        return done(Status(Code::kUnavailable, "what this node knows is " + std::to_string(age) +
                                                   " ms old, asked for at most " +
                                                   std::to_string(request.max_age_ms())));
      return AnswerAt(least, std::move(*addresses), std::move(done));
    }
    case pb::CONSISTENCY_LINEARIZABLE: {
      auto self = shared_from_this();
      auto then = [self, least, list = std::move(*addresses),
                   done = std::move(done)](Result<Revision> barrier) {
        if (!barrier.ok()) return done(barrier.status());
        self->AnswerAt(std::max(least, *barrier), list, done);
      };
      return ground_->log.ReadBarrier(BootClock::now() + kBarrierWait, std::move(then));
    }
    default:
      ++counts.refused;
      done(Status(Code::kInvalid,
                  "consistency " + std::to_string(request.consistency()) + " is unknown"));
  }
}

void ResolveVerb::AnswerAt(Revision least, std::vector<Address> addresses, Done done) {
  Status refused;
  if (ground_->view.Applied() < least) {
    const MutexLock lock(mu_);
    // Seen again under the lock: OnPublished takes it after the revision can be read.
    if (stopped_) {
      refused = {Code::kUnavailable, "this node stops"};
    } else if (least.epoch > ground_->view.authority().epoch) {
      refused = {Code::kBehind, "asked for revision " + least.ToString() + ", the epoch here is " +
                                    std::to_string(ground_->view.authority().epoch)};
    } else if (waiting_.size() >= kWaitingMost) {
      refused = {Code::kOverloaded, std::to_string(kWaitingMost) + " calls wait for a revision"};
      refused.set_retry_after(std::chrono::milliseconds(500));
    } else if (ground_->view.Applied() < least) {
      waiting_.emplace(least, Waiting{std::move(addresses), ground_->now() + limits::kBehindWait,
                                      std::move(done)});
      return;
    }
  }
  if (!refused.ok()) return done(refused);
  done(Answer(addresses));
}

Result<std::string> ResolveVerb::Answer(const std::vector<Address>& addresses) {
  std::vector<Match> matches;
  DW_ASSIGN(const Revision at, ground_->view.Resolve(addresses, &matches));
  const uint64_t age = ground_->AgeMs();
  std::string out;
  size_t bytes = 64;
  for (size_t i = 0; i < matches.size(); ++i) bytes += AnswerBytesAtMost(addresses[i], matches[i]);
  out.reserve(bytes);
  AppendField(pb::ResolveResponse::kSourceFieldNumber, ground_->source.SerializeAsString(), &out);
  for (size_t i = 0; i < matches.size(); ++i)
    AppendAnswer(pb::ResolveResponse::kAnswersFieldNumber, addresses[i], matches[i], at, age, &out);
  return out;
}

void ResolveVerb::OnPublished(Revision at) {
  std::vector<Waiting> due;
  {
    const MutexLock lock(mu_);
    while (!waiting_.empty() && waiting_.begin()->first <= at)
      due.push_back(std::move(waiting_.extract(waiting_.begin()).mapped()));
  }
  for (Waiting& call : due) call.done(Answer(call.addresses));
}

void ResolveVerb::Tick(BootTime now) {
  std::vector<std::pair<Revision, Waiting>> late;
  const Revision applied = ground_->view.Applied();
  {
    const MutexLock lock(mu_);
    for (auto it = waiting_.begin(); it != waiting_.end();) {
      if (it->second.deadline > now && it->first > applied) {
        ++it;
        continue;
      }
      late.emplace_back(it->first, std::move(it->second));
      it = waiting_.erase(it);
    }
  }
  for (auto& [least, call] : late) {
    if (least <= applied)
      call.done(Answer(call.addresses));
    else
      call.done(Status(Code::kBehind, "asked for revision " + least.ToString() +
                                          ", this node is at " + applied.ToString()));
  }
}

void ResolveVerb::Stop() {
  std::multimap<Revision, Waiting> waiting;
  {
    const MutexLock lock(mu_);
    stopped_ = true;
    waiting.swap(waiting_);
  }
  for (auto& [least, call] : waiting) call.done(Status(Code::kUnavailable, "this node stops"));
}

}  // namespace datawire::directory
