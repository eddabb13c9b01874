#include "fill_plan.h"

#include <algorithm>
#include <cstdio>

#include "datawire/limits.h"

namespace datawire::cli {
namespace {

constexpr uint64_t kBranch = 1000;
constexpr uint64_t kFirstPort = 20'000;
constexpr uint64_t kMostSessions = 1 << 24;  // hosts in 10.0.0.0/8
constexpr int kBarWidth = 30;

std::string Counted(uint64_t count, const char* what) {
  return std::to_string(count) + " " + what + (count == 1 ? "" : "s");
}

}  // namespace

Status FillPlan::Check() const {
  if (sessions > kMostSessions)
    return {Code::kInvalid, "--sessions " + std::to_string(sessions) + " is more than " +
                                std::to_string(kMostSessions)};
  if (sessions > endpoints)
    return {Code::kInvalid, Counted(sessions, "session") + " for " +
                                Counted(endpoints, "endpoint") +
                                ": each holds one at least; lower --sessions"};
  if (endpoints > sessions * limits::kSessionRegistrations)
    return {Code::kInvalid, Counted(endpoints, "endpoint") + " in " + Counted(sessions, "session") +
                                ": a session holds " +
                                std::to_string(limits::kSessionRegistrations) +
                                " at most; raise --sessions"};
  if (addresses > endpoints)
    return {Code::kInvalid, "--addresses " + std::to_string(addresses) + " is more than the " +
                                Counted(endpoints, "endpoint")};
  return Address::Parse(AddressOf(addresses - 1)).status();
}

uint64_t FillPlan::Calls(uint64_t session) const {
  const uint64_t held = First(session + 1) - First(session);
  return (held + limits::kCallRegistrations - 1) / limits::kCallRegistrations;
}

directory::v1::TetherRequest FillPlan::Call(uint64_t session, uint64_t call) const {
  directory::v1::TetherRequest request;
  auto* op = request.mutable_register_();
  op->set_op_id(call + 1);
  const uint64_t from = First(session) + call * limits::kCallRegistrations;
  const uint64_t to = std::min(from + limits::kCallRegistrations, First(session + 1));
  for (uint64_t endpoint = from; endpoint < to; ++endpoint) {
    auto* registration = op->add_registrations();
    registration->set_address(AddressOf(endpoint));
    registration->mutable_endpoint()->set_url(UrlOf(session, endpoint));
    registration->mutable_endpoint()->set_weight(weight);
  }
  return request;
}

std::string FillPlan::AddressOf(uint64_t endpoint) const {
  const uint64_t number = endpoint % addresses;
  char below[48];
  std::snprintf(below, sizeof below, "/%06llu/%03llu",
                static_cast<unsigned long long>(number / kBranch),
                static_cast<unsigned long long>(number % kBranch));
  return prefix.text() + below;
}

std::string FillPlan::UrlOf(uint64_t session, uint64_t endpoint) const {
  return "amqp://10." + std::to_string(session >> 16 & 255) + "." +
         std::to_string(session >> 8 & 255) + "." + std::to_string(session & 255) + ":" +
         std::to_string(kFirstPort + endpoint - First(session));
}

std::string FillProgress(uint64_t done, uint64_t all, double seconds) {
  const int filled = all == 0 ? kBarWidth : static_cast<int>(done * kBarWidth / all);
  std::string bar(filled, '=');
  if (filled < kBarWidth) bar += '>';
  bar.resize(kBarWidth, ' ');
  char text[160];
  std::snprintf(text, sizeof text, "[%s] %3llu %%  %llu of %llu endpoints  %.0f/s", bar.c_str(),
                static_cast<unsigned long long>(all == 0 ? 100 : done * 100 / all),
                static_cast<unsigned long long>(done), static_cast<unsigned long long>(all),
                seconds > 0 ? static_cast<double>(done) / seconds : 0.0);
  return text;
}

}  // namespace datawire::cli
