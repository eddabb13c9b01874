#pragma once

#include <string>
#include <vector>

namespace datawire::bench {

/// A program beside this one in the build's bin folder, pinned to core 0 (the benchmark itself runs
/// on core 1, see PinSelf). Ended with the object, and with this process.
class Child {
 public:
  /// Starts it and waits for its line `ready grpc=HOST:PORT ...`; aborts with a message if none
  /// comes.
  explicit Child(const std::string& program, std::vector<std::string> args = {});
  ~Child();
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  const std::string& address() const { return address_; }

 private:
  int pid_ = -1;
  std::string address_;
};

/// To core 1, if there is one.
void PinSelf();

/// The middle value, in microseconds; sorts `seconds`.
double MedianMicros(std::vector<double>& seconds);

}  // namespace datawire::bench
