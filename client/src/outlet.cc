#include "outlet.h"

#include <algorithm>

#include "amqp/encoded_message.h"
#include "amqp/proton_extras.h"
#include "links.h"

namespace datawire {

namespace {

Verdict VerdictOf(SenderCore::Outcome outcome) {
  using From = SenderCore::Outcome::Kind;
  using To = Verdict::Kind;
  Verdict verdict{To::kReleased, std::move(outcome.condition), std::move(outcome.description)};
  if (outcome.kind == From::kAccepted) verdict.kind = To::kAccepted;
  if (outcome.kind == From::kRejected) verdict.kind = To::kRejected;
  if (outcome.kind == From::kModified && outcome.failed) verdict.kind = To::kFailed;
  return verdict;
}

}  // namespace

uint32_t LinkOutlet::credit() const {
  const uint64_t given = given_, granted = granted_;
  return draining_ || given >= granted ? 0 : static_cast<uint32_t>(granted - given);
}

void LinkOutlet::NoteCredit() {
  if (!!sender_) granted_ = sent_ + static_cast<uint64_t>(std::max(sender_.credit(), 0));
}

void LinkOutlet::ReturnCredit() {
  if (!!sender_) amqp::ReturnCreditIfDraining(sender_);
  NoteCredit();
}

void LinkOutlet::Give(const proton::message& message, uint32_t more_deliveries, Done done) {
  std::vector<char> encoded;
  try {
    message.encode(encoded);
  } catch (const std::exception& e) {
    return done({Verdict::Kind::kRejected, "amqp:decode-error", e.what()});
  }
  if (more_deliveries > 0) {
    auto with =
        amqp::WithFields({encoded.data(), encoded.size()}, {.more_deliveries = more_deliveries});
    if (with.ok()) encoded = std::move(with).value();
  }
  ++given_;
  const auto shared =
      std::make_shared<std::pair<std::vector<char>, Done>>(std::move(encoded), std::move(done));
  const auto connection = connection_.lock();
  const bool posted = connection && connection->Post([self = shared_from_this(), shared] {
    self->Send(shared->first, std::move(shared->second));
  });
  if (!posted) shared->second({Verdict::Kind::kReleased, "", "the link is gone"});
}

void LinkOutlet::Send(const std::vector<char>& encoded, Done done) {
  const uint64_t most = !!sender_ ? amqp::RemoteMaxMessageSize(sender_) : 0;
  Verdict verdict{Verdict::Kind::kReleased, "", "there is no credit any more"};
  if (most > 0 && encoded.size() > most) {
    verdict = {Verdict::Kind::kRejected, "amqp:link:message-size-exceeded",
               "the message is " + std::to_string(encoded.size()) + " bytes, at most " +
                   std::to_string(most) + " at the peer"};
  } else if (!!sender_ && !draining_ && sender_.credit() > 0) {
    const uint64_t tag = next_tag_++;
    if (amqp::SendEncoded(sender_, {encoded.data(), encoded.size()}, tag).ok()) {
      ++sent_;
      page_->Message();
      given_out_.emplace(tag, std::move(done));
      return;
    }
  }
  --given_;
  done(verdict);
}

void LinkOutlet::Settled(const proton::tracker& tracker) {
  const auto node = given_out_.extract(amqp::TagOf(tracker));
  if (!node) return;
  node.mapped()(VerdictOf(OutcomeOf(tracker, *page_)));
}

void LinkOutlet::Close(const std::string& condition, const std::string& why) {
  draining_ = true;
  const auto connection = connection_.lock();
  if (!connection) return;
  connection->Post([self = shared_from_this(), condition, why] {
    if (!self->sender_) return;
    amqp::CloseWithError(self->sender_, condition, why);
    self->EndAll();
  });
}

void LinkOutlet::Lose() {
  EndAll();
  page_->End("");
  sender_ = proton::sender();
}

void LinkOutlet::EndAll() {
  draining_ = true;
  for (auto& [tag, done] : std::exchange(given_out_, {}))
    done({Verdict::Kind::kLost, "", "the link was lost"});
}

}  // namespace datawire
