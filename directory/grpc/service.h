#pragma once

#include <memory>
#include <vector>

#include "grpc/streams.h"

namespace datawire::directory {

/// The services of the native API on `shared`: each verb parses, calls the Directory, answers.
std::vector<std::unique_ptr<grpc::Service>> MakeServices(Shared& shared);

}  // namespace datawire::directory
