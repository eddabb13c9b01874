#include "core/nodes.h"

#include <charconv>
#include <map>

#include "datawire/record/v1/record.pb.h"

namespace datawire::directory {
namespace {

const std::string kAlive = "alive/";

uint64_t NumberOf(const std::string& text) {
  uint64_t number = 0;
  std::from_chars(text.data(), text.data() + text.size(), number);
  return number;
}

bool Fill(const Record& record, KnownNode& node) {
  record::v1::NodeAlive alive;
  if (!alive.ParseFromString(record.value)) return false;
  node.alive = true;
  node.incarnation = alive.incarnation();
  node.address = alive.address();
  node.version = alive.version();
  node.started_wall_ms = alive.started_wall_ms();
  return true;
}

}  // namespace

Result<std::vector<KnownNode>> ReadNodes(const View& view) {
  std::map<std::string, KnownNode> found;
  Status bad;
  const auto node = [&found](const std::string& id) -> KnownNode& {
    KnownNode& out = found[id];
    out.id = id;
    return out;
  };
  DW_RETURN_IF_ERROR(view.Scan(kAlive, "alive0", [&](const Record& record) {
    if (!Fill(record, node(record.key.substr(kAlive.size()))))
      bad = {Code::kCorrupt, "a node's record does not parse"};
    return true;
  }));
  DW_RETURN_IF_ERROR(bad);
  DW_RETURN_IF_ERROR(view.Scan("a/", "a0", [&](const Record& record) {
    node(record.key.substr(2)).applied = NumberOf(record.value);
    return true;
  }));
  for (const char* role : {"reaper", "compactor"}) {
    DW_ASSIGN(const auto record, view.Get(std::string("l/") + role));
    if (!record) continue;
    // `<node> <incarnation>`
    const std::string id = record->value.substr(0, record->value.rfind(' '));
    if (const auto holder = found.find(id); holder != found.end())
      holder->second.roles.emplace_back(role);
  }
  std::vector<KnownNode> out;
  for (auto& [id, one] : found) out.push_back(std::move(one));
  return out;
}

Result<std::optional<KnownNode>> ReadAlive(const View& view, const std::string& id) {
  DW_ASSIGN(const auto record, view.Get(kAlive + id));
  if (!record) return std::optional<KnownNode>();
  KnownNode node;
  node.id = id;
  if (!Fill(*record, node)) return Status(Code::kCorrupt, "a node's record does not parse");
  return std::optional(std::move(node));
}

}  // namespace datawire::directory
