// newer_store DIR: makes the format number of a stopped directory's data one that no program knows
// yet.
#include <rocksdb/db.h>

#include <cstdio>

#include "datawire/record/v1/record.pb.h"
#include "view/encoding.h"
#include "view/keys.h"
#include "view/view.h"

namespace datawire::directory {
namespace {

Status MakeNewer(const char* path) {
  DW_ASSIGN(const auto view, View::Open(path));
  DW_ASSIGN(std::optional<Record> record, view->Get(keys::kAuthority));
  record::v1::Authority authority;
  if (!record || !authority.ParseFromString(record->value)) {
    return Status(Code::kCorrupt, "no authority");
  }
  authority.set_format(kFormat + 1);
  record->value = authority.SerializeAsString();
  rocksdb::WriteOptions options;
  options.sync = true;
  const rocksdb::Status put = view->db().Put(options, record->key, EncodeRecord(*record));
  return put.ok() ? Status::Ok() : Status(Code::kUnavailable, put.ToString());
}

}  // namespace
}  // namespace datawire::directory

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  const datawire::Status status = datawire::directory::MakeNewer(argv[1]);
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.message().c_str());
  return status.ok() ? 0 : 1;
}
