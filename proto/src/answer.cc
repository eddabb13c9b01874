#include "datawire/answer.h"

#include "datawire/assert.h"

namespace datawire {

std::string_view AnswerStatusName(AnswerStatus status) {
  switch (status) {
    case AnswerStatus::kUnavailable:
      return "UNAVAILABLE";
    case AnswerStatus::kFound:
      return "FOUND";
    case AnswerStatus::kNoEndpoint:
      return "NO_ENDPOINT";
    case AnswerStatus::kNotFound:
      return "NOT_FOUND";
  }
  AssertionFailed(__FILE__, __LINE__, "an AnswerStatus");
}

std::string_view EndpointStateName(EndpointState state) {
  switch (state) {
    case EndpointState::kUp:
      return "up";
    case EndpointState::kDraining:
      return "draining";
    case EndpointState::kSuspect:
      return "suspect";
  }
  AssertionFailed(__FILE__, __LINE__, "an EndpointState");
}

std::string_view PolicyName(Policy policy) {
  switch (policy) {
    case Policy::kBalanced:
      return "balanced";
    case Policy::kOrdered:
      return "ordered";
    case Policy::kConsistent:
      return "consistent";
  }
  AssertionFailed(__FILE__, __LINE__, "a Policy");
}

}  // namespace datawire
