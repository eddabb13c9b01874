#include "engine/etcd/members.h"

#include <algorithm>
#include <future>

namespace datawire::directory::etcd {
namespace {

// How a status names an alarm of any member: only the alarms themselves tell whose it is.
bool IsAlarm(const std::string& error) {
  return error.find("alarm:") != std::string::npos;
}

MemberSaid Ask(Client& client, size_t member, Client::Most most) {
  MemberSaid out{client.endpoint(member), client.MemberStatus(member, most / 2), {}};
  if (!out.status.ok()) return out;
  const auto& errors = out.status->errors();
  if (std::none_of(errors.begin(), errors.end(), IsAlarm)) return out;
  api::AlarmRequest request;
  request.set_action(api::AlarmRequest::GET);
  if (const auto said = client.Alarm(member, request, most / 2); said.ok())
    out.alarms.assign(said->alarms().begin(), said->alarms().end());
  return out;
}

Log::Member Describe(const MemberSaid& said) {
  Log::Member out;
  out.endpoint = said.endpoint;
  out.reached = said.status.status();
  if (!said.status.ok()) return out;
  const api::StatusResponse& status = *said.status;
  out.leader = status.leader() == status.header().member_id();
  out.version = status.version();
  out.revision = static_cast<uint64_t>(status.header().revision());
  out.db_bytes = static_cast<uint64_t>(status.dbsize());
  out.in_use_bytes = static_cast<uint64_t>(status.dbsizeinuse());
  for (const std::string& error : status.errors())
    if (!IsAlarm(error)) out.reason = error;
  if (status.leader() == 0) out.reason = "it knows of no leader";
  return out;
}

}  // namespace

std::vector<Log::Member> Judge(const std::vector<MemberSaid>& all) {
  std::vector<Log::Member> out;
  for (const MemberSaid& said : all) {
    out.push_back(Describe(said));
    if (!said.status.ok()) continue;
    for (const MemberSaid& teller : all)
      for (const api::AlarmMember& alarm : teller.alarms) {
        if (alarm.memberid() != said.status->header().member_id()) continue;
        if (alarm.alarm() == api::NOSPACE) {
          out.back().no_space = true;
          out.back().reason =
              "its space quota is reached: dw doctor has the commands that make space";
        } else {
          out.back().reason = "its data are corrupt";
        }
      }
  }
  return out;
}

std::vector<Log::Member> AskMembers(Client& client, Client::Most most) {
  std::vector<std::future<MemberSaid>> asked;
  for (size_t member = 0; member < client.members(); ++member)
    asked.push_back(std::async(std::launch::async,
                               [&client, member, most] { return Ask(client, member, most); }));
  std::vector<MemberSaid> all;
  for (auto& one : asked) all.push_back(one.get());
  return Judge(all);
}

}  // namespace datawire::directory::etcd
