#include "queue_store.h"

#include <rocksdb/db.h>
#include <rocksdb/write_batch.h>

#include <filesystem>

namespace datawire::intermediaries {
namespace {

// A key is `q` and the number, big-endian; a value the message as AMQP encodes it. `format` says
// so.
constexpr const char* kFormatKey = "format";
constexpr const char* kFormat = "datawire-queue 1";

std::string KeyOf(uint64_t number) {
  std::string key(9, 'q');
  for (int i = 0; i < 8; ++i)
    key[static_cast<size_t>(8 - i)] = static_cast<char>(number >> (8 * i));
  return key;
}

Status Broken(const char* what, const rocksdb::Status& status) {
  const bool full = status.IsNoSpace() || status.ToString().find("No space") != std::string::npos;
  return {full ? Code::kOverloaded : Code::kUnavailable,
          std::string("the queue's store cannot ") + what + ": " + status.ToString()};
}

}  // namespace

QueueStore::QueueStore(std::unique_ptr<rocksdb::DB> db) : db_(std::move(db)) {}
QueueStore::~QueueStore() = default;

Result<std::unique_ptr<QueueStore>> QueueStore::Open(const std::string& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error)
    return Status(Code::kUnavailable, "cannot make " + Shown(folder) + ": " + error.message());
  rocksdb::Options options;
  options.create_if_missing = true;
  options.paranoid_checks = true;
  options.max_open_files = 256;
  options.write_buffer_size = 16u << 20;
  options.max_total_wal_size = 64u << 20;
  options.keep_log_file_num = 2;
  options.level_compaction_dynamic_level_bytes = true;
  rocksdb::DB* db = nullptr;
  if (const auto status = rocksdb::DB::Open(options, folder, &db); !status.ok())
    return Broken(("open " + Shown(folder)).c_str(), status);
  std::unique_ptr<rocksdb::DB> owned(db);
  std::string format;
  const auto status = owned->Get({}, kFormatKey, &format);
  if (status.IsNotFound()) {
    const std::unique_ptr<rocksdb::Iterator> any(owned->NewIterator({}));
    any->SeekToFirst();
    if (any->Valid())
      return Status(Code::kInvalid, Shown(folder) + " holds something else than a queue");
    rocksdb::WriteOptions synced;
    synced.sync = true;
    if (const auto put = owned->Put(synced, kFormatKey, kFormat); !put.ok())
      return Broken("write", put);
  } else if (!status.ok()) {
    return Broken("read", status);
  } else if (format != kFormat) {
    return Status(Code::kInvalid, Shown(folder) + " is " + Shown(format) + ", this program reads " +
                                      Shown(kFormat));
  }
  return std::unique_ptr<QueueStore>(new QueueStore(std::move(owned)));
}

Status QueueStore::Load(const std::function<void(uint64_t, const std::vector<char>&)>& each) {
  const std::unique_ptr<rocksdb::Iterator> it(db_->NewIterator({}));
  for (it->Seek("q"); it->Valid() && it->key().starts_with("q"); it->Next()) {
    if (it->key().size() != 9)
      return {Code::kCorrupt, "the queue's store has a key that is none of a queue's"};
    uint64_t number = 0;
    for (size_t i = 1; i < 9; ++i) number = number << 8 | static_cast<uint8_t>(it->key().data()[i]);
    each(number, {it->value().data(), it->value().data() + it->value().size()});
  }
  return it->status().ok() ? Status::Ok() : Broken("read", it->status());
}

Status QueueStore::Append(const std::vector<Message>& messages) {
  rocksdb::WriteBatch batch;
  for (const Message& message : messages)
    batch.Put(KeyOf(message.number), {message.encoded.data(), message.encoded.size()});
  rocksdb::WriteOptions synced;
  synced.sync = true;
  auto status = db_->Write(synced, &batch);
  if (status.ok()) return {};
  static_cast<void>(db_->Resume());  // after an error RocksDB takes nothing until it is told to
  return Broken("write", status);
}

Result<std::vector<char>> QueueStore::Get(uint64_t number) {
  std::string value;
  const auto status = db_->Get({}, KeyOf(number), &value);
  if (!status.ok()) return Broken("read", status);
  return std::vector<char>(value.begin(), value.end());
}

Status QueueStore::Remove(const std::vector<uint64_t>& numbers) {
  rocksdb::WriteBatch batch;
  for (const uint64_t number : numbers) batch.Delete(KeyOf(number));
  const auto status = db_->Write({}, &batch);
  if (status.ok()) return {};
  static_cast<void>(db_->Resume());
  return Broken("write", status);
}

}  // namespace datawire::intermediaries
