#include "datawire/wire_export.h"

#include <google/protobuf/util/json_util.h>

#include <algorithm>
#include <fstream>

#include "datawire/address.h"
#include "datawire/assert.h"
#include "datawire/limits.h"
#include "datawire/wire.h"

namespace datawire {
namespace {

constexpr size_t kCallBytes = limits::kUnaryBytes * 3 / 4;  // leaves room for what surrounds them

pb::TetherRequest::Registration CallOf(const pb::ExportedRegistration& exported) {
  pb::TetherRequest::Registration out;
  out.set_address(exported.address());
  *out.mutable_endpoint() = exported.endpoint();
  return out;
}

}  // namespace

std::string ExportText(const pb::ExportLine& line) {
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  std::string text;
  const auto status = google::protobuf::util::MessageToJsonString(line, &text, options);
  DW_ASSERT(status.ok());  // all of it is plain ASCII
  return text + "\n";
}

Status ExportReader::Refused(Code code, const std::string& why) const {
  return {code, "line " + std::to_string(lines_) + " " + why};
}

Status ExportReader::TakeHeader(const pb::ExportLine& line) {
  if (!line.has_header()) return Refused(Code::kInvalid, "is not the header of an export");
  header_ = line.header();
  if (header_.format() > kExportFormat)
    return Refused(Code::kUnsupported, "has format " + std::to_string(header_.format()) +
                                           ", this program knows formats up to " +
                                           std::to_string(kExportFormat));
  if (header_.format() == 0 || header_.cluster_id().empty() || header_.revision().epoch() == 0)
    return Refused(Code::kInvalid, "lacks the format, the cluster id or the epoch");
  return {};
}

Status ExportReader::TakeTrailer(const pb::ExportLine::Trailer& trailer) {
  const auto wrong = [&](uint64_t said, uint64_t found, const char* what) {
    return Refused(Code::kInvalid, "says that there are " + std::to_string(said) + " " + what +
                                       ", but there are " + std::to_string(found));
  };
  if (trailer.registrations() != registrations_)
    return wrong(trailer.registrations(), registrations_, "registrations");
  if (trailer.policies() != policies_) return wrong(trailer.policies(), policies_, "policies");
  complete_ = true;
  return {};
}

Status ExportReader::Canonical(pb::ExportLine& line) const {
  std::string& text = line.has_policy() ? *line.mutable_policy()->mutable_address()
                                        : *line.mutable_registration()->mutable_address();
  const auto address = Address::Parse(text);
  if (!address.ok()) return Refused(Code::kInvalid, "is refused: " + address.status().message());
  text = address->text();
  if (line.has_policy()) {
    if (pb::Policy_IsValid(line.policy().policy())) return {};
    return Refused(Code::kInvalid, "has a policy that this program does not know");
  }
  const Status endpoint = Canonicalize(line.mutable_registration()->mutable_endpoint());
  if (!endpoint.ok()) return Refused(Code::kInvalid, "is refused: " + endpoint.message());
  return {};
}

Result<pb::ExportLine> ExportReader::Take(std::string_view text) {
  ++lines_;
  if (complete_) return Refused(Code::kInvalid, "comes after the trailer");
  pb::ExportLine line;
  const auto parsed = google::protobuf::util::JsonStringToMessage(std::string(text), &line);
  // A header of a newer format may have fields that are not known here: its number says so.
  if (!parsed.ok() && lines_ > 1)
    return Refused(Code::kInvalid, "is not a line of an export: " + Shown(text));
  if (lines_ == 1) {
    google::protobuf::util::JsonParseOptions lenient;
    lenient.ignore_unknown_fields = true;
    line.Clear();
    if (!google::protobuf::util::JsonStringToMessage(std::string(text), &line, lenient).ok())
      return Refused(Code::kInvalid, "is not the header of an export");
    DW_RETURN_IF_ERROR(TakeHeader(line));
    return line;
  }
  if (line.has_trailer()) {
    DW_RETURN_IF_ERROR(TakeTrailer(line.trailer()));
    return line;
  }
  if (!line.has_registration() && !line.has_policy())
    return Refused(Code::kInvalid, "is neither a registration nor a policy nor the trailer");
  DW_RETURN_IF_ERROR(Canonical(line));
  ++(line.has_policy() ? policies_ : registrations_);
  return line;
}

Status ExportReader::Finish() const {
  if (lines_ == 0) return {Code::kInvalid, "it is empty, and an export is not"};
  if (!complete_)
    return {Code::kInvalid, "it was cut off after line " + std::to_string(lines_) +
                                ": the trailer with the numbers is missing"};
  return {};
}

Status ReadExportFile(const std::string& path, ExportReader& reader,
                      const std::function<Status(const pb::ExportLine&)>& each) {
  std::ifstream file(path);
  if (!file) return {Code::kInvalid, "file " + Shown(path) + " cannot be read"};
  const auto of_file = [&](const Status& why) {
    return Status(why.code(), "file " + Shown(path) + ": " + why.message());
  };
  for (std::string line; std::getline(file, line);) {
    auto taken = reader.Take(line);
    if (!taken.ok()) return of_file(taken.status());
    if (taken->has_registration() || taken->has_policy()) DW_RETURN_IF_ERROR(each(*taken));
  }
  if (file.bad()) return {Code::kInvalid, "file " + Shown(path) + " cannot be read to its end"};
  if (const Status whole = reader.Finish(); !whole.ok()) return of_file(whole);
  return {};
}

pb::SetPolicyRequest CallOf(const pb::ExportedPolicy& policy) {
  pb::SetPolicyRequest call;
  call.set_address(policy.address());
  call.set_policy(policy.policy());
  return call;
}

bool ExportCalls::Fits(const pb::ExportedRegistration& next) const {
  const auto count = static_cast<size_t>(call_.request.registrations_size());
  if (count == 0) return true;
  if (count >= limits::kCallRegistrations || bytes_ + next.ByteSizeLong() > kCallBytes)
    return false;
  if (next.identity() != call_.identity) return false;
  return next.address() != last_address_ || next.created() == last_created_;
}

void ExportCalls::TakeAddress(std::vector<Call>* full) {
  std::stable_sort(address_.begin(), address_.end(),
                   [](const auto& a, const auto& b) { return a.created() < b.created(); });
  for (const pb::ExportedRegistration& next : std::exchange(address_, {})) {
    if (!Fits(next)) Close(full);
    *call_.request.add_registrations() = CallOf(next);
    call_.identity = next.identity();
    last_address_ = next.address();
    last_created_ = next.created();
    bytes_ += next.ByteSizeLong();
  }
}

void ExportCalls::Close(std::vector<Call>* full) {
  if (!call_.request.registrations().empty()) full->push_back(std::exchange(call_, {}));
  bytes_ = 0;
}

std::vector<ExportCalls::Call> ExportCalls::Add(pb::ExportedRegistration next) {
  std::vector<Call> full;
  if (!address_.empty() && address_.front().address() != next.address()) TakeAddress(&full);
  address_.push_back(std::move(next));
  return full;
}

std::vector<ExportCalls::Call> ExportCalls::Finish() {
  std::vector<Call> full;
  TakeAddress(&full);
  Close(&full);
  return full;
}

}  // namespace datawire
