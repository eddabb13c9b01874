#pragma once

#include <optional>
#include <vector>

#include "engine/etcd/client.h"
#include "engine/log.h"

namespace datawire::directory::etcd {

/// What a member said of itself, and what it knows to be alarmed. Value.
struct MemberSaid {
  std::string endpoint;
  Result<api::StatusResponse> status;
  std::vector<api::AlarmMember> alarms;
};

/// Pure.
std::vector<Log::Member> Judge(const std::vector<MemberSaid>& all);

/// Asks all members at a time; blocks for `most`.
std::vector<Log::Member> AskMembers(Client& client, Client::Most most);

}  // namespace datawire::directory::etcd
