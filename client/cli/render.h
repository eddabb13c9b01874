#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "api.h"
#include "arguments.h"
#include "datawire/answer.h"

namespace datawire::cli {

/// Values as text and JSON. Pure.

/// Columns padded to their widest cell; the first row is the heading.
class Table {
 public:
  explicit Table(std::vector<std::string> heading) { rows_.push_back(std::move(heading)); }
  void Add(std::vector<std::string> row) { rows_.push_back(std::move(row)); }
  std::string Text() const;

 private:
  std::vector<std::vector<std::string>> rows_;
};

nlohmann::ordered_json ToJson(const Revision& revision);
nlohmann::ordered_json ToJson(const Endpoint& endpoint);
/// The documented shape.
nlohmann::ordered_json ToJson(const Answer& answer);
bool IsJson(Format format);
/// `2026-01-31T12:00:00.123Z`; `-` where nobody noted it.
std::string TimeText(int64_t wall_ms);
std::string Hex(std::string_view bytes);
/// `EXPIRED`
std::string ReasonName(pb::Reason reason);
/// One line, without its end.
std::string Line(const nlohmann::ordered_json& value);
/// Over several lines, with its end.
std::string Pretty(const nlohmann::ordered_json& value);

std::string LabelsText(const Endpoint& endpoint);
/// `amqp://... up`
std::string EndpointText(const Endpoint& endpoint);
/// Answers of one resolve in a format.
std::string AnswersText(const std::vector<Answer>& answers, Format format);

/// One address of a list.
struct Listed {
  Address address;
  AnswerStatus status;
  Policy policy;
  Revision modified;
  bool subtree = false;
  uint32_t total = 0;
  std::vector<Endpoint> endpoints;
};
std::string ListText(const std::vector<Listed>& items, Format format);
/// `wide`: with the endpoints of each.
std::string TreeText(const std::vector<Listed>& items, bool wide);

/// Fit for one line of a terminal: newline and tab as \n and \t, other control characters and what
/// is not UTF-8 as \xNN.
std::string Printable(std::string_view text);
/// The body of a message as a line: Printable, but a tab stays one.
std::string PrintableBody(std::string_view text);

}  // namespace datawire::cli
