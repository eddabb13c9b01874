#include "amqp/proton_extras.h"

#include <proton/codec.h>
#include <proton/condition.h>
#include <proton/delivery.h>
#include <proton/disposition.h>
#include <proton/link.h>
#include <proton/object.h>
#include <proton/session.h>
#include <proton/terminus.h>

#include <cstring>
#include <exception>

#include "amqp/native.h"

namespace datawire::amqp {

namespace {

pn_bytes_t Bytes(std::string_view text) {
  return pn_bytes(text.size(), text.data());
}

std::string Text(const char* text) {
  return text ? text : "";
}

void Set(pn_condition_t* condition, std::string_view name, std::string_view description,
         const Info& info = {}) {
  pn_condition_set_name(condition, std::string(name).c_str());
  pn_condition_set_description(condition, std::string(description).c_str());
  if (info.empty()) return;
  pn_data_t* data = pn_condition_info(condition);
  pn_data_clear(data);
  pn_data_put_map(data);
  pn_data_enter(data);
  for (const auto& [key, value] : info) {
    pn_data_put_symbol(data, Bytes(key));
    pn_data_put_string(data, Bytes(value));
  }
  pn_data_exit(data);
}

std::string TextAt(pn_data_t* data) {
  pn_bytes_t bytes{0, nullptr};
  if (pn_data_type(data) == PN_STRING) bytes = pn_data_get_string(data);
  if (pn_data_type(data) == PN_SYMBOL) bytes = pn_data_get_symbol(data);
  return bytes.size ? std::string(bytes.start, bytes.size) : std::string();
}

// A record of proton's objects holds a value under a key; ours says "freed", which proton forgets.
PN_HANDLE(kFreed)
bool MarkFreed(pn_record_t* record) {
  if (pn_record_has(record, kFreed)) return false;
  pn_record_def(record, kFreed, PN_VOID);
  return true;
}

}  // namespace

void Reject(proton::delivery& delivery, std::string_view condition, std::string_view description) {
  pn_delivery_t* d = native::Of(delivery);
  Set(pn_disposition_condition(pn_delivery_local(d)), condition, description);
  pn_delivery_update(d, PN_REJECTED);
  pn_delivery_settle(d);
}

void Modify(proton::delivery& delivery, bool failed, bool undeliverable_here) {
  pn_delivery_t* d = native::Of(delivery);
  pn_disposition_set_failed(pn_delivery_local(d), failed);
  pn_disposition_set_undeliverable(pn_delivery_local(d), undeliverable_here);
  pn_delivery_update(d, PN_MODIFIED);
  pn_delivery_settle(d);
}

RemoteOutcome Outcome(const proton::tracker& tracker) {
  using Kind = RemoteOutcome::Kind;
  RemoteOutcome outcome;
  pn_disposition_t* remote = pn_delivery_remote(native::Of(tracker));
  switch (pn_disposition_type(remote)) {
    case PN_ACCEPTED:
      outcome.kind = Kind::kAccepted;
      break;
    case PN_RELEASED:
      outcome.kind = Kind::kReleased;
      break;
    case PN_REJECTED: {
      outcome.kind = Kind::kRejected;
      pn_condition_t* condition = pn_disposition_condition(remote);
      outcome.condition = Text(pn_condition_get_name(condition));
      outcome.description = Text(pn_condition_get_description(condition));
      break;
    }
    case PN_MODIFIED:
      outcome.kind = Kind::kModified;
      outcome.failed = pn_disposition_is_failed(remote);
      outcome.undeliverable_here = pn_disposition_is_undeliverable(remote);
      break;
    default:
      break;
  }
  return outcome;
}

Result<proton::tracker> Send(proton::sender& sender, const proton::message& message, uint64_t tag) {
  if (!sender || !sender.active()) return Status(Code::kUnavailable, "the link is not open");
  if (sender.credit() <= 0) return Status(Code::kOverloaded, "the link has no credit");
  const auto* bytes = reinterpret_cast<const uint8_t*>(&tag);
  try {
    return sender.send(message, proton::binary(bytes, bytes + sizeof tag));
  } catch (const std::exception& e) {
    return Status(Code::kInvalid, std::string("the message cannot be encoded: ") + e.what());
  }
}

Status SendEncoded(proton::sender& sender, std::string_view message, uint64_t tag) {
  if (!sender || !sender.active()) return Status(Code::kUnavailable, "the link is not open");
  if (sender.credit() <= 0) return Status(Code::kOverloaded, "the link has no credit");
  pn_link_t* link = native::Of(sender);
  pn_delivery_t* delivery =
      pn_delivery(link, pn_dtag(reinterpret_cast<const char*>(&tag), sizeof tag));
  pn_link_send(link, message.data(), message.size());
  pn_link_advance(link);
  if (pn_link_snd_settle_mode(link) == PN_SND_SETTLED) pn_delivery_settle(delivery);
  return {};
}

uint64_t TagOf(const proton::transfer& transfer) {
  const pn_delivery_tag_t tag = pn_delivery_tag(native::Of(transfer));
  uint64_t value = 0;
  if (tag.size == sizeof value) std::memcpy(&value, tag.start, sizeof value);
  return value;
}

void Forget(proton::sender& sender, uint64_t tag) {
  pn_link_t* link = native::Of(sender);
  for (pn_delivery_t* d = pn_unsettled_head(link); d; d = pn_unsettled_next(d)) {
    const pn_delivery_tag_t its = pn_delivery_tag(d);
    if (its.size != sizeof tag || std::memcmp(its.start, &tag, sizeof tag) != 0) continue;
    pn_delivery_settle(d);
    return;
  }
}

bool IsSmall(const proton::message& message) {
  pn_data_t* body = native::BodyOf(message);
  return pn_data_size(body) <= 64 && pn_data_encoded_size(body) <= 4096;
}

bool Refused(const proton::link& link) {
  pn_link_t* l = native::Of(link);
  pn_terminus_t* wanted =
      pn_link_is_sender(l) ? pn_link_remote_target(l) : pn_link_remote_source(l);
  return pn_terminus_get_type(wanted) == PN_UNSPECIFIED;
}

void CloseWithError(proton::link& link, std::string_view condition, std::string_view description,
                    const Info& info) {
  pn_link_t* l = native::Of(link);
  Set(pn_link_condition(l), condition, description, info);
  pn_link_close(l);
}

void Refuse(proton::link& link, std::string_view condition, std::string_view description,
            const Info& info) {
  pn_link_t* l = native::Of(link);
  // Proton has copied the peer's terminus into ours; the one that the peer asks for must be null.
  pn_terminus_set_type(pn_link_is_receiver(l) ? pn_link_target(l) : pn_link_source(l),
                       PN_UNSPECIFIED);
  pn_link_open(l);
  CloseWithError(link, condition, description, info);
}

RemoteError ErrorOf(const proton::link& link) {
  RemoteError error;
  pn_condition_t* condition = pn_link_remote_condition(native::Of(link));
  error.condition = Text(pn_condition_get_name(condition));
  error.description = Text(pn_condition_get_description(condition));
  pn_data_t* info = pn_condition_info(condition);
  pn_data_rewind(info);
  if (!pn_data_next(info) || pn_data_type(info) != PN_MAP) return error;
  pn_data_enter(info);
  while (pn_data_next(info)) {
    const std::string key = TextAt(info);
    if (!pn_data_next(info)) break;
    if (std::string value = TextAt(info); !key.empty() && !value.empty())
      error.info[key] = std::move(value);
  }
  return error;
}

void Free(proton::link& link) {
  pn_link_t* l = native::Of(link);
  // A session that is freed has freed its links.
  if (!l || pn_record_has(pn_session_attachments(pn_link_session(l)), kFreed)) return;
  if (MarkFreed(pn_link_attachments(l))) pn_link_free(l);
}

void Free(proton::session& session) {
  pn_session_t* s = native::Of(session);
  if (s && MarkFreed(pn_session_attachments(s))) pn_session_free(s);
}

void SetMaxMessageSize(proton::receiver& receiver, uint64_t bytes) {
  pn_link_set_max_message_size(native::Of(receiver), bytes);
}

uint64_t RemoteMaxMessageSize(const proton::sender& sender) {
  return pn_link_remote_max_message_size(native::Of(sender));
}

bool ReturnCreditIfDraining(proton::sender& sender) {
  // Not sender.draining(): in the first callback after the request it still says no.
  if (!pn_link_get_drain(native::Of(sender))) return false;
  sender.return_credit();
  return true;
}

Code CodeOfCondition(std::string_view condition) {
  for (int i = 1; i <= static_cast<int>(Code::kInternal); ++i) {
    const CodeMapping& row = MappingOf(static_cast<Code>(i));
    if (row.amqp_condition == condition) return row.code;
  }
  return Code::kUnavailable;
}

}  // namespace datawire::amqp
