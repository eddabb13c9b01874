#include "render.h"

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <nlohmann/json.hpp>

#include "datawire/utf8.h"

namespace datawire::cli {
namespace {

using Json = nlohmann::ordered_json;

size_t CountUp(const std::vector<Endpoint>& endpoints) {
  return std::count_if(endpoints.begin(), endpoints.end(),
                       [](const Endpoint& e) { return e.state == EndpointState::kUp; });
}

std::string UrlLines(const std::vector<Endpoint>& endpoints) {
  std::string text;
  for (const Endpoint& endpoint : endpoints) text += endpoint.url.text() + "\n";
  return text;
}

std::string AnswerTable(const Answer& answer, bool wide) {
  std::string text = answer.address.text() + "  " + std::string(AnswerStatusName(answer.status)) +
                     "  " + std::string(PolicyName(answer.policy)) + "  revision " +
                     answer.revision.ToString() + "  age " + std::to_string(answer.age.count()) +
                     " ms" + (answer.stale ? "  STALE" : "");
  if (answer.matched && *answer.matched != answer.address)
    text += "  matched " + answer.matched->text();
  text += "\n";
  if (answer.endpoints.empty()) return text;
  std::vector<std::string> heading{"ENDPOINT", "STATE", "PRIORITY", "WEIGHT"};
  if (wide) heading.insert(heading.end(), {"REGION", "ZONE", "STATIC", "LABELS"});
  Table table(heading);
  for (const Endpoint& e : answer.endpoints) {
    std::vector<std::string> row{e.url.text(), std::string(EndpointStateName(e.state)),
                                 std::to_string(e.priority), std::to_string(e.weight)};
    if (wide)
      row.insert(row.end(), {e.region.empty() ? "-" : e.region, e.zone.empty() ? "-" : e.zone,
                             e.is_static ? "yes" : "no", LabelsText(e)});
    table.Add(std::move(row));
  }
  text += table.Text();
  if (answer.total > answer.endpoints.size())
    text += "... " + std::to_string(answer.endpoints.size()) + " of " +
            std::to_string(answer.total) + "\n";
  return text;
}

Json ToJson(const Listed& item) {
  Json endpoints = Json::array();
  for (const Endpoint& e : item.endpoints) endpoints.push_back(cli::ToJson(e));
  return {{"address", item.address.text()},    {"status", AnswerStatusName(item.status)},
          {"policy", PolicyName(item.policy)}, {"modified", cli::ToJson(item.modified)},
          {"subtree", item.subtree},           {"total", item.total},
          {"endpoints", std::move(endpoints)}};
}

// `2 up of 3`.
std::string CountText(const Listed& item) {
  return std::to_string(CountUp(item.endpoints)) + " up of " + std::to_string(item.total);
}

}  // namespace

std::string Table::Text() const {
  std::vector<size_t> widths(rows_.front().size());
  for (const auto& row : rows_)
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  std::string text;
  for (const auto& row : rows_) {
    for (size_t i = 0; i < row.size(); ++i) {
      text += row[i];
      if (i + 1 < row.size()) text.append(widths[i] - row[i].size() + 2, ' ');
    }
    text += "\n";
  }
  return text;
}

Json ToJson(const Revision& revision) {
  return {{"epoch", revision.epoch}, {"number", revision.number}};
}

Json ToJson(const Endpoint& endpoint) {
  Json labels = Json::object();
  for (const auto& [key, value] : endpoint.labels) labels[key] = value;
  Json out = {{"url", endpoint.url.text()},    {"state", EndpointStateName(endpoint.state)},
              {"priority", endpoint.priority}, {"weight", endpoint.weight},
              {"region", endpoint.region},     {"zone", endpoint.zone},
              {"labels", std::move(labels)},   {"static", endpoint.is_static}};
  if (!endpoint.identity.empty()) out["identity"] = endpoint.identity;
  return out;
}

Json ToJson(const Answer& answer) {
  Json endpoints = Json::array();
  for (const Endpoint& endpoint : answer.endpoints) endpoints.push_back(ToJson(endpoint));
  return {{"address", answer.address.text()},
          {"status", AnswerStatusName(answer.status)},
          {"matched", answer.matched ? Json(answer.matched->text()) : Json(nullptr)},
          {"policy", PolicyName(answer.policy)},
          {"revision", ToJson(answer.revision)},
          {"modified", ToJson(answer.modified)},
          {"age_ms", answer.age.count()},
          {"stale", answer.stale},
          {"ttl_ms", answer.ttl.count()},
          {"source", answer.source},
          {"endpoints", std::move(endpoints)}};
}

std::string ReasonName(pb::Reason reason) {
  std::string name = pb::Reason_Name(reason);
  return name.starts_with("REASON_") ? name.substr(7) : name;
}

bool IsJson(Format format) {
  return format == Format::kJson || format == Format::kJsonLines;
}

std::string Line(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string Pretty(const Json& value) {
  return value.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::string LabelsText(const Endpoint& endpoint) {
  std::string text;
  for (const auto& [key, value] : endpoint.labels)
    text += (text.empty() ? "" : ",") + key + "=" + value;
  return text.empty() ? "-" : text;
}

std::string EndpointText(const Endpoint& endpoint) {
  return endpoint.url.text() + " " + std::string(EndpointStateName(endpoint.state));
}

std::string AnswersText(const std::vector<Answer>& answers, Format format) {
  Json array = Json::array();
  std::string text;
  for (const Answer& answer : answers) {
    switch (format) {
      case Format::kTable:
      case Format::kWide:
        text += AnswerTable(answer, format == Format::kWide);
        break;
      case Format::kShort:
        text += UrlLines(answer.endpoints);
        break;
      case Format::kName:
        text += answer.address.text() + "\n";
        break;
      case Format::kJson:
        array.push_back(ToJson(answer));
        break;
      case Format::kJsonLines:
        text += Line(ToJson(answer)) + "\n";
        break;
    }
  }
  if (format == Format::kJson) return Pretty(array.size() == 1 ? array.front() : array);
  return text;
}

std::string ListText(const std::vector<Listed>& items, Format format) {
  std::string text;
  Json array = Json::array();
  Table table({"ADDRESS", "STATUS", "ENDPOINTS", "POLICY"});
  Table wide({"ADDRESS", "STATUS", "ENDPOINTS", "POLICY", "SUBTREE", "MODIFIED"});
  for (const Listed& item : items) {
    const std::string status(AnswerStatusName(item.status)), policy(PolicyName(item.policy));
    switch (format) {
      case Format::kTable:
        table.Add({item.address.text(), status, CountText(item), policy});
        break;
      case Format::kWide:
        wide.Add({item.address.text(), status, CountText(item), policy, item.subtree ? "yes" : "no",
                  item.modified.ToString()});
        break;
      case Format::kShort:
        text += UrlLines(item.endpoints);
        break;
      case Format::kName:
        text += item.address.text() + "\n";
        break;
      case Format::kJson:
        array.push_back(ToJson(item));
        break;
      case Format::kJsonLines:
        text += Line(ToJson(item)) + "\n";
        break;
    }
  }
  if (format == Format::kTable) return table.Text();
  if (format == Format::kWide) return wide.Text();
  return format == Format::kJson ? Pretty(array) : text;
}

std::string TreeText(const std::vector<Listed>& items, bool wide) {
  std::string text;
  const Address* before = nullptr;
  for (const Listed& item : items) {
    // What it shares with the address above is not drawn again.
    size_t shared = 0;
    const bool same_domain = before != nullptr && before->domain() == item.address.domain();
    if (same_domain)
      while (shared < std::min(before->depth(), item.address.depth()) &&
             before->Ancestor(shared + 1) == item.address.Ancestor(shared + 1))
        ++shared;
    for (size_t depth = same_domain ? shared + 1 : 0; depth <= item.address.depth(); ++depth) {
      const Address at = item.address.Ancestor(depth);
      text.append(2 * depth, ' ');
      text += depth == 0 ? at.text() : "/" + std::string(at.Rest(depth - 1));
      if (depth == item.address.depth())
        text += "  " + std::string(AnswerStatusName(item.status)) + "  " + CountText(item) +
                (item.subtree ? "  subtree" : "");
      text += "\n";
      if (!wide || depth != item.address.depth()) continue;
      for (const Endpoint& endpoint : item.endpoints)
        text += std::string(2 * depth + 4, ' ') + EndpointText(endpoint) + "\n";
    }
    before = &item.address;
  }
  return text;
}

namespace {

std::string Escaped(std::string_view text, bool tab_too) {
  std::string out;
  const auto hex = [&out](char c) {
    static constexpr char kDigits[] = "0123456789abcdef";
    const auto byte = static_cast<unsigned char>(c);
    out += {'\\', 'x', kDigits[byte >> 4], kDigits[byte & 15]};
  };
  size_t good = Utf8Prefix(text);
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    if (i == good) {
      hex(text[i]);
      good = i + 1 + Utf8Prefix(text.substr(i + 1));
    } else if (byte == '\n') {
      out += "\\n";
    } else if (byte == '\t') {
      out += tab_too ? "\\t" : "\t";
    } else if (byte == 0xc2 && static_cast<unsigned char>(text[i + 1]) < 0xa0) {
      hex(text[i]);  // U+0080 to U+009F: control characters, too
      hex(text[++i]);
    } else if (byte < 0x20 || byte == 0x7f) {
      hex(text[i]);
    } else {
      out += text[i];
    }
  }
  return out;
}

}  // namespace

std::string Printable(std::string_view text) {
  return Escaped(text, true);
}

std::string PrintableBody(std::string_view text) {
  return Escaped(text, false);
}

std::string TimeText(int64_t wall_ms) {
  if (wall_ms <= 0) return "-";
  const std::time_t seconds = wall_ms / 1000;
  std::tm parts{};
  char text[32];
  if (::gmtime_r(&seconds, &parts) == nullptr) return "-";
  const size_t size = std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &parts);
  char fraction[8];
  std::snprintf(fraction, sizeof fraction, ".%03dZ", static_cast<int>(wall_ms % 1000));
  return std::string(text, size) + fraction;
}

std::string Hex(std::string_view bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string out;
  for (const char c : bytes) {
    out += kDigits[static_cast<unsigned char>(c) >> 4];
    out += kDigits[c & 15];
  }
  return out;
}

}  // namespace datawire::cli
