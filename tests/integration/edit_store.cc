// edit_store DIR: changes one byte of the audit log in a stopped directory's data, and prints the
// revision number it is of.
#include <rocksdb/db.h>

#include <cstdio>
#include <iterator>
#include <vector>

#include "view/audit.h"
#include "view/view.h"

namespace datawire::directory {
namespace {

Result<uint64_t> Edit(const char* path) {
  DW_ASSIGN(const auto view, View::Open(path));
  std::vector<uint64_t> numbers;
  DW_RETURN_IF_ERROR(view->ScanAudit(0, false,
                                     [&](const AuditRevision& revision) {
                                       numbers.push_back(revision.at.number);
                                       return true;
                                     })
                         .status());
  if (numbers.empty()) return Status(Code::kNotFound, "no audit log");
  const uint64_t number = numbers[numbers.size() / 2];
  std::string value;
  rocksdb::Status done = view->db().Get({}, keys::Audit(number), &value);
  if (!done.ok()) return Status(Code::kUnavailable, done.ToString());
  value.back() ^= 1;
  rocksdb::WriteOptions options;
  options.sync = true;
  done = view->db().Put(options, keys::Audit(number), value);
  if (!done.ok()) return Status(Code::kUnavailable, done.ToString());
  return number;
}

}  // namespace
}  // namespace datawire::directory

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  const auto number = datawire::directory::Edit(argv[1]);
  if (!number.ok()) {
    std::fprintf(stderr, "%s\n", number.status().message().c_str());
    return 1;
  }
  std::printf("%llu\n", static_cast<unsigned long long>(*number));
  return 0;
}
