#include "engine/ballast.h"

#include <rocksdb/file_system.h>

namespace datawire::directory {

using rocksdb::IOStatus;

Ballast::Ballast(rocksdb::FileSystem& files, std::string path, uint64_t bytes)
    : files_(files), path_(std::move(path)), bytes_(bytes) {
  files_.DeleteFile(path_, {}, nullptr).PermitUncheckedError();
}

void Ballast::Take() {
  if (complete()) return;
  std::unique_ptr<rocksdb::FSWritableFile> file;
  IOStatus status = files_.NewWritableFile(path_, {}, &file, nullptr);
  if (!status.ok()) return;
  status = file->Allocate(0, bytes_, {}, nullptr);
  file->Close({}, nullptr).PermitUncheckedError();
  held_ = status.ok();
  if (held_) return;
  files_.DeleteFile(path_, {}, nullptr).PermitUncheckedError();
  if (!status.IsNoSpace()) bytes_ = 0;
}

void Ballast::Release() {
  if (held_) held_ = !files_.DeleteFile(path_, {}, nullptr).ok();
}

}  // namespace datawire::directory
