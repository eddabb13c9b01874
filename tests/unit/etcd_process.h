#pragma once

#include <string>
#include <vector>

namespace datawire::directory {

/// A real etcd of one member, on free ports and a temporary directory of its own; it ends with
/// this object, and with the test's process whatever that does. Thread-compatible.
class EtcdProcess {
 public:
  EtcdProcess();
  ~EtcdProcess();
  EtcdProcess(const EtcdProcess&) = delete;
  EtcdProcess& operator=(const EtcdProcess&) = delete;

  const std::string& endpoint() const { return endpoint_; }
  /// Deletes every key. Its revision goes on.
  void Wipe();
  void Freeze();
  void Thaw();

 private:
  std::string directory_, endpoint_;
  int pid_ = -1;
};

}  // namespace datawire::directory
