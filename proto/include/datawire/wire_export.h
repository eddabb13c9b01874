#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "datawire/directory/v1/directory.pb.h"
#include "datawire/result.h"

/// An export as a file: one JSON object a line, first a header (format, cluster id, revision), then
/// the static registrations, then the policies, last a trailer with their numbers. It is written by
/// `dw export` and read by `dw import` and `datawire-directory --import`.
namespace datawire {

namespace pb = ::datawire::directory::v1;

inline constexpr uint32_t kExportFormat = 1;

/// With the line's end.
std::string ExportText(const pb::ExportLine& line);

/// Reads an export line by line, strictly. Thread-compatible.
class ExportReader {
 public:
  /// One line without its end; a registration or policy is checked and canonical then. kInvalid,
  /// kUnsupported: the number of the line and what is wrong with it.
  Result<pb::ExportLine> Take(std::string_view line);
  /// After the last line: kInvalid unless it was the trailer.
  Status Finish() const;
  /// After the first line.
  const pb::ExportLine::Header& header() const { return header_; }
  uint64_t registrations() const { return registrations_; }
  uint64_t policies() const { return policies_; }

 private:
  Status Refused(Code code, const std::string& why) const;
  Status TakeHeader(const pb::ExportLine& line);
  Status TakeTrailer(const pb::ExportLine::Trailer& trailer);
  Status Canonical(pb::ExportLine& line) const;

  pb::ExportLine::Header header_;
  uint64_t lines_ = 0, registrations_ = 0, policies_ = 0;
  bool complete_ = false;
};

/// Reads the whole file; `each` gets its registrations and policies and may stop it. kInvalid,
/// kUnsupported: names the file.
Status ReadExportFile(const std::string& path, ExportReader& reader,
                      const std::function<Status(const pb::ExportLine&)>& each);
/// The call that sets it.
pb::SetPolicyRequest CallOf(const pb::ExportedPolicy& policy);

/// Puts registrations together to Register calls: as many as a call takes, all of one identity.
/// Those of one address are in the order of their age, and in one call only if they are of the
/// same: the older stays the older. Thread-compatible.
class ExportCalls {
 public:
  struct Call {
    pb::RegisterRequest request;
    std::string identity;
  };
  /// By address, as an export has them. Returns the calls that are full.
  std::vector<Call> Add(pb::ExportedRegistration next);
  /// The rest.
  std::vector<Call> Finish();

 private:
  void TakeAddress(std::vector<Call>* full);
  bool Fits(const pb::ExportedRegistration& next) const;
  void Close(std::vector<Call>* full);

  std::vector<pb::ExportedRegistration> address_;  // what came of the latest one
  Call call_;
  std::string last_address_;  // in call_
  uint64_t last_created_ = 0;
  size_t bytes_ = 0;
};

}  // namespace datawire
