#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "datawire/result.h"
#include "datawire/tls_files.h"
#include "engine/etcd/api.pb.h"

namespace datawire::directory::etcd {

namespace api = ::etcdserverpb;

/// The members of one etcd cluster, each with a channel of its own. Calls block to their deadline
/// and go to the one member named; who calls decides what comes next. Codes: kTimeout; kUnavailable
/// (no connection, no leader: it may have been done all the same); kOverloaded (the space quota is
/// reached); kInvalid (too many operations, or bytes, in a transaction; a response above 32 MiB);
/// kAborted (the revision is compacted); kCancelled after Stop. Thread-safe.
class Client {
 public:
  /// `HOST:PORT` each.
  explicit Client(std::vector<std::string> endpoints, const TlsFiles& tls = {});
  ~Client();

  size_t members() const;
  const std::string& endpoint(size_t member) const;

  using Most = std::chrono::milliseconds;
  Result<api::TxnResponse> Txn(size_t member, const api::TxnRequest& request, Most most);
  Result<api::RangeResponse> Range(size_t member, const api::RangeRequest& request, Most most);
  Status Compact(size_t member, uint64_t revision, Most most);
  /// A new lease of so many seconds.
  Result<int64_t> GrantLease(size_t member, int64_t seconds, Most most);
  /// kNotFound: it is gone.
  Status KeepLease(size_t member, int64_t lease, Most most);
  Status RevokeLease(size_t member, int64_t lease, Most most);
  Result<api::StatusResponse> MemberStatus(size_t member, Most most);
  Status Defragment(size_t member, Most most);
  Result<api::AlarmResponse> Alarm(size_t member, const api::AlarmRequest& request, Most most);

  /// One watch. Read blocks; Cancel, from any thread, ends it.
  class Watch {
   public:
    virtual ~Watch() = default;
    /// False: it is over.
    virtual bool Read(api::WatchResponse* response) = 0;
    virtual void Cancel() = 0;
    /// After Read returned false: why.
    virtual Status Finish() = 0;
  };
  std::unique_ptr<Watch> OpenWatch(size_t member, const api::WatchCreateRequest& request);

  /// Ends what is under way and all that comes.
  void Stop();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace datawire::directory::etcd
