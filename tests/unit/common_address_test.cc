#include "datawire/address.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <unordered_set>

#include "datawire/endpoint_url.h"
#include "datawire/limits.h"

namespace datawire {
namespace {

nlohmann::json Vectors(const std::string& name) {
  std::ifstream file(DATAWIRE_SOURCE_DIR "/proto/vectors.json");
  return nlohmann::json::parse(file).at(name);
}

Address At(std::string_view text) {
  return Address::Parse(text).value();
}
EndpointUrl Url(std::string_view text) {
  return EndpointUrl::Parse(text).value();
}

template <typename T>
void CheckVectors(const std::string& name, size_t least) {
  const nlohmann::json vectors = Vectors(name);
  EXPECT_GE(vectors["accept"].size() + vectors["reject"].size(), least);
  for (const auto& entry : vectors["accept"]) {
    const auto in = entry["in"].get<std::string>();
    const Result<T> parsed = T::Parse(in);
    ASSERT_TRUE(parsed.ok()) << parsed.status().ToString();
    EXPECT_EQ(parsed->text(), entry["canonical"].get<std::string>());
    EXPECT_EQ(T::Parse(parsed->text()).value(), *parsed) << "canonical is not stable: " << in;
  }
  for (const auto& entry : vectors["reject"]) {
    const auto in = entry["in"].get<std::string>();
    const auto reason = entry["reason"].get<std::string>();
    const Result<T> parsed = T::Parse(in);
    ASSERT_FALSE(parsed.ok()) << "accepted: " << in;
    EXPECT_EQ(parsed.status().code(), Code::kInvalid);
    const std::string& message = parsed.status().message();
    EXPECT_NE(message.find(reason), std::string::npos)
        << "said: " << message << "\nnot: " << reason;
    EXPECT_LE(message.size(), 400u);
    EXPECT_TRUE(
        std::all_of(message.begin(), message.end(), [](char c) { return c >= 0x20 && c < 0x7f; }))
        << "not one printable line: " << message;
  }
}

/// A valid address of up to 5 segments over a small alphabet, so that prefixes are common.
Address RandomAddress(std::mt19937_64& random) {
  static constexpr std::string_view kLabel = "ab0_";
  static constexpr std::string_view kSegment = "aAz09-_~+=,:@.";
  std::string text = "//a";
  for (auto n = random() % 3; n > 0; --n) text += kLabel[random() % kLabel.size()];
  if (random() % 2) text += ".b";
  for (auto segments = random() % 6; segments > 0; --segments) {
    text += "/x";
    for (auto n = random() % 4; n > 0; --n) text += kSegment[random() % kSegment.size()];
  }
  return At(text);
}

class AddressProperty : public testing::Test {
 protected:
  void SetUp() override {
    const char* given = std::getenv("DATAWIRE_SEED");
    seed_ = given ? std::strtoull(given, nullptr, 10) : std::random_device{}();
    RecordProperty("seed", std::to_string(seed_));
    random_.seed(seed_);
  }
  std::string Seed() const { return "DATAWIRE_SEED=" + std::to_string(seed_); }
  uint64_t seed_ = 0;
  std::mt19937_64 random_;
};

TEST(AddressVectors, EveryOneIsAcceptedOrRefusedWithItsReason) {
  CheckVectors<Address>("addresses", 60);
}

TEST(EndpointUrlVectors, EveryOneIsAcceptedOrRefusedWithItsReason) {
  CheckVectors<EndpointUrl>("endpoint_urls", 25);
}

TEST(AddressRefusal, ShowsValueAndRuleInOneLine) {
  EXPECT_EQ(Address::Parse("//a.b." + std::string(71, 'l') + "/x").status().message(),
            "address label 3 is 71 bytes, at most 63: "
            "`//a.b.llllllllllllllllllllllllllllllllll...llllllllllllll/x`");
  EXPECT_EQ(Address::Parse("//demo/a\nb").status().message(),
            "address has the control character \\x0a at byte 9: `//demo/a\\x0ab`");
}

TEST(AddressRefusal, HidesAPassword) {
  for (const char* text : {"//me:secret@demo/x", "//me:secret%41@demo/x", "x://me:secret@demo"}) {
    const std::string message = Address::Parse(text).status().message();
    EXPECT_EQ(message.find("secret"), std::string::npos) << message;
    EXPECT_NE(message.find("...@demo"), std::string::npos) << message;
  }
  for (const char* text : {"amqp://me:secret@host/q", "amqp://me:sec:secret@host?q"}) {
    const std::string message = EndpointUrl::Parse(text).status().message();
    EXPECT_EQ(message.find("secret"), std::string::npos) << message;
  }
}

TEST(AddressRefusal, EveryByteValueIsEitherLegalOrRefusedCleanly) {
  for (int byte = 0; byte < 256; ++byte) {
    const std::string one(1, static_cast<char>(byte));
    const bool segment = std::isalnum(byte) && byte < 128;
    const bool mark = byte != 0 && std::string("-_~+=,:@.").find(one) != std::string::npos;
    const Result<Address> parsed = Address::Parse("//demo/x" + one + "y");
    EXPECT_EQ(parsed.ok(), segment || mark || one == "/") << byte;
    EXPECT_EQ(Address::Parse("//x" + one + "y").ok(),
              segment || one == "-" || one == "_" || one == "." || one == "/")
        << byte;
  }
}

TEST(AddressParts, SplitOnSegmentBoundaries) {
  const Address address = At("//Demo.Org/a/B/c");
  EXPECT_EQ(address.domain(), "demo.org");
  EXPECT_EQ(address.depth(), 3u);
  EXPECT_EQ(address.Ancestor(0).text(), "//demo.org");
  EXPECT_EQ(address.Ancestor(2).text(), "//demo.org/a/B");
  EXPECT_EQ(address.Ancestor(2).depth(), 2u);
  EXPECT_EQ(address.Ancestor(3), address);
  EXPECT_EQ(address.Rest(0), "a/B/c");
  EXPECT_EQ(address.Rest(1), "B/c");
  EXPECT_EQ(address.Rest(3), "");
  EXPECT_EQ(At("//demo").depth(), 0u);
  EXPECT_EQ(At("//demo").domain(), "demo");
  EXPECT_EQ(At("//demo").Rest(0), "");
  EXPECT_TRUE(address.IsWithin(address));
  EXPECT_TRUE(address.IsWithin(At("//demo.org/a")));
  EXPECT_FALSE(At("//demo.org/ab").IsWithin(At("//demo.org/a")));
  EXPECT_FALSE(At("//demo.org/a").IsWithin(At("//demo.org/a/B")));
  EXPECT_FALSE(At("//demo.orgx/a").IsWithin(At("//demo.org")));
}

TEST(AddressKey, SortsASubtreeIntoOneRange) {
  const std::string below = At("//d/a").Key() + '\0';
  const std::string end = At("//d/a").Key() + '\1';
  for (const char* inside : {"//d/a/b", "//d/a/+", "//d/a/~", "//d/a/b/c"}) {
    const std::string key = At(inside).Key();
    EXPECT_TRUE(below <= key && key < end) << inside;
  }
  for (const char* outside :
       {"//d", "//d/a", "//d/a+", "//d/a.b", "//d/ab", "//d/b", "//d.e/a/b"}) {
    const std::string key = At(outside).Key();
    EXPECT_FALSE(below <= key && key < end) << outside;
  }
  EXPECT_EQ(At("//d/a/b").Key(), std::string("d\0a\0b", 5));
}

TEST(AddressKey, RefusesWhatNoAddressHas) {
  using std::string_literals::operator""s;
  for (const std::string& key :
       {""s, "D"s, "d/a"s, "d\0"s, "\0a"s, "d\0\0a"s, "d\0a\0"s, "d\0a\xff"s, "d\0a\1"s, "d\0.."s,
        "//d"s, std::string(2000, 'a')}) {
    const Result<Address> address = Address::FromKey(key);
    ASSERT_FALSE(address.ok()) << key;
    EXPECT_EQ(address.status().code(), Code::kCorrupt);
  }
}

TEST_F(AddressProperty, TextAndKeyComeBackAndTheSubtreeRangeIsIsWithin) {
  for (int i = 0; i < 5000; ++i) {
    const Address a = RandomAddress(random_);
    const Address b =
        random_() % 2 ? RandomAddress(random_) : a.Ancestor(random_() % (a.depth() + 1));
    ASSERT_EQ(At(a.text()), a) << Seed();
    ASSERT_EQ(Address::FromKey(a.Key()).value(), a) << Seed();
    const std::string key = a.Key();
    const bool in_range = b.Key() + '\0' <= key && key < b.Key() + '\1';
    ASSERT_EQ(a.IsWithin(b), in_range || a == b) << a.text() << " " << b.text() << " " << Seed();
    for (size_t depth = 0; depth <= a.depth(); ++depth) {
      const Address ancestor = a.Ancestor(depth);
      ASSERT_EQ(At(ancestor.text()).depth(), depth) << Seed();
      const std::string rest(a.Rest(depth));
      ASSERT_EQ(ancestor.text() + (rest.empty() ? "" : "/" + rest), a.text()) << Seed();
    }
  }
}

TEST_F(AddressProperty, RandomBytesAreNeverAcceptedUnlessCanonicalisationIsStable) {
  static constexpr std::string_view kBytes =
      "//ab.-_~:@[]%?#$ \x01\xc3\x7f"
      "0A";
  for (int i = 0; i < 20000; ++i) {
    std::string text = random_() % 4 ? "//" : "amqp://";
    for (auto n = random_() % 12; n > 0; --n) text += kBytes[random_() % kBytes.size()];
    if (const auto address = Address::Parse(text); address.ok()) {
      ASSERT_EQ(Address::Parse(address->text()).value().text(), address->text()) << Seed();
    }
    if (const auto url = EndpointUrl::Parse(text); url.ok()) {
      const EndpointUrl again = EndpointUrl::Parse(url->text()).value();
      ASSERT_EQ(again.text(), url->text()) << Seed();
      ASSERT_EQ(again.node(), url->node()) << Seed();
    }
  }
}

TEST(EndpointUrlParts, AreThoseOfTheCanonicalForm) {
  const EndpointUrl v6 = Url("AMQPS://[2001:DB8::1]/q/a");
  EXPECT_EQ(v6.text(), "amqps://[2001:db8::1]:5671/q/a");
  EXPECT_EQ(v6.host(), "2001:db8::1");
  EXPECT_EQ(v6.authority(), "[2001:db8::1]:5671");
  EXPECT_EQ(v6.node(), "q/a");
  EXPECT_TRUE(v6.secure());
  const EndpointUrl plain = Url("amqp://Host/");
  EXPECT_EQ(plain.text(), "amqp://host:5672");
  EXPECT_EQ(plain.port(), 5672);
  EXPECT_EQ(plain.node(), "");
  EXPECT_FALSE(plain.secure());
}

TEST(LinkTarget, IsTheAddressOrTheEndpointsOwnNode) {
  const Address address = At("//d/a/b/c");
  EXPECT_EQ(LinkTarget(address, address, Url("amqp://h:1")), "//d/a/b/c");
  EXPECT_EQ(LinkTarget(address, At("//d/a"), Url("amqp://h:1")), "//d/a/b/c");
  EXPECT_EQ(LinkTarget(address, address, Url("amqp://h:1/queue")), "queue");
  EXPECT_EQ(LinkTarget(address, At("//d/a"), Url("amqp://h:1/queue")), "queue/b/c");
  EXPECT_EQ(LinkTarget(address, At("//d"), Url("amqp://h:1/queue/x")), "queue/x/a/b/c");
  EXPECT_EQ(LinkTarget(address, At("//d/a"), Url("amqp://h:1/queue/")), "queue/b/c");
  EXPECT_EQ(LinkTarget(address, At("//other/x"), Url("amqp://h:1/queue")), "queue");
}

TEST(HostPort, ParsesNamesAndAddressesAndPortZero) {
  EXPECT_EQ(HostPort::Parse("LocalHost:7400").value(), (HostPort{"localhost", 7400}));
  EXPECT_EQ(HostPort::Parse("127.0.0.1:0").value(), (HostPort{"127.0.0.1", 0}));
  EXPECT_EQ(HostPort::Parse("0.0.0.0:65535").value().ToString(), "0.0.0.0:65535");
  EXPECT_EQ(HostPort::Parse("[::]:1").value(), (HostPort{"::", 1}));
  EXPECT_EQ(HostPort::Parse("[0::1]:7400").value().ToString(), "[::1]:7400");
}

TEST(HostPort, RefusesWithTheRule) {
  const std::pair<std::string, std::string> cases[] = {
      {"", "has no host"},
      {"host", "has no port, as in localhost:7400: `host`"},
      {":7400", "has no host"},
      {"host:", "port is not a number 0-65535"},
      {"host:65536", "port is not a number 0-65535: `host:65536`"},
      {"::1:7400", "an IPv6 host is written in brackets"},
      {"[::1]", "has no port"},
      {"http://host:7400", "has a '/'"},
      {"a@host:7400", "has userinfo"},
      {"host:74 00", "has a space at byte 8"},
      {"300.0.0.1:1", "not an IPv4 address"},
      {"ho!st:1", "label 1 has a '!'"},
      {std::string(70, 'a') + ":1", "label 1 is 70 bytes, at most 63"},
  };
  for (const auto& [text, reason] : cases) {
    const Result<HostPort> parsed = HostPort::Parse(text);
    ASSERT_FALSE(parsed.ok()) << text;
    EXPECT_EQ(parsed.status().code(), Code::kInvalid);
    EXPECT_NE(parsed.status().message().find(reason), std::string::npos)
        << parsed.status().message();
  }
}

TEST(HostPort, KnowsLoopback) {
  for (const char* text :
       {"localhost:1", "127.0.0.1:1", "127.255.0.3:1", "[::1]:1", "[::ffff:127.0.0.1]:1"}) {
    EXPECT_TRUE(HostPort::Parse(text).value().loopback()) << text;
  }
  for (const char* text : {"0.0.0.0:1", "[::]:1", "128.0.0.1:1", "localhost.example:1",
                           "10.127.0.1:1", "[::2]:1", "[::ffff:10.0.0.1]:1"}) {
    EXPECT_FALSE(HostPort::Parse(text).value().loopback()) << text;
  }
}

}  // namespace
}  // namespace datawire
