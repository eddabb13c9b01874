#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "datawire/result.h"

namespace datawire::cli {

/// A flag as the shell is told of it. Value.
struct FlagShape {
  std::vector<std::string> spellings;  ///< `-o`, `--output`
  std::string what;
  bool takes_value = false;
  std::vector<std::string> values;  ///< the only ones there are, if they are few
};
struct VerbShape {
  std::string name, what;
  std::vector<FlagShape> flags;      ///< its own, without those of every verb
  std::vector<std::string> choices;  ///< what its first word may be, if that is known
  bool takes_file = false;           ///< its word is a file of this machine
};
/// All that can be typed after `dw`, apart from addresses and values.
struct CommandShape {
  std::vector<VerbShape> verbs;
  std::vector<FlagShape> flags;  ///< of every verb
};

inline constexpr std::string_view kShells[] = {"bash", "zsh", "fish"};

/// A script that teaches the shell to complete `dw`. Complete in itself: it starts no dw. kInvalid
/// for another shell.
Result<std::string> CompletionScript(std::string_view shell, const CommandShape& command);

}  // namespace datawire::cli
