#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/ground.h"
#include "datawire/mutex.h"

namespace datawire::directory {

/// The Resolve verb, and the calls that wait for a revision. Thread-safe.
class ResolveVerb : public std::enable_shared_from_this<ResolveVerb> {
 public:
  using Done = std::function<void(Result<std::string>)>;

  explicit ResolveVerb(std::shared_ptr<Ground> ground) : ground_(std::move(ground)) {}

  void Resolve(const pb::ResolveRequest& request, Done done);
  /// The view has reached `at`: answers who waited for it. On the apply thread.
  void OnPublished(Revision at);
  /// kBehind to those whose time is up.
  void Tick(BootTime now);
  void Stop();

 private:
  struct Waiting {
    std::vector<Address> addresses;
    BootTime deadline;
    Done done;
  };
  void AnswerAt(Revision least, std::vector<Address> addresses, Done done);
  Result<std::string> Answer(const std::vector<Address>& addresses);

  std::shared_ptr<Ground> ground_;
  Mutex mu_;
  std::multimap<Revision, Waiting> waiting_ DW_GUARDED_BY(mu_);
  bool stopped_ DW_GUARDED_BY(mu_) = false;
};

}  // namespace datawire::directory
