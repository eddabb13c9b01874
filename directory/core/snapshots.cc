#include "core/snapshots.h"

#include "datawire/wire.h"
#include "view/checkpoint.h"

namespace datawire::directory {
namespace {

Result<pb::SnapshotResponse> Response(const std::string& directory, Depth depth,
                                      const std::atomic<bool>& stop) {
  DW_ASSIGN(const StoreFacts facts, ReadSnapshot(directory, depth, stop));
  pb::SnapshotResponse out;
  out.set_directory(directory);
  out.set_format(facts.format);
  out.set_cluster_id(facts.cluster_id);
  ToWire(facts.at, out.mutable_revision());
  out.set_registrations(facts.registrations);
  out.set_addresses(facts.addresses);
  out.set_sessions(facts.sessions);
  out.set_bytes(facts.bytes);
  return out;
}

}  // namespace

void Snapshots::Save(const std::string& directory, Done done) {
  Start(
      [this, ground = ground_, directory]() -> Result<pb::SnapshotResponse> {
        DW_RETURN_IF_ERROR(SaveSnapshot(ground->view, directory));
        return Response(directory, Depth::kHead, stopping_);
      },
      std::move(done));
}

void Snapshots::Verify(const std::string& directory, Done done) {
  Start([this, directory] { return Response(directory, Depth::kWhole, stopping_); },
        std::move(done));
}

void Snapshots::Start(Job job, Done done) {
  Status refused;
  std::thread former;  // its work is done, at most it is about to say so
  {
    std::lock_guard lock(mu_);
    if (stopping_) {
      refused = {Code::kUnavailable, "the directory is stopping"};
    } else if (busy_) {
      refused = Status(Code::kOverloaded, "another snapshot is being made or verified")
                    .set_retry_after(std::chrono::seconds(1));
    } else {
      busy_ = true;
      former = std::move(thread_);
      thread_ = std::thread([this, job = std::move(job), answer = done] {
        auto result = job();
        {
          std::lock_guard free(mu_);
          busy_ = false;
        }
        answer(std::move(result));
      });
    }
  }
  if (former.joinable()) former.join();
  if (!refused.ok()) done(std::move(refused));
}

void Snapshots::Stop() {
  std::thread last;
  {
    std::lock_guard lock(mu_);
    stopping_ = true;
    last = std::move(thread_);
  }
  if (last.joinable()) last.join();
}

}  // namespace datawire::directory
