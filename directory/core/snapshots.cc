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
  job_.Start<pb::SnapshotResponse>(
      [this, directory]() -> Result<pb::SnapshotResponse> {
        DW_RETURN_IF_ERROR(SaveSnapshot(ground_->view, directory));
        return Response(directory, Depth::kHead, job_.stopping());
      },
      std::move(done));
}

void Snapshots::Verify(const std::string& directory, Done done) {
  job_.Start<pb::SnapshotResponse>(
      [this, directory] { return Response(directory, Depth::kWhole, job_.stopping()); },
      std::move(done));
}

}  // namespace datawire::directory
