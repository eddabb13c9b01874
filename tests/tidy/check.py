#!/usr/bin/env python3
"""What this repository checks about itself, without a compiler: `tests/tidy/check.py [ROOT]`.

One line a finding, `path:line: rule: text`; exit 1 if there is any. tests/README.md tells the rules. The tables below are
the only place where an exception is granted.
"""

import os
import re
import shutil
import subprocess
import sys

TOP_LEVEL = {
    "CMakeLists.txt", "CMakePresets.json", "README.md", "LICENSE", ".clang-format", ".clang-tidy", ".gitignore", ".ci",
    "proto", "directory", "resolver", "client", "tests", "deploy",
}
NEVER_READ = {".git", "build", "__pycache__", "node_modules"}

# Which unit a file belongs to: the first prefix that fits.
UNITS = (
    ("proto/amqp/", "amqp"),
    ("proto/http/", "http"),
    ("proto/tls/", "tls"),
    ("proto/src/wire", "proto"),
    ("proto/include/datawire/wire", "proto"),
    ("proto/datawire/", "proto"),
    ("proto/", "common"),
    ("resolver/", "resolver"),
    ("client/cli/", "dw"),
    ("client/examples/", "examples"),
    ("client/intermediaries/", "intermediaries"),
    ("client/polyglot/", "examples"),
    ("client/", "client"),
    ("directory/", "directory"),
)
# Whom a unit may include. tests/ may include anything.
MAY_INCLUDE = {
    "common": {"common"},
    "proto": {"common", "proto"},
    "amqp": {"common", "amqp"},
    "http": {"common", "http"},
    "tls": {"common", "tls"},
    "resolver": {"common", "proto", "tls", "resolver"},
    "client": {"common", "proto", "tls", "amqp", "resolver", "client"},
    "dw": {"common", "proto", "tls", "amqp", "resolver", "client", "dw"},
    "examples": {"common", "resolver", "client", "examples"},
    "intermediaries": {"common", "http", "resolver", "client", "intermediaries"},
    "directory": {"common", "proto", "http", "tls", "amqp", "directory"},
}
# library, what an include of it looks like, the path prefixes that own it.
OWNED_LIBRARIES = (
    ("gRPC", r"grpcpp/|grpc/|.*\.grpc\.pb\.h$",
     ("directory/grpc/", "directory/engine/etcd/client", "resolver/src/", "client/src/tether", "client/cli/",
      "proto/tls/credentials")),
    ("RocksDB", r"rocksdb/", ("directory/view/", "directory/engine/", "client/intermediaries/")),
    ("Proton", r"proton/", ("proto/amqp/", "client/", "directory/amqp/")),
    ("Asio and Beast", r"boost/(asio|beast)\b", ("proto/amqp/",)),
)
# Public headers show a message and nothing else of Proton.
PUBLIC_PROTON = "proton/message.hpp"

# What reads the system's clock, and who may name it.
CLOCKS = (
    (r"\bsystem_clock\b", ("proto/src/clock.cc",)),
    (r"\bsteady_clock\b", ("proto/src/clock.cc", "proto/amqp/")),  # amqp: the clock type of Asio's timers
    (r"\bhigh_resolution_clock\b", ("proto/src/clock.cc",)),
    (r"\bgettimeofday\b", ("proto/src/clock.cc",)),
    (r"\bclock_gettime\b", ("proto/src/clock.cc",)),
    (r"\btime\s*\(\s*(nullptr|NULL|0)\s*\)", ("proto/src/clock.cc",)),
)
MAX_LINES = {".h": 250, ".cc": 700, "tests/.h": 350}  # a fixture has its bodies in it
MAX_COLUMNS = 100
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX)\b|\b[Pp]laceholders?\b")
SLEEP = re.compile(r"\b(sleep_for|sleep_until|usleep|nanosleep|sleep)\s*\(")
# Flags of dw that take a value and may stand before the verb.
DW_VALUE_FLAGS = {"--directory", "--tls-cert", "--tls-key", "--tls-ca", "--timeout", "--wait", "-o", "--output"}


class Tree:
    """The files of a checkout: what git tracks or would track, or all of a plain folder."""

    def __init__(self, root):
        self.root = os.path.abspath(root)
        self.files = sorted(self._git() or self._walk())
        self._text = {}

    def _git(self):
        if not os.path.exists(os.path.join(self.root, ".git")):
            return None
        listing = subprocess.run(["git", "-C", self.root, "ls-files", "-co", "--exclude-standard", "-z"],
                                 capture_output=True, check=False)
        names = listing.stdout.decode().split("\0") if listing.returncode == 0 else []
        return [name for name in names if name and os.path.isfile(os.path.join(self.root, name))]

    def _walk(self):
        found = []
        for folder, folders, names in os.walk(self.root):
            folders[:] = [f for f in folders if f not in NEVER_READ]
            found += [os.path.relpath(os.path.join(folder, name), self.root) for name in names]
        return found

    def text(self, path):
        """The file's text; empty for what is not text."""
        if path not in self._text:
            with open(os.path.join(self.root, path), "rb") as file:
                raw = file.read()
            self._text[path] = "" if b"\0" in raw else raw.decode("utf-8", "replace")
        return self._text[path]

    def lines(self, path):
        return enumerate(self.text(path).split("\n"), 1)

    def code_lines(self, path):
        """C++ lines with comments blanked, so that prose about a clock is no finding."""
        return enumerate(strip_comments(self.text(path)).split("\n"), 1)

    def sources(self, *suffixes):
        return [path for path in self.files if path.endswith(suffixes)]


def strip_comments(text):
    pattern = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)

    def blank(match):
        found = match.group(0)
        return found if found[0] in "\"'" else re.sub(r"[^\n]", " ", found)

    return pattern.sub(blank, text)


def under(path, prefixes):
    return any(path.startswith(prefix) for prefix in prefixes)


def cmake_text(tree, path):
    """A CMakeLists.txt without comments, its simple foreach loops written out."""
    text = re.sub(r"#[^\n]*", "", tree.text(path))

    def expand(match):
        name, items, body = match.group(1), match.group(2).split(), match.group(3)
        if items[:1] == ["IN"]:
            items = items[2:]
        return "\n".join(body.replace("${%s}" % name, item) for item in items)

    text = re.sub(r"foreach\s*\(\s*(\w+)\s+([^)]*)\)(.*?)endforeach\s*\([^)]*\)", expand, text, flags=re.S)
    return text.replace("${CMAKE_CURRENT_SOURCE_DIR}/", "")


def named_in_cmake(tree, path, only_own_folder=False):
    """Whether a CMakeLists.txt of the file's folder or of one above names it."""
    folder = os.path.dirname(path)
    while True:
        lists = os.path.join(folder, "CMakeLists.txt")
        if lists in tree.files:
            name = re.escape(os.path.relpath(path, folder or "."))
            if re.search(r"(?<![\w./-])%s(?![\w./-])" % name, cmake_text(tree, lists)):
                return True
            if only_own_folder:
                return False
        if not folder:
            return False
        folder = os.path.dirname(folder)


def check_test_known(tree):
    for path in tree.files:
        if path.startswith("tests/") and re.search(r"_test\.(cc|py)$", path):
            if not named_in_cmake(tree, path, only_own_folder=True):
                yield path, 1, "ctest does not know this test: name it in the CMakeLists.txt of its folder"
            elif path.endswith(".py") and not re.search(r"\bmain\(", tree.text(path)):
                yield path, 1, "the script never runs its tests: it ends without main()"


def check_source_in_target(tree):
    for path in tree.sources(".cc", ".proto"):
        if not re.search(r"^tests/.*_test\.cc$", path) and not named_in_cmake(tree, path):
            yield path, 1, "in no target: no CMakeLists.txt on its way up names it"


def includes(tree, path):
    for number, line in tree.code_lines(path):
        match = re.match(r'\s*#\s*include\s*(["<])([^">]+)[">]', line)
        if match:
            yield number, match.group(2)


def unit_of(path):
    return next((unit for prefix, unit in UNITS if path.startswith(prefix)), None)


def units_of_include(by_name, path, spelled):
    """The units an include may mean: our headers whose path ends so, or what protoc makes."""
    if spelled.endswith(".pb.h"):
        return {"proto"} if spelled.startswith("datawire/") else set()
    beside = os.path.normpath(os.path.join(os.path.dirname(path), spelled))
    candidates = by_name.get(os.path.basename(spelled), [])
    if beside in candidates:
        return {unit_of(beside)}
    return {unit_of(c) for c in candidates if c == spelled or c.endswith("/" + spelled)}


def check_direction(tree):
    by_name = {}
    for path in tree.sources(".h", ".hpp"):
        by_name.setdefault(os.path.basename(path), []).append(path)
    for path in tree.sources(".h", ".cc"):
        unit = unit_of(path)
        if unit is None:
            continue
        for number, spelled in includes(tree, path):
            meant = units_of_include(by_name, path, spelled)
            if meant and not meant & MAY_INCLUDE[unit]:
                names = ", ".join(sorted(str(m) for m in meant))
                yield path, number, f"{unit} includes {spelled} of {names}; it may use {', '.join(sorted(MAY_INCLUDE[unit]))}"


def check_owned_library(tree):
    for path in tree.sources(".h", ".cc"):
        if path.startswith("tests/"):
            continue
        for number, spelled in includes(tree, path):
            if "directory/" + spelled in tree.files:  # a room of ours that is named as the library it owns
                continue
            for library, pattern, owners in OWNED_LIBRARIES:
                if re.match(pattern, spelled) and not under(path, owners):
                    yield path, number, f"{spelled}: {library} headers belong to {', '.join(owners)} only"
            if re.match(r"proton/", spelled) and "/include/" in path and spelled != PUBLIC_PROTON:
                yield path, number, f"{spelled}: a public header shows {PUBLIC_PROTON} only"


def check_metrics(tree):
    table, listed = "directory/ops/METRICS.md", {}
    if table in tree.files:
        for number, line in tree.lines(table):
            if line.lstrip().startswith("|"):
                for name in re.findall(r"\bdatawire_[a-z0-9_]+", line.split("|")[1]):
                    listed.setdefault(name, number)
    used = {}
    for path in tree.sources(".cc", ".h"):
        if path.startswith("directory/"):
            for number, line in tree.code_lines(path):
                for name in re.findall(r'"(datawire_[a-z0-9_]+)', line):
                    used.setdefault(name, (path, number))
    for name, (path, number) in used.items():
        if name not in listed:
            yield path, number, f"metric {name} is not in {table}"
    for name, number in listed.items():
        if name not in used:
            yield table, number, f"metric {name} is nowhere in directory/"


def fenced_lines(tree, path):
    """(line number, line, language) of every fenced block."""
    fence, language = None, ""
    for number, line in tree.lines(path):
        mark = re.match(r"\s*(```+|~~~+)\s*(\w*)", line)
        if mark and fence is None:
            fence, language = mark.group(1), mark.group(2)
        elif mark and mark.group(1).startswith(fence):
            fence = None
        elif fence is not None:
            yield number, line, language


def check_readme_commands(tree):
    cli = "".join(tree.text(path) for path in tree.sources(".cc", ".h") if path.startswith("client/cli/"))
    verbs = set(re.findall(r'"([a-z]+)"', strip_comments(cli)))
    for path in tree.files:
        if os.path.basename(path) != "README.md":
            continue
        for number, line, language in fenced_lines(tree, path):
            shell = language in ("", "sh", "bash", "shell", "console")
            for command in re.split(r"&&|\|\||[;|&(]", line):
                words = re.sub(r"^\s*\$\s", "", command).split()
                while words and re.match(r"[A-Z_]+=", words[0]):
                    words = words[1:]
                for position, word in enumerate(words):
                    yield from check_path_word(tree, path, number, word, shell and position == 0)
                if shell and words and (words[0] == "dw" or words[0].endswith("bin/dw")):
                    verb = dw_verb(words[1:])
                    if verb and verb not in verbs:
                        yield path, number, f"dw has no verb {verb}"


def check_path_word(tree, readme, number, word, is_command):
    match = re.match(r"(?:\./)?((?:deploy|tests)/[\w.-]+(?:/[\w.-]+)*)/?$", word)
    if not match:
        return
    target = os.path.join(tree.root, match.group(1))
    if not os.path.exists(target):
        yield readme, number, f"{match.group(1)} does not exist"
    elif is_command and not os.access(target, os.X_OK):
        yield readme, number, f"{match.group(1)} is not executable"


def dw_verb(words):
    words = list(words)
    while words and words[0].startswith("-"):
        words = words[2:] if words[0] in DW_VALUE_FLAGS else words[1:]
    return words[0] if words and re.fullmatch(r"[a-z]+", words[0]) else None


def check_clock(tree):
    for path in tree.sources(".h", ".cc"):
        if path.startswith("tests/"):
            continue
        for number, line in tree.code_lines(path):
            for pattern, owners in CLOCKS:
                match = re.search(pattern, line)
                if match and not under(path, owners):
                    yield path, number, f"{match.group(0)}: only proto/src/clock.cc reads the system's clock; take `now` or a Clock"


def check_top_level(tree):
    seen = set()
    for path in tree.files:
        entry = path.split("/")[0]
        if entry not in TOP_LEVEL and entry not in seen:
            seen.add(entry)
            yield path, 1, f"top-level entry {entry} is not in the plan of the house"


def check_size(tree):
    for path in tree.sources(".h", ".cc"):
        suffix = os.path.splitext(path)[1]
        limit = MAX_LINES[suffix]
        if path.startswith("tests/"):
            limit = MAX_LINES.get("tests/" + suffix, limit)
        length = tree.text(path).count("\n")
        if length > limit:
            yield path, limit + 1, f"{length} lines, at most {limit}"
        for number, line in tree.lines(path):
            if len(line) > MAX_COLUMNS:
                yield path, number, f"{len(line)} columns, at most {MAX_COLUMNS}"


def check_unfinished(tree):
    for path in tree.files:
        if path.startswith("tests/tidy/") or path == "LICENSE":
            continue
        for number, line in tree.lines(path):
            match = UNFINISHED.search(line)
            if match:
                yield path, number, f"{match.group(0)}: a word of unfinished work"


def check_sleep(tree):
    for path in tree.files:
        if path.startswith("tests/unit/") and path.endswith((".cc", ".h", ".py")):
            for number, line in tree.code_lines(path):
                match = SLEEP.search(line)
                if match:
                    yield path, number, f"{match.group(1)}: a unit test waits for a condition, not for time"


def check_format(tree):
    tool = shutil.which("clang-format")
    if tool is None or ".clang-format" not in tree.files:
        return
    paths = tree.sources(".h", ".cc")
    workers = [subprocess.Popen([tool, "--dry-run", "--ferror-limit=1"] + share, cwd=tree.root,
                                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
               for share in (paths[0::2], paths[1::2]) if share]
    seen = set()
    for worker in workers:
        for line in worker.communicate()[1].splitlines():
            match = re.match(r"(.+?):(\d+):\d+: .*clang-format-violations", line)
            if match and match.group(1) not in seen:
                seen.add(match.group(1))
                yield match.group(1), int(match.group(2)), "not as clang-format writes it (first place shown)"


def check_mutations(tree):
    patches = [path for path in tree.files if path.startswith("tests/mutations/") and path.endswith(".patch")]
    outside = dict(os.environ, GIT_CEILING_DIRECTORIES=os.path.dirname(tree.root))
    for path in patches:
        tried = subprocess.run(["git", "apply", "--check", path], cwd=tree.root, env=outside, check=False, capture_output=True,
                               text=True)
        if tried.returncode != 0:
            yield path, 1, "does not apply any more: " + tried.stderr.strip().split("\n")[-1]


RULES = {
    "test-known": check_test_known,
    "source-in-target": check_source_in_target,
    "direction": check_direction,
    "owned-library": check_owned_library,
    "metrics": check_metrics,
    "readme-commands": check_readme_commands,
    "clock": check_clock,
    "top-level": check_top_level,
    "size": check_size,
    "unfinished": check_unfinished,
    "sleep": check_sleep,
    "format": check_format,
    "mutations": check_mutations,
}


def findings(root):
    tree = Tree(root)
    return [(path, line, rule, text) for rule, check in RULES.items() for path, line, text in check(tree)]


def main(arguments):
    here = os.path.dirname(os.path.abspath(__file__))
    root = arguments[0] if arguments else os.path.dirname(os.path.dirname(here))
    if not os.path.isdir(root):
        print(f"check.py: '{root}' is no folder", file=sys.stderr)
        return 1
    found = findings(root)
    for path, line, rule, text in found:
        print(f"{path}:{line}: {rule}: {text}")
    print(f"tidy: {len(Tree(root).files)} files, {len(RULES)} rules, {len(found)} findings", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
