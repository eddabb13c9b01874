#include "completion.h"

namespace datawire::cli {
namespace {

std::string Joined(const std::vector<std::string>& words, std::string_view between = " ") {
  std::string text;
  for (const std::string& word : words) {
    if (!text.empty()) text += between;
    text += word;
  }
  return text;
}

std::vector<std::string> Spellings(const std::vector<FlagShape>& flags) {
  std::vector<std::string> all;
  for (const FlagShape& flag : flags)
    all.insert(all.end(), flag.spellings.begin(), flag.spellings.end());
  return all;
}

std::vector<std::string> Names(const std::vector<VerbShape>& verbs) {
  std::vector<std::string> names;
  for (const VerbShape& verb : verbs) names.push_back(verb.name);
  return names;
}

/// Both flags of every verb and the verbs' own.
std::vector<FlagShape> AllFlags(const CommandShape& command) {
  std::vector<FlagShape> all = command.flags;
  for (const VerbShape& verb : command.verbs)
    all.insert(all.end(), verb.flags.begin(), verb.flags.end());
  return all;
}

/// A word of its own for any of the three shells.
std::string Quoted(std::string_view text) {
  std::string quoted = "'";
  for (const char c : text)
    if (c == '\'')
      quoted += "'\\''";
    else
      quoted += c;
  return quoted + "'";
}

/// The part that bash and zsh share: from `$before`, the word in front of the cursor, and `$given`,
/// those after `dw`, to the list `$offers`; empty where a value, or a command after --, is typed.
std::string Offers(const CommandShape& command) {
  std::string text = "  case $before in\n", free_values;
  for (const FlagShape& flag : AllFlags(command)) {
    const std::string pattern = Joined(flag.spellings, "|");
    if (!flag.values.empty())
      text += "    " + pattern + ") offers=" + Quoted(Joined(flag.values)) + "; return ;;\n";
    else if (flag.takes_value)
      free_values += (free_values.empty() ? "" : "|") + pattern;
  }
  text += "    " + free_values + ") return ;;\n  esac\n";
  text +=
      "  for one in $given; do\n"
      "    case $one in\n"
      "      --) return ;;\n"
      "      " +
      Joined(Names(command.verbs), "|") +
      ") verb=${verb:-$one} ;;\n"
      "    esac\n"
      "  done\n"
      "  case $verb in\n";
  const std::string common = Joined(Spellings(command.flags)) + " --help";
  text += "    '') offers=" + Quoted(Joined(Names(command.verbs)) + " " + common + " --version") +
          " ;;\n";
  for (const VerbShape& verb : command.verbs) {
    std::vector<std::string> words = verb.choices;
    for (std::string& flag : Spellings(verb.flags)) words.push_back(std::move(flag));
    words.push_back(common);
    text += "    " + verb.name + ") offers=" + Quoted(Joined(words)) + " ;;\n";
  }
  return text + "  esac\n";
}

std::string Bash(const CommandShape& command) {
  return "# dw's completion for bash: source <(dw completion bash)\n"
         "_dw_offers() {\n"
         "  local before=$1 given=$2 one verb=\n" +
         Offers(command) +
         "}\n"
         "_dw() {\n"
         "  local offers= given=${COMP_WORDS[*]:1:COMP_CWORD-1}\n"
         "  set -f\n"
         "  _dw_offers \"${COMP_WORDS[COMP_CWORD-1]}\" \"$given\"\n"
         "  set +f\n"
         "  COMPREPLY=($(compgen -W \"$offers\" -- \"${COMP_WORDS[COMP_CWORD]}\"))\n"
         "}\n"
         "complete -o default -F _dw dw\n";  // with nothing to offer: files
}

// Zsh: where a verb's word is a file.
std::string Files(const CommandShape& command) {
  std::string text;
  for (const VerbShape& verb : command.verbs)
    if (verb.takes_file) text += "  (( ${words[(I)" + verb.name + "]} )) && _files\n";
  return text + "  return 0\n";
}

std::string Zsh(const CommandShape& command) {
  return "#compdef dw\n"
         "# dw's completion for zsh: source <(dw completion zsh), after compinit\n"
         "_dw_offers() {\n"
         "  setopt localoptions shwordsplit noglob\n"
         "  local before=$1 given=$2 one verb=\n" +
         Offers(command) +
         "}\n"
         "_dw() {\n"
         "  local offers=\n"
         "  _dw_offers \"${words[CURRENT-1]}\" \"${words[2,CURRENT-1]}\"\n"
         "  compadd -- ${=offers}\n" +
         Files(command) +
         "}\n"
         "compdef _dw dw\n";
}

std::string FishFlag(const FlagShape& flag, const std::string& condition) {
  std::string text = "complete -c dw" + condition;
  for (const std::string& spelling : flag.spellings)
    text += spelling.starts_with("--") ? " -l " + spelling.substr(2) : " -s " + spelling.substr(1);
  if (flag.takes_value) text += " -x";
  if (!flag.values.empty()) text += " -a " + Quoted(Joined(flag.values));
  return text + " -d " + Quoted(flag.what) + "\n";
}

std::string Fish(const CommandShape& command) {
  // Fish's own test for "no verb yet" takes the value of a flag for one.
  const std::string no_verb =
      " -n 'not __fish_seen_subcommand_from " + Joined(Names(command.verbs)) + "'";
  std::string text =
      "# dw's completion for fish: dw completion fish | source\n"
      "complete -c dw -f\n"
      "complete -c dw" +
      no_verb +
      " -l version -d 'Prints the version'\n"
      "complete -c dw -l help -d 'Shows flags and an example'\n";
  for (const FlagShape& flag : command.flags) text += FishFlag(flag, "");
  for (const VerbShape& verb : command.verbs) {
    text += "complete -c dw" + no_verb + " -a " + verb.name + " -d " + Quoted(verb.what) + "\n";
    const std::string seen = " -n '__fish_seen_subcommand_from " + verb.name + "'";
    for (const FlagShape& flag : verb.flags) text += FishFlag(flag, seen);
    if (verb.takes_file) text += "complete -c dw" + seen + " -F\n";
    if (!verb.choices.empty())
      text += "complete -c dw" + seen + " -a " + Quoted(Joined(verb.choices)) + "\n";
  }
  return text;
}

}  // namespace

Result<std::string> CompletionScript(std::string_view shell, const CommandShape& command) {
  if (shell == "bash") return Bash(command);
  if (shell == "zsh") return Zsh(command);
  if (shell == "fish") return Fish(command);
  return Status(Code::kInvalid, "no completion for " + Shown(shell) + "; there is bash, zsh, fish");
}

}  // namespace datawire::cli
