#pragma once

#include <memory>
#include <string>
#include <vector>

#include "datawire/endpoint_health.h"

namespace datawire::scenarios {

/// Picks among the endpoints of one address as a sender does that has links to all of them, none
/// with a message on it. Bound to one thread.
class Chooser {
 public:
  Chooser(const SelectionPolicy& policy, const Locality& own) : health_(policy, own) {}

  void Told(std::shared_ptr<const Answer> answer, BootTime now);
  /// `how`: refused, lost or task; false if it is none of them.
  bool Failed(const std::string& url, const std::string& how, BootTime now);
  void Worked(const std::string& url, BootTime now) { health_.Worked(url, now); }

  struct Part {
    std::string url;
    double percent;
  };
  /// Of 20,000 messages; endpoints that got none are left out.
  std::vector<Part> Picks(BootTime now);
  std::vector<std::string> Ejected(BootTime now) const;

 private:
  EndpointHealth health_;
  std::shared_ptr<const Answer> answer_;
  Random random_{4};
};

/// Sets the knob of that name: `ejection`, `failures`, ...; false if there is none. Times in ms.
bool SetKnob(SelectionPolicy& policy, const std::string& name, double value);

}  // namespace datawire::scenarios
