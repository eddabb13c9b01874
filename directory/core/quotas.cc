#include "core/quotas.h"

#include <chrono>

#include "datawire/status.h"

namespace datawire::directory {
namespace {

constexpr std::chrono::seconds kRetryAfter{5};  // what is held goes by its owner's will

struct Name {
  const char *what, *flag;
};
constexpr std::array<Name, 4> kNames{{{"registrations", "--quota-registrations"},
                                      {"sessions", "--quota-sessions"},
                                      {"watches", "--quota-watches"},
                                      {"streams", "--quota-streams"}}};

}  // namespace

Quotas::Quotas(const QuotaOptions& most)
    : most_{most.registrations, most.sessions, most.watches, most.streams} {}

Result<Quotas::Held> Quotas::Take(Kind kind, const std::string& principal, size_t count,
                                  size_t already) {
  if (principal.empty() || count == 0) return Held();
  const auto of = static_cast<size_t>(kind);
  const MutexLock lock(mutex_);
  const auto found = held_[of].find(principal);
  const size_t held = already + (found == held_[of].end() ? 0 : found->second);
  if (held + count > most_[of]) {
    ++refusals_;
    Status full(Code::kOverloaded, Shown(principal) + " holds " + std::to_string(held) + " " +
                                       kNames[of].what + " and may hold " +
                                       std::to_string(most_[of]) + " (" + kNames[of].flag + ")");
    return full.set_retry_after(kRetryAfter);
  }
  return Add(kind, principal, count);
}

Quotas::Held Quotas::Charge(Kind kind, const std::string& principal, size_t count) {
  if (principal.empty() || count == 0) return {};
  const MutexLock lock(mutex_);
  return Add(kind, principal, count);
}

Quotas::Held Quotas::Add(Kind kind, const std::string& principal, size_t count) {
  held_[static_cast<size_t>(kind)][principal] += count;
  const auto release = [self = shared_from_this(), kind, principal, count](void*) {
    self->Release(kind, principal, count);
  };
  return {static_cast<void*>(this), release};
}

void Quotas::Release(Kind kind, const std::string& principal, size_t count) {
  const MutexLock lock(mutex_);
  Counts& counts = held_[static_cast<size_t>(kind)];
  const auto found = counts.find(principal);
  found->second -= count;
  if (found->second == 0) counts.erase(found);
}

}  // namespace datawire::directory
