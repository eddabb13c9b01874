#include "amqp/encoded_message.h"

#include <algorithm>
#include <array>
#include <optional>
#include <string>

namespace datawire::amqp {

namespace {

// Descriptors of sections, constructors of values, positions of fields.
constexpr uint8_t kHeader = 0x70, kProperties = 0x73;
constexpr char kNull = 0x40;
constexpr size_t kTtl = 2, kDeliveryCount = 4, kMessageId = 0, kReplyTo = 4, kCorrelationId = 5;

uint32_t Number(std::string_view bytes) {
  uint32_t value = 0;
  for (const char byte : bytes) value = value << 8 | static_cast<uint8_t>(byte);
  return value;
}

void Append(std::string& out, uint32_t value) {
  for (int shift = 24; shift >= 0; shift -= 8) out.push_back(static_cast<char>(value >> shift));
}

/// The bytes of the value at the start of `data`; nothing if it is cut off or described. The upper
/// half of a constructor tells how the length is found.
std::optional<size_t> ValueSize(std::string_view data) {
  if (data.empty()) return std::nullopt;
  const uint8_t constructor = static_cast<uint8_t>(data[0]);
  constexpr std::array<size_t, 6> kFixed = {0, 1, 2, 4, 8, 16};
  const size_t kind = constructor >> 4;
  size_t size = 0;
  if (kind >= 0x4 && kind <= 0x9) {
    size = 1 + kFixed[kind - 0x4];
  } else if (kind >= 0xa) {
    const size_t width = kind % 2 == 0 ? 1 : 4;  // of the length
    if (data.size() < 1 + width) return std::nullopt;
    size = 1 + width + Number(data.substr(1, width));
  }
  if (size == 0 || size > data.size()) return std::nullopt;
  return size;
}

struct Section {
  uint8_t descriptor;
  std::string_view value;  // to the end of the message
};

std::optional<Section> SectionAt(std::string_view data) {
  if (data.size() < 3 || data[0] != 0) return std::nullopt;
  const auto descriptor = ValueSize(data.substr(1));
  if (!descriptor || (data[1] != 0x53 && data[1] != static_cast<char>(0x80))) return std::nullopt;
  return Section{static_cast<uint8_t>(data[*descriptor]), data.substr(1 + *descriptor)};
}

/// A list of encoded values; properties, the longest, has 13.
class Fields {
 public:
  static std::optional<Fields> Parse(std::string_view list) {
    const uint8_t constructor = static_cast<uint8_t>(list[0]);
    Fields fields;
    if (constructor == 0x45) return fields;
    if (constructor != 0xc0 && constructor != 0xd0) return std::nullopt;
    const size_t width = constructor == 0xc0 ? 1 : 4;
    if (list.size() < 1 + 2 * width) return std::nullopt;
    list.remove_prefix(1 + 2 * width);  // how many there are is seen
    while (!list.empty()) {
      const auto size = ValueSize(list);
      if (!size || fields.size_ == fields.values_.size()) return std::nullopt;
      fields.values_[fields.size_++] = list.substr(0, *size);
      list.remove_prefix(*size);
    }
    return fields;
  }

  bool empty() const { return size_ == 0; }
  /// Encoded; empty if there is none.
  std::string_view at(size_t position) const {
    if (position >= size_ || values_[position][0] == kNull) return {};
    return values_[position];
  }
  /// `encoded` is referred to, not copied.
  void Set(size_t position, std::string_view encoded) {
    while (size_ <= position) values_[size_++] = std::string_view(&kNull, 1);
    values_[position] = encoded;
  }
  void AppendTo(std::string& out, uint8_t descriptor) const {
    size_t size = 4;  // the count's
    for (size_t i = 0; i < size_; ++i) size += values_[i].size();
    out.append({0, 0x53, static_cast<char>(descriptor), static_cast<char>(0xd0)});
    Append(out, static_cast<uint32_t>(size));
    Append(out, static_cast<uint32_t>(size_));
    for (size_t i = 0; i < size_; ++i) out += values_[i];
  }

 private:
  std::array<std::string_view, 16> values_;
  size_t size_ = 0;
};

std::string String(std::string_view text) {
  std::string value;
  if (text.size() <= 255) {
    value.append({static_cast<char>(0xa1), static_cast<char>(text.size())});
  } else {
    value.push_back(static_cast<char>(0xb1));
    Append(value, static_cast<uint32_t>(text.size()));
  }
  return value.append(text);
}

std::string UnsignedInt(uint32_t number) {
  std::string value(1, 0x70);
  Append(value, number);
  return value;
}

Status NoMessage() {
  return Status(Code::kInvalid, "the bytes are no AMQP message");
}

}  // namespace

Result<std::vector<char>> WithFields(std::string_view encoded, const MessageFields& add) {
  // Before the body: header, two kinds of annotations, properties; each may be missing.
  Fields header, properties;
  std::string_view annotations, rest = encoded;
  while (!rest.empty()) {
    const auto section = SectionAt(rest);
    if (!section) return NoMessage();
    if (section->descriptor > kProperties) break;
    const auto size = ValueSize(section->value);
    if (!size) return NoMessage();
    const size_t whole = rest.size() - section->value.size() + *size;
    if (section->descriptor == kHeader || section->descriptor == kProperties) {
      const auto fields = Fields::Parse(section->value.substr(0, *size));
      if (!fields) return NoMessage();
      (section->descriptor == kHeader ? header : properties) = *fields;
    } else {
      annotations = {annotations.empty() ? rest.data() : annotations.data(),
                     annotations.size() + whole};
    }
    rest.remove_prefix(whole);
  }

  std::string id, reply_to, count, ttl;
  if (!add.message_id.empty()) properties.Set(kMessageId, id = String(add.message_id));
  if (add.correlate && !properties.at(kMessageId).empty()) {
    properties.Set(kCorrelationId, properties.at(kMessageId));
  }
  if (!add.reply_to.empty()) properties.Set(kReplyTo, reply_to = String(add.reply_to));
  if (add.more_deliveries > 0) {
    const std::string_view before = header.at(kDeliveryCount);
    count = UnsignedInt((before.empty() ? 0 : Number(before.substr(1))) + add.more_deliveries);
    header.Set(kDeliveryCount, count);
  }
  if (add.ttl_ms > 0) header.Set(kTtl, ttl = UnsignedInt(add.ttl_ms));

  std::string front;
  front.reserve(encoded.size() - rest.size() + id.size() + reply_to.size() + 64);
  if (!header.empty()) header.AppendTo(front, kHeader);
  front += annotations;
  if (!properties.empty()) properties.AppendTo(front, kProperties);
  std::vector<char> out(front.size() + rest.size());
  std::copy(front.begin(), front.end(), out.begin());
  std::copy(rest.begin(), rest.end(), out.begin() + static_cast<ptrdiff_t>(front.size()));
  return out;
}

}  // namespace datawire::amqp
