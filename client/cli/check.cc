#include "check.h"

#include <algorithm>
#include <charconv>

namespace datawire::cli {

Result<CheckSpec> CheckSpec::Parse(std::string_view text) {
  constexpr std::string_view kHttp = "http=";
  if (text == "tcp") return CheckSpec{.kind = Kind::kTcp};
  if (text == "amqp") return CheckSpec{.kind = Kind::kAmqp};
  if (!text.starts_with(kHttp))
    return Status(Code::kInvalid,
                  "--check " + Shown(text) + " is none of tcp, amqp, http=[:PORT]PATH");
  CheckSpec spec{.kind = Kind::kHttp};
  std::string_view rest = text.substr(kHttp.size());
  if (rest.starts_with(':')) {
    const auto [end, error] =
        std::from_chars(rest.data() + 1, rest.data() + rest.size(), spec.port);
    if (error != std::errc() || spec.port == 0)
      return Status(Code::kInvalid,
                    "--check " + Shown(text) + " has no port from 1 to 65535 after the colon");
    rest.remove_prefix(end - rest.data());
  }
  // It goes into a request line as it is.
  const bool printable =
      std::all_of(rest.begin(), rest.end(), [](char c) { return c > ' ' && c < 127; });
  if (!rest.starts_with('/') || !printable)
    return Status(Code::kInvalid, "--check " + Shown(text) +
                                      " needs a path that starts with / and has no spaces and "
                                      "no characters but ASCII");
  spec.path = rest;
  return spec;
}

void CheckCore::Begin(BootTime now) {
  probing_ = true;
  begun_ = now;
  const double share = std::uniform_real_distribution<double>(0.9, 1.1)(random_);
  next_ = now + std::chrono::duration_cast<BootClock::duration>(policy_.interval * share);
}

CheckCore::Change CheckCore::OnResult(bool healthy) {
  probing_ = false;
  in_a_row_ = healthy == last_ ? in_a_row_ + 1 : 1;
  last_ = healthy;
  if (healthy == up_) return Change::kNone;
  const uint32_t needed = up_ ? policy_.down : was_up_ ? policy_.up : 1;
  if (in_a_row_ < needed) return Change::kNone;
  up_ = healthy;
  was_up_ = true;
  return up_ ? Change::kUp : Change::kDown;
}

}  // namespace datawire::cli
