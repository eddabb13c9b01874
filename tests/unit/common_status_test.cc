#include "datawire/status.h"

#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "datawire/answer.h"
#include "datawire/result.h"

namespace datawire {
namespace {

constexpr int kCodes = 17;

std::vector<CodeMapping> AllRows() {
  std::vector<CodeMapping> rows;
  for (int i = 0; i < kCodes; ++i) rows.push_back(MappingOf(static_cast<Code>(i)));
  return rows;
}

/// Cells of the Markdown rows between the README's error table marks, without backquotes.
std::vector<std::vector<std::string>> ReadmeRows() {
  std::ifstream file(DATAWIRE_SOURCE_DIR "/proto/README.md");
  std::vector<std::vector<std::string>> rows;
  bool inside = false;
  for (std::string line; std::getline(file, line);) {
    if (line == "## Errors")
      inside = true;
    else if (line.starts_with("## "))
      inside = false;
    if (!inside || !line.starts_with("| `")) continue;
    std::vector<std::string> cells;
    std::istringstream stream(line.substr(1));
    for (std::string cell; std::getline(stream, cell, '|');) {
      std::erase(cell, '`');
      const size_t begin = cell.find_first_not_of(' ');
      const size_t end = cell.find_last_not_of(' ');
      cells.push_back(begin == std::string::npos ? "" : cell.substr(begin, end - begin + 1));
    }
    rows.push_back(std::move(cells));
  }
  return rows;
}

TEST(ErrorTable, HasARowForEveryCodeInOrder) {
  for (int i = 0; i < kCodes; ++i) {
    EXPECT_EQ(MappingOf(static_cast<Code>(i)).code, static_cast<Code>(i));
    EXPECT_FALSE(MappingOf(static_cast<Code>(i)).name.empty());
  }
  EXPECT_EQ(static_cast<int>(Code::kInternal), kCodes - 1);
}

TEST(ErrorTable, NamesGrpcCodesAndConditionsAreOneToOne) {
  std::set<std::string_view> names, conditions;
  std::set<int> grpc;
  for (const CodeMapping& row : AllRows()) {
    EXPECT_TRUE(names.insert(row.name).second) << row.name;
    EXPECT_TRUE(conditions.insert(row.amqp_condition).second) << row.name;
    EXPECT_TRUE(grpc.insert(row.grpc).second) << row.name;
    EXPECT_TRUE(row.grpc >= 0 && row.grpc <= 16) << row.name;
  }
}

TEST(ErrorTable, ConditionsAreThoseOfAmqpOrOurs) {
  // AMQP 1.0, part 2, section 2.8.15 (amqp-error).
  const std::set<std::string_view> standard = {
      "amqp:internal-error",          "amqp:not-found",
      "amqp:unauthorized-access",     "amqp:decode-error",
      "amqp:resource-limit-exceeded", "amqp:not-allowed",
      "amqp:invalid-field",           "amqp:not-implemented",
      "amqp:resource-locked",         "amqp:precondition-failed",
      "amqp:resource-deleted",        "amqp:illegal-state",
      "amqp:frame-size-too-small"};
  for (const CodeMapping& row : AllRows()) {
    if (row.code == Code::kOk) {
      EXPECT_EQ(row.amqp_condition, "");
    } else if (!row.amqp_condition.starts_with("datawire:")) {
      EXPECT_TRUE(standard.contains(row.amqp_condition)) << row.amqp_condition;
    }
  }
}

TEST(ErrorTable, GrpcCodesAndExitCodesAreTheDocumentedOnes) {
  const std::map<Code, std::pair<int, int>> wanted = {{Code::kOk, {0, 0}},
                                                      {Code::kInvalid, {3, 1}},
                                                      {Code::kNotFound, {5, 2}},
                                                      {Code::kConflict, {6, 1}},
                                                      {Code::kDenied, {7, 5}},
                                                      {Code::kFenced, {9, 5}},
                                                      {Code::kSessionExpired, {16, 4}},
                                                      {Code::kAborted, {10, 4}},
                                                      {Code::kBehind, {11, 4}},
                                                      {Code::kOverloaded, {8, 4}},
                                                      {Code::kUnavailable, {14, 4}},
                                                      {Code::kTimeout, {4, 6}},
                                                      {Code::kOutcomeUnknown, {2, 8}},
                                                      {Code::kCancelled, {1, 130}},
                                                      {Code::kUnsupported, {12, 4}},
                                                      {Code::kCorrupt, {15, 4}},
                                                      {Code::kInternal, {13, 4}}};
  ASSERT_EQ(wanted.size(), static_cast<size_t>(kCodes));
  for (const auto& [code, numbers] : wanted) {
    EXPECT_EQ(MappingOf(code).grpc, numbers.first) << CodeName(code);
    EXPECT_EQ(MappingOf(code).exit_code, numbers.second) << CodeName(code);
  }
}

TEST(ErrorTable, ComesBackFromTheWireAndUnknownNumbersNeverMeanSuccess) {
  for (const CodeMapping& row : AllRows()) {
    EXPECT_EQ(CodeFromNumber(static_cast<int>(row.code)), row.code);
    EXPECT_EQ(CodeFromGrpc(row.grpc), row.code);
  }
  for (const int unknown : {-1, 17, 1000, -2147483647 - 1}) {
    EXPECT_EQ(CodeFromNumber(unknown), Code::kInternal);
    EXPECT_EQ(CodeFromGrpc(unknown), Code::kUnavailable);
  }
}

TEST(ErrorTable, IsTheOneInTheReadme) {
  static constexpr const char* kGrpcNames[] = {"OK",
                                               "CANCELLED",
                                               "UNKNOWN",
                                               "INVALID_ARGUMENT",
                                               "DEADLINE_EXCEEDED",
                                               "NOT_FOUND",
                                               "ALREADY_EXISTS",
                                               "PERMISSION_DENIED",
                                               "RESOURCE_EXHAUSTED",
                                               "FAILED_PRECONDITION",
                                               "ABORTED",
                                               "OUT_OF_RANGE",
                                               "UNIMPLEMENTED",
                                               "INTERNAL",
                                               "UNAVAILABLE",
                                               "DATA_LOSS",
                                               "UNAUTHENTICATED"};
  const auto rows = ReadmeRows();
  ASSERT_EQ(rows.size(), static_cast<size_t>(kCodes));
  for (int i = 0; i < kCodes; ++i) {
    const CodeMapping& row = MappingOf(static_cast<Code>(i));
    ASSERT_EQ(rows[i].size(), 6u) << row.name;
    EXPECT_EQ(rows[i][0], row.name);
    EXPECT_EQ(rows[i][1], std::to_string(i)) << row.name;
    EXPECT_EQ(rows[i][2], kGrpcNames[row.grpc] + (" " + std::to_string(row.grpc))) << row.name;
    EXPECT_EQ(rows[i][3], row.amqp_condition) << row.name;
    EXPECT_EQ(rows[i][4], std::to_string(row.exit_code)) << row.name;
    EXPECT_FALSE(rows[i][5].empty()) << row.name << " does not say what to do next";
  }
}

TEST(StatusText, IsCodeAndMessageInOneLine) {
  EXPECT_EQ(Status().ToString(), "OK");
  EXPECT_EQ(Status(Code::kNotFound, "no session `x`").ToString(), "NOT_FOUND: no session `x`");
  EXPECT_EQ(Status(Code::kTimeout, "").ToString(), "TIMEOUT");
}

TEST(StatusText, ShowsAnyValueInOneShortPrintableLine) {
  EXPECT_EQ(Shown(""), "``");
  EXPECT_EQ(Shown("//demo"), "`//demo`");
  EXPECT_EQ(Shown(std::string_view("a\0\x1b\xff", 4)), "`a\\x00\\x1b\\xff`");
  EXPECT_EQ(Shown(std::string(64, 'a')), "`" + std::string(64, 'a') + "`");
  EXPECT_EQ(Shown(std::string(50, 'a') + std::string(50, 'b')),
            "`" + std::string(40, 'a') + "..." + std::string(16, 'b') + "`");
  EXPECT_LE(Shown(std::string(1 << 20, '\n')).size(), 256u);
}

TEST(ResultMacros, ReturnTheStatusOrTheValue) {
  const auto half = [](int n) -> Result<int> {
    if (n % 2) return Status(Code::kInvalid, "odd");
    return n / 2;
  };
  const auto quarter = [&](int n) -> Result<int> {
    DW_ASSIGN(const int h, half(n));
    DW_ASSIGN(const int q, half(h));
    return q;
  };
  EXPECT_EQ(quarter(8).value(), 2);
  EXPECT_EQ(quarter(6).status(), Status(Code::kInvalid, "odd"));
  EXPECT_FALSE(quarter(3).ok());
}

TEST(Names, AreTheWordsOfTheOutput) {
  EXPECT_EQ(AnswerStatusName(AnswerStatus::kFound), "FOUND");
  EXPECT_EQ(AnswerStatusName(AnswerStatus::kNoEndpoint), "NO_ENDPOINT");
  EXPECT_EQ(AnswerStatusName(AnswerStatus::kNotFound), "NOT_FOUND");
  EXPECT_EQ(AnswerStatusName(AnswerStatus::kUnavailable), "UNAVAILABLE");
  EXPECT_EQ(EndpointStateName(EndpointState::kUp), "up");
  EXPECT_EQ(EndpointStateName(EndpointState::kDraining), "draining");
  EXPECT_EQ(EndpointStateName(EndpointState::kSuspect), "suspect");
  EXPECT_EQ(PolicyName(Policy::kBalanced), "balanced");
  EXPECT_EQ(PolicyName(Policy::kOrdered), "ordered");
  EXPECT_EQ(PolicyName(Policy::kConsistent), "consistent");
}

}  // namespace
}  // namespace datawire
