#include <gtest/gtest.h>

#include <proton/annotation_key.hpp>
#include <proton/binary.hpp>
#include <proton/codec/vector.hpp>
#include <proton/duration.hpp>
#include <proton/message.hpp>
#include <proton/message_id.hpp>
#include <proton/symbol.hpp>
#include <proton/uuid.hpp>

#include "amqp/encoded_message.h"

namespace datawire::amqp {
namespace {

std::string_view View(const std::vector<char>& bytes) {
  return {bytes.data(), bytes.size()};
}

proton::message Edited(const proton::message& message, const MessageFields& fields) {
  const std::vector<char> encoded = message.encode();
  const Result<std::vector<char>> edited = WithFields(View(encoded), fields);
  EXPECT_TRUE(edited.ok());
  proton::message back;
  if (edited.ok()) back.decode(*edited);
  return back;
}

/// A message with something in each section.
proton::message Full() {
  proton::message message("body");
  message.id(uint64_t{42});
  message.user("user");
  message.to("to");
  message.subject("subject");
  message.reply_to("elsewhere");
  message.correlation_id(proton::uuid::copy("0123456789abcdef"));
  message.content_type("text/plain");
  message.group_id("group");
  message.group_sequence(7);
  message.durable(true);
  message.priority(9);
  message.ttl(proton::duration(5000));
  message.delivery_count(3);
  message.properties().put("key", std::string(300, 'v'));
  message.message_annotations().put(proton::annotation_key("x-opt-a"), 1);
  message.delivery_annotations().put(proton::annotation_key("x-opt-b"), "b");
  return message;
}

void ExpectAlike(const proton::message& a, const proton::message& b) {
  EXPECT_EQ(proton::to_string(a.body()), proton::to_string(b.body()));
  EXPECT_EQ(a.user(), b.user());
  EXPECT_EQ(a.to(), b.to());
  EXPECT_EQ(a.subject(), b.subject());
  EXPECT_EQ(a.content_type(), b.content_type());
  EXPECT_EQ(a.group_id(), b.group_id());
  EXPECT_EQ(a.group_sequence(), b.group_sequence());
  EXPECT_EQ(a.durable(), b.durable());
  EXPECT_EQ(a.priority(), b.priority());
  EXPECT_EQ(a.ttl(), b.ttl());
  EXPECT_EQ(proton::to_string(a.properties().get("key")),
            proton::to_string(b.properties().get("key")));
  EXPECT_EQ(a.message_annotations().size(), b.message_annotations().size());
  EXPECT_EQ(a.delivery_annotations().size(), b.delivery_annotations().size());
}

TEST(AmqpEncodedTest, SetsFieldsOfAPlainMessage) {
  const proton::message edited = Edited(proton::message("body"), {"id-1", true, "reply-node", 2});
  EXPECT_EQ(proton::to_string(edited.id()), "id-1");
  EXPECT_EQ(proton::to_string(edited.correlation_id()), "id-1");
  EXPECT_EQ(edited.reply_to(), "reply-node");
  EXPECT_EQ(edited.delivery_count(), 2u);
  EXPECT_EQ(proton::to_string(edited.body()), "body");
}

TEST(AmqpEncodedTest, KeepsAllElse) {
  const proton::message full = Full();
  const std::string long_node(1000, 'r');
  const proton::message edited = Edited(full, {"", false, long_node, 4});
  ExpectAlike(edited, full);
  EXPECT_EQ(edited.id(), full.id());
  EXPECT_EQ(edited.correlation_id(), full.correlation_id());
  EXPECT_EQ(edited.reply_to(), long_node);
  EXPECT_EQ(edited.delivery_count(), 7u);
}

TEST(AmqpEncodedTest, CorrelatesByAnIdOfAnyType) {
  for (const proton::message_id& id :
       {proton::message_id(uint64_t{7}), proton::message_id("text"),
        proton::message_id(proton::binary("bytes")), proton::message_id(proton::uuid::random())}) {
    proton::message message("body");
    message.id(id);
    EXPECT_EQ(Edited(message, {"", true, "", 0}).correlation_id(), id);
  }
}

TEST(AmqpEncodedTest, NothingToSetChangesNothing) {
  const proton::message full = Full();
  const proton::message edited = Edited(full, {});
  ExpectAlike(edited, full);
  EXPECT_EQ(edited.reply_to(), full.reply_to());
  EXPECT_EQ(edited.delivery_count(), full.delivery_count());
}

TEST(AmqpEncodedTest, ABodyOfAnyKindStays) {
  for (const proton::value& body :
       {proton::value(proton::binary(std::string(70'000, 'b'))), proton::value(true),
        proton::value(std::vector<int32_t>{1, 2, 3})}) {
    EXPECT_EQ(proton::to_string(Edited(proton::message(body), {"id", false, "", 1}).body()),
              proton::to_string(body));
  }
}

TEST(AmqpEncodedTest, RefusesWhatIsCutOffOrNoMessage) {
  const std::vector<char> whole = Full().encode();
  size_t refused = 0;  // all that end within header, annotations or properties
  for (size_t size = 1; size < whole.size(); ++size) {
    refused += !WithFields({whole.data(), size}, {"id", false, "", 1}).ok();
  }
  EXPECT_GT(refused, 100u);
  EXPECT_LT(refused, whole.size() - 300) << "the long value is behind them";
  for (const std::string_view bytes :
       {std::string_view("x"), std::string_view("\0\x53\x70", 3),
        std::string_view("\0\xa3\x01\x70\x45", 5), std::string_view("\0\x53\x73\xc0\xff\x01", 6),
        std::string_view("\0\x53\x73\xa1\x00", 5)}) {
    const auto edited = WithFields(bytes, {"id", false, "", 1});
    ASSERT_FALSE(edited.ok());
    EXPECT_EQ(edited.status().code(), Code::kInvalid);
  }
}

TEST(AmqpEncodedTest, WhatIsLeftOfItsTimeToLiveReplacesIt) {
  EXPECT_EQ(Edited(Full(), {.ttl_ms = 70'000}).ttl().milliseconds(), 70'000u);
  const proton::message bare = Edited(proton::message("x"), {.ttl_ms = 7});
  EXPECT_EQ(bare.ttl().milliseconds(), 7u);
  EXPECT_EQ(proton::get<std::string>(bare.body()), "x");
  ExpectAlike(Edited(Full(), {.ttl_ms = 5000}), Full());
}

}  // namespace
}  // namespace datawire::amqp
