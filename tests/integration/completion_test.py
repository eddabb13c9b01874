"""`dw completion`: what each shell offers for a line that is being typed, asked of the shell itself."""

import os
import re
import shutil
import unittest

from harness import cases
from harness.programs import Program, binary, dw

# line up to the cursor, what must be offered, what must not
LINES = (
    ("dw res", {"resolve"}, {"register", "--timeout"}),
    ("dw --t", {"--timeout"}, {"--ttl", "resolve"}),
    ("dw -o j", {"json", "jsonl"}, {"table", "resolve"}),
    ("dw resolve //a/b --output sh", {"short"}, {"send"}),
    ("dw --timeout ", set(), {"resolve", "-o"}),
    ("dw resolve --m", {"--max-stale", "--min-revision"}, {"--directory"}),
    ("dw --directory 127.0.0.1:1 reg", {"register"}, {"resolve"}),
    ("dw --wait 1s register //a/b --s", {"--static", "--subtree"}, {"--sessions"}),
    ("dw register --check ", {"tcp", "amqp", "http="}, {"--ttl"}),
    ("dw completion ", {"bash", "zsh", "fish"}, {"resolve"}),
    ("dw register //a/b amqp://h -- s", set(), {"send", "--static"}),
    ("dw snapshot ", {"save", "verify"}, {"resolve"}),
    ("dw cache ", {"show"}, {"resolve"}),
    ("dw bench ", {"fill"}, {"resolve"}),
    ("dw bench fill --k", {"--keep"}, {"--endpoints"}),
    ("dw import --m", {"--merge"}, {"--max-stale"}),
    ("dw send //a/b -- * -", set(), {"--presettled"}),
)
BASH = """source <("$0" completion bash) || exit
read -ra COMP_WORDS <<<"${1//:/ : }"  # as readline cuts it
[[ $1 == *' ' ]] && COMP_WORDS+=('')
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_dw; printf '%s\\n' "${COMPREPLY[@]}"
"""
ZSH = """compdef() { :; }
_files() { print -l -- *(N); }
compadd() { shift; print -l -- "$@"; }
source <("$0" completion zsh) || exit
words=(${=1}); [[ $1 == *' ' ]] && words+=('')
CURRENT=$#words; _dw
"""
FISH = """$argv[1] completion fish | source; complete -C "$argv[2]"
"""
SHELLS = {"bash": ("-c", BASH), "zsh": ("-fc", ZSH), "fish": ("--no-config", "-c", FISH)}


def offered(shell, line, folder=None):
    """The words the shell would show, those that do not begin as typed left out."""
    path = shutil.which(shell)
    with Program(path, *SHELLS[shell], os.path.abspath(binary("dw")), line, label=shell, cwd=folder) as program:
        if program.wait(30) != 0:
            raise AssertionError(program.tail())
        said = program.output()
        if program.output("stderr"):
            raise AssertionError(program.tail())
    typed = line.rpartition(" ")[2]
    return {word.split("\t")[0] for word in said.splitlines() if word.startswith(typed) and word}


class CompletionTest(cases.TestCase):
    def each_line(self, shell):
        if shutil.which(shell) is None:
            self.skipTest(f"{shell} is not there")
        for line, offers, nothing_like in LINES:
            with self.subTest(line):
                found = offered(shell, line)
                self.assertLessEqual(offers, found)
                self.assertEqual(found & nothing_like, set())
                if not offers:
                    self.assertEqual({word for word in found if shell != "fish" or not word.startswith("/")}, set())

    def test_bash_offers_what_fits(self):
        self.each_line("bash")

    def test_zsh_offers_what_fits(self):
        self.each_line("zsh")

    def test_fish_offers_what_fits(self):
        self.each_line("fish")

    def test_a_file_is_offered_where_one_is_meant(self):
        folder = self.scratch()
        with open(os.path.join(folder, "backup.jsonl"), "w", encoding="utf-8"):
            pass
        for shell in ("zsh", "fish"):  # bash falls back to files by itself: complete -o default
            if shutil.which(shell) is not None:
                self.assertIn("backup.jsonl", offered(shell, "dw import ba", folder))
                self.assertNotIn("backup.jsonl", offered(shell, "dw resolve ba", folder))

    def test_every_verb_and_flag_of_the_help_is_offered(self):
        verbs = set(re.findall(r"^  ([a-z]+) ", dw("--help").stdout.partition("Verbs:")[2], re.M))
        self.assertGreaterEqual(len(verbs), 12)
        self.assertLessEqual(verbs, offered("bash", "dw "))
        for verb in sorted(verbs):
            flags = set(re.findall(r"^  (?:-\w,)?(--[a-z-]+)", dw(verb, "--help").stdout, re.M))
            self.assertIn("--help", flags)
            self.assertLessEqual(flags, offered("bash", f"dw {verb} --"), verb)

    def test_another_shell_is_refused_and_no_directory_is_asked(self):
        self.assertEqual(dw("completion", "tcsh"), (1, "", "dw: no completion for `tcsh`; there is bash, zsh, fish\n"))
        self.assertEqual(dw("completion", "fish", directory="127.0.0.1:1").code, 0)


if __name__ == "__main__":
    cases.main()
