#include "datawire/revision.h"

namespace datawire {

std::string Revision::ToString() const {
  return std::to_string(epoch) + ":" + std::to_string(number);
}

}  // namespace datawire
