#!/usr/bin/env python3
"""Each rule of check.py finds its planted violation; a clean tree has none."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

import check

CHECK = os.path.join(os.path.dirname(os.path.abspath(__file__)), "check.py")

CLEAN = {
    "CMakeLists.txt": "add_subdirectory(proto)\n",
    "LICENSE": "text\n",
    ".clang-format": "BasedOnStyle: Google\nColumnLimit: 100\nIncludeBlocks: Preserve\n",
    "README.md": "# A house\n\n```sh\ndeploy/quickstart\ntests/run --all\ndw --directory 127.0.0.1:1 resolve //a/b | head\n```\n",
    "deploy/quickstart": "#!/bin/sh\n",
    "proto/CMakeLists.txt": "add_library(common STATIC src/clock.cc)\nadd_library(p STATIC datawire/v1/d.proto src/wire.cc)\n",
    "proto/include/datawire/clock.h": "#pragma once\n",
    "proto/src/clock.cc": '#include "datawire/clock.h"\n\n#include <time.h>\n\nint Now() { return clock_gettime(0, nullptr); }\n',
    "proto/src/wire.h": "#pragma once\n",
    "proto/src/wire.cc": '#include "wire.h"\n\n#include "datawire/v1/d.pb.h"\n',
    "proto/datawire/v1/d.proto": 'syntax = "proto3";\n',
    "proto/amqp/CMakeLists.txt": "add_library(amqp STATIC driver.cc)\n",
    "proto/amqp/connection.h": "#pragma once\n",
    "proto/amqp/driver.cc":
        '#include <boost/asio.hpp>\n#include <proton/codec/map.hpp>\n\n#include "connection.h"\n\nstd::chrono::steady_clock::duration d;\n',
    "resolver/CMakeLists.txt": "add_library(resolver STATIC src/stream.cc)\n",
    "resolver/include/datawire/resolver.h": '#pragma once\n\n#include "datawire/clock.h"\n',
    "resolver/src/stream.cc": '#include <grpcpp/grpcpp.h>\n\n#include "datawire/resolver.h"\n',
    "client/CMakeLists.txt":
        "add_library(client STATIC src/tether.cc)\nadd_executable(dw cli/main.cc)\n"
        "foreach(name upper printer)\n  add_executable(${name} examples/${name}.cc)\nendforeach()\n",
    "client/include/datawire/client.h": '#pragma once\n\n#include <proton/message.hpp>\n\n#include "datawire/resolver.h"\n',
    "client/src/tether.cc":
        '#include <grpcpp/grpcpp.h>\n#include <proton/sender.hpp>\n\n#include "amqp/connection.h"\n#include "datawire/client.h"\n',
    "client/cli/main.cc": '#include "datawire/client.h"\n\nconst char* kVerbs[] = {"resolve", "register"};\n',
    "client/examples/upper.cc": '#include "datawire/client.h"\n',
    "client/examples/printer.cc": '#include "datawire/client.h"\n',
    "directory/CMakeLists.txt": "add_executable(directory main.cc view/store.cc)\n",
    "directory/main.cc":
        '// No system_clock here.\n#include "datawire/clock.h"\n\nconst char* kName = "datawire_resolves_total";\n',
    "directory/view/store.cc": "#include <rocksdb/db.h>\n",
    "directory/ops/METRICS.md": "| name | what |\n|---|---|\n| `datawire_resolves_total{status}` | resolves |\n",
    "tests/CMakeLists.txt": "add_subdirectory(unit)\n",
    "tests/run": "#!/bin/sh\n",
    "tests/unit/CMakeLists.txt": "datawire_test(common LABEL unit SOURCES clock_test.cc)\n",
    "tests/unit/clock_test.cc": "#include <rocksdb/db.h>\n\nstd::chrono::steady_clock::time_point t;\n",
    "tests/integration/CMakeLists.txt": "datawire_python_test(story LABEL integration SCRIPT story_test.py)\n",
    "tests/integration/story_test.py": "import time\nimport unittest\n\ntime.sleep(0)\nunittest.main()\n",
}
PROGRAMS = ("deploy/quickstart", "tests/run")


class CheckTest(unittest.TestCase):
    def setUp(self):
        self.root = tempfile.mkdtemp(prefix="tidy-")
        self.addCleanup(shutil.rmtree, self.root)
        for path, text in CLEAN.items():
            self.write(path, text)
        for path in PROGRAMS:
            os.chmod(os.path.join(self.root, path), 0o755)

    def write(self, path, text):
        full = os.path.join(self.root, path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "w", encoding="utf-8") as file:
            file.write(text)

    def add(self, path, text):
        self.write(path, CLEAN.get(path, "") + text)

    @contextlib.contextmanager
    def planted(self, path, text):
        """One case of several: `text` at the end of `path` until the end of the block."""
        with self.subTest(path=path, text=text):
            self.add(path, text)
            try:
                yield
            finally:
                self.write(path, CLEAN[path])

    def finds(self, rule, path, text, line=None):
        """Exactly this one finding; how the planted text is laid out is only the format rule's matter."""
        found = [f for f in check.findings(self.root) if f[2] == rule or f[2] != "format"]
        self.assertEqual([(f[0], f[2]) for f in found], [(path, rule)], found)
        self.assertIn(text, found[0][3])
        if line is not None:
            self.assertEqual(found[0][1], line)

    def test_clean_tree_has_no_findings(self):
        self.assertEqual(check.findings(self.root), [])

    def test_program_prints_one_line_a_finding_and_exits_1(self):
        clean = subprocess.run([sys.executable, CHECK, self.root], capture_output=True, text=True, check=False)
        self.assertEqual((clean.returncode, clean.stdout), (0, ""))
        self.write("notes.txt", "x\n")
        dirty = subprocess.run([sys.executable, CHECK, self.root], capture_output=True, text=True, check=False)
        self.assertEqual(dirty.returncode, 1)
        self.assertRegex(dirty.stdout, r"^notes\.txt:1: top-level: [^\n]+\n$")

    def test_unregistered_cpp_test_is_found(self):
        self.write("tests/unit/lost_clock_test.cc", "int x;\n")
        self.finds("test-known", "tests/unit/lost_clock_test.cc", "ctest does not know")

    def test_name_that_only_ends_like_a_registered_one_is_found(self):
        self.write("tests/unit/CMakeLists.txt", "datawire_test(c LABEL unit SOURCES wall_clock_test.cc clock_test.cc)\n")
        self.write("tests/unit/wall_clock_test.cc", "int x;\n")
        self.assertEqual(check.findings(self.root), [])
        self.write("tests/unit/CMakeLists.txt", "datawire_test(c LABEL unit SOURCES wall_clock_test.cc)\n")
        self.finds("test-known", "tests/unit/clock_test.cc", "ctest does not know")

    def test_commented_out_registration_is_found(self):
        self.write("tests/integration/CMakeLists.txt", "# datawire_python_test(s SCRIPT story_test.py)\n")
        self.finds("test-known", "tests/integration/story_test.py", "ctest does not know")

    def test_script_that_runs_no_test_is_found(self):
        self.write("tests/integration/story_test.py", "import unittest\n")
        self.finds("test-known", "tests/integration/story_test.py", "never runs")

    def test_source_in_no_target_is_found(self):
        self.write("directory/core/verbs.cc", "int x;\n")
        self.finds("source-in-target", "directory/core/verbs.cc", "in no target")

    def test_source_missing_in_a_loop_is_found(self):
        self.write("client/examples/sender.cc", "int x;\n")
        self.finds("source-in-target", "client/examples/sender.cc", "in no target")

    def test_include_against_the_direction_is_found(self):
        for path, include, unit in (
                ("proto/include/datawire/clock.h", "datawire/resolver.h", "resolver"),
                ("proto/src/clock.cc", "datawire/v1/d.pb.h", "proto"),
                ("proto/amqp/connection.h", "datawire/v1/d.pb.h", "proto"),
                ("resolver/include/datawire/resolver.h", "datawire/client.h", "client"),
                ("resolver/src/stream.cc", "amqp/connection.h", "amqp"),
                ("directory/view/store.cc", "datawire/client.h", "client"),
                ("directory/main.cc", "datawire/resolver.h", "resolver"),
                ("client/examples/upper.cc", "wire.h", "proto")):
            with self.planted(path, f'#include "{include}"\n'):
                self.finds("direction", path, f"{include} of {unit}")

    def test_library_header_outside_its_owners_is_found(self):
        for path, include, library in (
                ("directory/main.cc", "grpcpp/grpcpp.h", "gRPC"),
                ("directory/view/store.cc", "datawire/v1/d.grpc.pb.h", "gRPC"),
                ("client/include/datawire/client.h", "grpcpp/channel.h", "gRPC"),
                ("directory/main.cc", "rocksdb/db.h", "RocksDB"),
                ("resolver/src/stream.cc", "proton/message.hpp", "Proton"),
                ("directory/main.cc", "proton/types.h", "Proton"),
                ("client/src/tether.cc", "boost/asio/io_context.hpp", "Asio"),
                ("directory/main.cc", "boost/beast/http.hpp", "Asio")):
            with self.planted(path, f"#include <{include}>\n"):
                self.finds("owned-library", path, f"{include}: {library}")

    def test_more_of_proton_than_a_message_in_a_public_header_is_found(self):
        self.write("client/include/datawire/client.h", "#pragma once\n\n#include <proton/sender.hpp>\n")
        self.finds("owned-library", "client/include/datawire/client.h", "public header", 3)

    def test_metric_missing_in_the_table_is_found(self):
        self.add("directory/main.cc", 'const char* kMore = "datawire_sessions";\n')
        self.finds("metrics", "directory/main.cc", "datawire_sessions", 5)

    def test_metric_missing_in_the_code_is_found(self):
        self.add("directory/ops/METRICS.md", "| `datawire_gone_total` | nothing |\n")
        self.finds("metrics", "directory/ops/METRICS.md", "datawire_gone_total", 4)

    def test_readme_command_that_does_not_exist_is_found(self):
        self.write("deploy/README.md", "```\n$ X=1 ./deploy/quick --now\n```\n")
        self.finds("readme-commands", "deploy/README.md", "deploy/quick does not exist", 2)

    def test_readme_command_that_cannot_run_is_found(self):
        os.chmod(os.path.join(self.root, "tests/run"), 0o644)
        self.finds("readme-commands", "README.md", "not executable", 5)

    def test_readme_verb_that_dw_lacks_is_found(self):
        self.add("README.md", "```sh\necho x | build/dev/bin/dw -o json explode //a/b\n```\n")
        self.finds("readme-commands", "README.md", "no verb explode", 9)

    def test_prose_is_no_command(self):
        self.add("README.md", "Some day deploy/rocket and `dw fly`.\n\n```json\ndw fly\n```\n")
        self.assertEqual(check.findings(self.root), [])

    def test_reading_the_clock_elsewhere_is_found(self):
        for path, use in (("directory/main.cc", "std::chrono::system_clock::time_point t;"),
                          ("directory/main.cc", "std::chrono::steady_clock::time_point t;"),
                          ("proto/amqp/driver.cc", "std::chrono::high_resolution_clock::time_point t;"),
                          ("proto/amqp/connection.h", "std::chrono::system_clock::time_point t;"),
                          ("resolver/src/stream.cc", "int t = gettimeofday(nullptr, nullptr);"),
                          ("client/src/tether.cc", "auto t = time(nullptr);"),
                          ("client/cli/main.cc", "auto t = clock_gettime(0, nullptr);")):
            with self.planted(path, use + "\n"):
                self.finds("clock", path, "clock")

    def test_unplanned_top_level_entry_is_found(self):
        self.write("scripts/a.sh", "x\n")
        self.write("scripts/b.sh", "x\n")
        self.finds("top-level", "scripts/a.sh", "scripts")

    def test_long_header_is_found(self):
        self.write("proto/src/wire.h", "#pragma once\n" + "int a();\n" * 250)
        self.finds("size", "proto/src/wire.h", "251 lines", 251)

    def test_long_source_is_found(self):
        self.write("directory/view/store.cc", "int a();\n" * 701)
        self.finds("size", "directory/view/store.cc", "701 lines", 701)

    def test_wide_line_is_found(self):
        self.add("proto/src/wire.h", "// " + "x" * 98 + "\n")
        self.finds("size", "proto/src/wire.h", "101 columns", 2)

    def test_words_of_unfinished_work_are_found(self):
        for word in ("TO" "DO", "FIX" "ME", "X" "XX", "place" "holder", "Place" "holder"):
            with self.subTest(word=word):
                self.write("deploy/README.md", f"a\nthis is a {word}: later\n")
                self.finds("unfinished", "deploy/README.md", word, 2)
        self.write("deploy/README.md", "mktemp /x/d.XXXXXX\n")
        self.assertEqual(check.findings(self.root), [])

    def test_sleep_in_a_unit_test_is_found(self):
        for call in ("std::this_thread::sleep_for(x)", "usleep(3)", "time.sleep(1)", "sleep(1)"):
            with self.planted("tests/unit/clock_test.cc", f"auto y = {call};\n"):
                self.finds("sleep", "tests/unit/clock_test.cc", "not for time", 4)

    @unittest.skipUnless(shutil.which("clang-format"), "clang-format is not installed")
    def test_formatting_that_differs_is_found(self):
        self.add("directory/view/store.cc", "\nint   a( );\n")
        self.finds("format", "directory/view/store.cc", "clang-format", 3)

    def test_mutation_that_applies_no_more_is_found(self):
        patch = "What is taken out\n\n--- a/proto/src/wire.h\n+++ b/proto/src/wire.h\n@@ -1 +1 @@\n-#pragma %s\n+#pragma\n"
        self.write("tests/mutations/good.patch", patch % "once")
        self.assertEqual(check.findings(self.root), [])
        self.write("tests/mutations/bad.patch", patch % "twice")
        self.finds("mutations", "tests/mutations/bad.patch", "does not apply")

    def test_every_rule_can_be_seen_red(self):
        """A rule that always answers 'nothing' turns at least one test of this file red."""
        with open(__file__, encoding="utf-8") as file:
            own = file.read()
        for rule in check.RULES:
            self.assertRegex(own, r'(finds\(|== )"%s"' % rule, f"rule {rule} has no planted violation")


if __name__ == "__main__":
    unittest.main(verbosity=2)
