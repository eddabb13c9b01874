"""What `cmake --install` leaves under a prefix is enough: for an outside project, for its programs, for systemd."""

import glob
import os
import re
import shlex
import shutil
import subprocess
import unittest

from harness import cases, programs
from harness.etcd import FLAGS, Etcd
from harness.programs import Program, dw

BUILD = os.path.dirname(os.environ["DATAWIRE_BIN"].rstrip("/"))
SOURCE = os.environ["DATAWIRE_SOURCE"]
OUTSIDE = os.path.join(SOURCE, "tests/install/outside")
ANALYZE = shutil.which("systemd-analyze")
PUBLIC = {"address.h", "answer.h", "assert.h", "cache_snapshot.h", "client.h", "clock.h", "endpoint_url.h", "feed.h", "follow_channel.h", "limits.h", "resolver.h", "result.h",
          "revision.h", "selection.h", "stage.h", "state_on_signal.h", "status.h", "tls_files.h"}
# What a public header must not lead to, by any way.
HIDDEN = re.compile(r"/(grpc|grpcpp|google/protobuf|absl|boost|rocksdb|proton/io)/|\.pb\.h$")
MOST_EXPOSURE = 15  # of 100, by systemd-analyze's own measure


def run(*command, deadline=300, cwd=None, env=None):
    """The output of a command that must end with 0."""
    with Program(command[0], *command[1:], cwd=cwd, env=env, label=os.path.basename(command[0])) as program:
        if program.wait(deadline) != 0:
            raise AssertionError(f"{shlex.join(command)}: exit code {program.poll()}\n{program.tail(60)}")
        return program.output() + program.output("stderr")


def cached(name):
    """A variable of the build under test."""
    with open(os.path.join(BUILD, "CMakeCache.txt"), encoding="utf-8") as file:
        return re.search(rf"^{name}:\w+=(.*)$", file.read(), re.M).group(1)


def start_command(unit, binary, **variables):
    """The words of the unit's ExecStart, with variables as systemd puts them in: `${X}` one word, `$X` any number."""
    with open(unit, encoding="utf-8") as file:
        words = re.search(r"^ExecStart=(.+)$", file.read(), re.M).group(1).split()
    result = [binary]
    for word in words[1:]:
        if word.startswith("${"):
            result.append(variables[word[2:-1]])
        else:
            result += variables[word[1:]].split() if word.startswith("$") else [word]
    return result


class InstallTest(cases.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.prefix = programs.scratch("prefix")
        run("/usr/bin/cmake", "--install", BUILD, "--prefix", cls.prefix)
        cls.unit = os.path.join(cls.prefix, "lib/systemd/system/datawire-directory.service")
        cls.server = os.path.join(cls.prefix, "bin/datawire-directory")
        cls.dw = os.path.join(cls.prefix, "bin/dw")

    def installed_unit(self, drop_in=None):
        """A copy of the unit that names the installed server; systemd itself looks in /usr/local/bin and /usr/bin."""
        copy = os.path.join(self.scratch("unit"), "datawire-directory.service")
        copies = {copy: self.unit}
        if drop_in is not None:
            os.mkdir(f"{copy}.d")
            copies[f"{copy}.d/etcd.conf"] = drop_in
        for to, of in copies.items():
            with open(of, encoding="utf-8") as file:
                text = file.read()
            self.assertIn("\nExecStart=datawire-directory ", text)
            with open(to, "w", encoding="utf-8") as file:
                file.write(text.replace("\nExecStart=datawire-directory ", f"\nExecStart={self.server} "))
        return copy

    def test_the_public_headers_are_these_and_show_no_library_but_protons_message(self):
        folder = os.path.join(self.prefix, "include")
        found = glob.glob(f"{folder}/**/*.*", recursive=True)
        self.assertEqual({os.path.relpath(path, folder) for path in found}, {f"datawire/{name}" for name in PUBLIC})
        user = os.path.join(self.scratch(), "all.cc")
        with open(user, "w", encoding="utf-8") as file:
            file.writelines(f"#include <datawire/{name}>\n" for name in sorted(PUBLIC))
        shown = run(cached("CMAKE_CXX_COMPILER"), "-std=c++20", "-I", folder, "-M", user).replace("\\\n", " ").split()
        self.assertIn(os.path.join(folder, "datawire/client.h"), shown)
        self.assertEqual([path for path in shown if HIDDEN.search(path)], [])
        direct = set()
        for path in found:
            with open(path, encoding="utf-8") as file:
                direct |= set(re.findall(r'#\s*include\s*[<"](proton/[^>"]+)', file.read()))
        self.assertEqual(direct, {"proton/message.hpp"})

    def test_an_outside_project_serves_sends_and_resolves_with_the_installed_package_and_programs(self):
        build = self.scratch("outside")
        run("/usr/bin/cmake", "-S", OUTSIDE, "-B", build, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release",
            f"-DCMAKE_PREFIX_PATH={self.prefix}", f"-DCMAKE_CXX_COMPILER={cached('CMAKE_CXX_COMPILER')}")
        run("/usr/bin/cmake", "--build", build)
        for program in ("talk", "look"):  # nothing of the tree is in use by accident
            self.assertNotIn(BUILD, run("/usr/bin/ldd", os.path.join(build, program)))
        with Program(self.server, "--dev", "--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0", label="installed") as server:
            address = server.wait_for_line(r"^ready grpc=(\S+)", 30).group(1)
            where = {"DATAWIRE_DIRECTORY": address}
            self.assertEqual(run(os.path.join(build, "talk"), "//outside/echo", "100", env=where, deadline=120),
                             "100 of 100 accepted, reply echo\n")
            run(self.dw, "--directory", address, "register", "--static", "//outside/fixed", "amqp://127.0.0.1:5/node")
            self.assertEqual(run(os.path.join(build, "look"), "//outside/fixed", env=where, deadline=120),
                             "amqp://127.0.0.1:5/node\n")
            self.assertEqual(server.stop(), 0)

    def test_a_machine_without_proton_is_told_so_by_find_package(self):
        build = self.scratch("outside")
        there = os.path.dirname(cached("PROTON_CPP_LIBRARY"))  # /lib is a link to /usr/lib
        with Program("/usr/bin/cmake", "-S", OUTSIDE, "-B", build, "-G", "Ninja", f"-DCMAKE_PREFIX_PATH={self.prefix}",
                     f"-DCMAKE_IGNORE_PATH={there};{there.removeprefix('/usr')}") as cmake:
            self.assertNotEqual(cmake.wait(120), 0)
            self.assertRegex(" ".join(cmake.output("stderr").split()), r"Could NOT find Proton \(missing: PROTON_CPP_LIBRARY")

    def test_the_units_command_makes_the_data_at_the_first_start_only_and_serves_it_again(self):
        data = os.path.join(self.scratch("state"), "datawire")
        flags = "--listen 127.0.0.1:0 --http-listen 127.0.0.1:0"

        def command(init):
            return start_command(self.unit, self.server, STATE_DIRECTORY=data, DATAWIRE_INIT=init, DATAWIRE_FLAGS=flags)

        os.mkdir(data, 0o700)  # systemd does
        with Program(*command("")) as uninitialised:
            self.assertEqual(uninitialised.wait(30), 1, "a new machine must be initialised on purpose")
        with Program(*command("--init")) as first:
            address = first.wait_for_line(r"^ready grpc=(\S+)", 30).group(1)
            self.assertEqual(dw("register", "--static", "//unit/kept", "amqp://127.0.0.1:5", directory=address).code, 0)
            self.assertEqual(first.stop(), 0)
        with Program(*command("--init")) as again:
            self.assertEqual(again.wait(30), 1, "initialising twice is refused")
        with Program(*command("")) as second:
            address = second.wait_for_line(r"^ready grpc=(\S+)", 30).group(1)
            self.assertEqual(dw("resolve", "//unit/kept", "-o", "short", directory=address).stdout, "amqp://127.0.0.1:5\n")
            self.assertEqual(second.stop(), 0)

    @unittest.skipUnless(ANALYZE, "systemd-analyze is not there")
    def test_systemd_understands_every_line_of_the_unit_and_finds_it_closed(self):
        for unit in (self.installed_unit(), self.installed_unit(os.path.join(self.prefix, "share/datawire/etcd.conf"))):
            said = subprocess.run([ANALYZE, "verify", unit], capture_output=True, text=True, timeout=60, check=False)
            ours = [line for line in (said.stdout + said.stderr).splitlines() if "datawire" in line]
            self.assertEqual((said.returncode, ours), (0, []))  # an unknown key is said, but is no error to it
            run(ANALYZE, "security", "--no-pager", "--offline=true", f"--threshold={MOST_EXPOSURE}", unit)

    @unittest.skipUnless(shutil.which("etcd"), "etcd is not there")
    def test_the_drop_in_and_etcds_flags_make_a_node_of_a_cluster(self):
        with open(os.path.join(self.prefix, "share/datawire/etcd.default"), encoding="utf-8") as file:
            said = dict(line.split("=", 1) for line in file.read().splitlines() if not line.startswith("#"))
        flags, named = shlex.split(said.pop("DAEMON_ARGS").strip('"')), sorted(said)
        self.assertEqual(set(FLAGS) - set(flags), set(), "as the cluster tests run it")
        with Etcd(1, *[flag for flag in flags if flag not in FLAGS]) as etcd:  # it takes them all
            drop_in = os.path.join(self.prefix, "share/datawire/etcd.conf")
            command = start_command(drop_in, self.server, DATAWIRE_ETCD=etcd.endpoints, DATAWIRE_INIT="--init",
                                    STATE_DIRECTORY=os.path.join(self.scratch("state"), "datawire"),
                                    DATAWIRE_FLAGS="--listen 127.0.0.1:0 --http-listen 127.0.0.1:0")
            with Program(*command) as node:
                node.wait_for_line("^ready grpc=", 30)
                self.assertEqual(node.stop(), 0)
        self.assertEqual(named, sorted(f"ETCD_{name}" for name in (
            "NAME", "DATA_DIR", "LISTEN_CLIENT_URLS", "ADVERTISE_CLIENT_URLS", "LISTEN_PEER_URLS",
            "INITIAL_ADVERTISE_PEER_URLS", "INITIAL_CLUSTER", "INITIAL_CLUSTER_TOKEN", "INITIAL_CLUSTER_STATE")))


if __name__ == "__main__":
    cases.main()
