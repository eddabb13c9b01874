#include "core/list.h"

#include "datawire/wire.h"

namespace datawire::directory {
namespace {

constexpr size_t kReadAtOnce = 100;

}  // namespace

Result<pb::ListResponse> ListVerb::List(const pb::ListRequest& request) {
  DW_ASSIGN(const size_t most, PageSize(request.page_size()));
  std::optional<Address> prefix;
  if (!request.prefix().empty()) {
    DW_ASSIGN(prefix, Address::Parse(request.prefix()));
  }
  const std::string scope = prefix ? prefix->text() : "";
  DW_ASSIGN(HeldSnapshots::Page page, held_.Open(request.page_token(), scope));
  if (page.scope != scope)
    return Status(Code::kInvalid,
                  "the page token belongs to another prefix than " + Shown(request.prefix()));
  std::string next;
  DW_ASSIGN(pb::ListResponse response, Page(*page.snapshot, prefix, page.after, most, &next));
  DW_ASSIGN(*response.mutable_next_page_token(), held_.Keep(std::move(page), next));
  return response;
}

Result<pb::ListResponse> ListVerb::Page(const View::Snapshot& snapshot,
                                        const std::optional<Address>& prefix,
                                        const std::string& after, size_t most, std::string* next) {
  pb::ListResponse response;
  ToWire(snapshot.at(), response.mutable_revision());
  *response.mutable_source() = ground_->source;
  std::string last = after;
  size_t bytes = 0;
  while (true) {
    // One more than fits tells whether there is a next page.
    const size_t want = std::min(kReadAtOnce, most + 1 - response.items_size());
    DW_ASSIGN(const auto items, snapshot.Rows(prefix, last, want));
    for (const auto& item : items) {
      const size_t size = item.address.text().size() + item.row->bytes.size();
      const bool full = static_cast<size_t>(response.items_size()) == most ||
                        (response.items_size() > 0 && bytes + size > limits::kBulkBytes);
      if (full) {
        *next = last;
        return response;
      }
      bytes += size;
      auto* out = response.add_items();
      out->set_address(item.address.text());
      out->set_subtree(item.subtree);
      if (!out->mutable_row()->ParseFromString(item.row->bytes))
        return Status(Code::kCorrupt, "the row of " + item.address.text() + " does not parse");
      last = item.address.Key();
    }
    if (items.size() < want) return response;
  }
}

}  // namespace datawire::directory
