#include "datawire/wire_export.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "datawire/limits.h"

// The lines of an export, and the calls made of them.

namespace datawire {
namespace {

constexpr char kHeader[] =
    R"({"header":{"format":1,"cluster_id":"c","revision":{"epoch":"1","number":"9"}}})";
constexpr char kOne[] =
    R"({"registration":{"address":"//d/a","endpoint":{"url":"amqp://h:1"},"created":"3"}})";

pb::ExportedRegistration Exported(const std::string& address, const std::string& url,
                                  uint64_t created) {
  pb::ExportedRegistration out;
  out.set_address(address);
  out.mutable_endpoint()->set_url(url);
  out.set_created(created);
  return out;
}

/// What refuses the lines; OK: nothing does.
Status Read(const std::vector<std::string>& lines) {
  ExportReader reader;
  for (const std::string& line : lines)
    if (const auto taken = reader.Take(line); !taken.ok()) return taken.status();
  return reader.Finish();
}

std::string Trailer(int count) {
  return R"({"trailer":{"registrations":")" + std::to_string(count) + R"("}})";
}

TEST(ExportReader, ReadsWhatExportTextWrites) {
  pb::ExportLine line;
  *line.mutable_registration() = Exported("//d/a", "amqp://h:1/node", 3);
  auto& endpoint = *line.mutable_registration()->mutable_endpoint();
  endpoint.set_match(pb::MATCH_SUBTREE);
  endpoint.set_priority(2);
  endpoint.set_weight(0);
  endpoint.set_zone("z");
  (*endpoint.mutable_labels())["k"] = "v";
  std::string text = ExportText(line);
  ASSERT_TRUE(text.ends_with("}\n"));
  EXPECT_EQ(text.find('\n'), text.size() - 1) << "one line";
  text.pop_back();
  ExportReader reader;
  ASSERT_TRUE(reader.Take(kHeader).ok());
  EXPECT_EQ(reader.header().cluster_id(), "c");
  const auto read = reader.Take(text);
  ASSERT_TRUE(read.ok()) << read.status().ToString();
  EXPECT_EQ(read->SerializeAsString(), line.SerializeAsString());
  EXPECT_TRUE(reader.Take(Trailer(1)).ok());
  EXPECT_TRUE(reader.Finish().ok());
}

TEST(ExportReader, AFileThatIsCutOffIsRefused) {
  EXPECT_EQ(Read({}).code(), Code::kInvalid);
  for (const auto& lines : std::vector<std::vector<std::string>>{{kHeader}, {kHeader, kOne}}) {
    const Status status = Read(lines);
    EXPECT_EQ(status.code(), Code::kInvalid);
    EXPECT_NE(status.message().find("cut off after line " + std::to_string(lines.size())),
              std::string::npos)
        << status.message();
  }
  EXPECT_EQ(Read({kHeader, kOne, Trailer(2)}).code(), Code::kInvalid) << "a line is missing";
  EXPECT_TRUE(Read({kHeader, kOne, Trailer(1)}).ok());
}

TEST(ExportReader, AWrongLineIsRefusedWithItsNumber) {
  const std::string bad_address = R"({"registration":{"address":"d/a"}})";
  const std::string bad_url =
      R"({"registration":{"address":"//d/a","endpoint":{"url":"http://h"}}})";
  const std::vector<std::pair<std::vector<std::string>, std::string>> cases = {
      {{kOne}, "line 1 "},
      {{"text"}, "line 1 "},
      {{kHeader, kHeader}, "line 2 "},
      {{kHeader, "{}"}, "line 2 "},
      {{kHeader, R"({"policy":{}})"}, "line 2 "},
      {{kHeader, R"({"policy":{"address":"//d/a","policy":9}})"}, "policy that this program"},
      {{kHeader, R"({"policy":{"address":"//d/a"}})", Trailer(0)}, "0 policies, but there are 1"},
      {{kHeader, bad_address}, "line 2 "},
      {{kHeader, bad_url}, "http"},
      {{kHeader, Trailer(0), kOne}, "after the trailer"},
      {{R"({"header":{"format":1,"revision":{"epoch":"1"}}})"}, "cluster id"},
  };
  for (const auto& [lines, part] : cases) {
    const Status status = Read(lines);
    EXPECT_EQ(status.code(), Code::kInvalid) << part;
    EXPECT_NE(status.message().find(part), std::string::npos) << status.message();
  }
}

TEST(ExportReader, ANewerFormatIsUnsupportedWhateverItsHeaderHolds) {
  const Status status =
      Read({R"({"header":{"format":2,"cluster_id":"c","revision":{"epoch":"1"},"more":1}})"});
  EXPECT_EQ(status.code(), Code::kUnsupported);
  EXPECT_NE(status.message().find("format 2"), std::string::npos) << status.message();
}

/// How many registrations each of the calls has.
std::vector<int> Sizes(const std::vector<pb::ExportedRegistration>& registrations) {
  ExportCalls calls;
  std::vector<int> sizes;
  const auto note = [&](const std::vector<ExportCalls::Call>& full) {
    for (const auto& call : full) {
      sizes.push_back(call.request.registrations_size());
      EXPECT_LE(call.request.ByteSizeLong(), limits::kUnaryBytes);
    }
  };
  for (const auto& registration : registrations) note(calls.Add(registration));
  note(calls.Finish());
  return sizes;
}

TEST(ExportCalls, ACallHoldsAtMostWhatTheDirectoryTakes) {
  std::vector<pb::ExportedRegistration> many;
  for (int i = 0; i < 120; ++i)
    many.push_back(Exported("//d/a" + std::to_string(i), "amqp://h:1", i));
  EXPECT_EQ(Sizes(many), (std::vector<int>{50, 50, 20}));
  EXPECT_EQ(Sizes({}), std::vector<int>());
  for (auto& large : many)
    for (int i = 0; i < 16; ++i)
      (*large.mutable_endpoint()->mutable_labels())[std::to_string(i)] = std::string(120, 'x');
  EXPECT_GT(Sizes(many).size(), 3u) << "each within the bytes of a call";
}

TEST(ExportCalls, TheOlderOfOneAddressIsRegisteredFirst) {
  ExportCalls calls;
  for (const uint64_t created : {7, 3, 5, 3})
    EXPECT_TRUE(
        calls.Add(Exported("//d/a", "amqp://h:" + std::to_string(created), created)).empty());
  std::vector<std::string> order;
  auto all = calls.Add(Exported("//d/b", "amqp://h:1", 1));
  for (auto& call : calls.Finish()) all.push_back(std::move(call));
  for (const auto& call : all) {
    for (const auto& one : call.request.registrations()) order.push_back(one.endpoint().url());
    order.push_back("|");
  }
  EXPECT_EQ(order, (std::vector<std::string>{"amqp://h:3", "amqp://h:3", "|", "amqp://h:5", "|",
                                             "amqp://h:7", "amqp://h:1", "|"}));
}

TEST(ExportCalls, ACallIsOfOneIdentity) {
  ExportCalls calls;
  auto other = Exported("//d/b", "amqp://h:1", 1);
  other.set_identity("spiffe://x/other");
  EXPECT_TRUE(calls.Add(Exported("//d/a", "amqp://h:1", 1)).empty());
  EXPECT_TRUE(calls.Add(other).empty());
  const auto full = calls.Finish();
  ASSERT_EQ(full.size(), 2u);
  EXPECT_EQ(full[0].identity, "");
  EXPECT_EQ(full[1].identity, "spiffe://x/other");
}

}  // namespace
}  // namespace datawire
