#!/usr/bin/env python3
"""The harness keeps its promises, tried on small shell programs."""

import os
import signal
import subprocess
import sys
import textwrap
import time
import unittest
from unittest import mock

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from harness import cases, programs  # noqa: E402
from harness.programs import Directory, Program, ProgramError, dw, dw_json, eventually  # noqa: E402

FAKE_DIRECTORY = r"""#!/bin/sh
# Says what it was started with, then serves until it is ended.
echo "started $*" >&2
while [ $# -gt 0 ]; do
  case $1 in
    --data) data=$2 ;;
    --init) mkdir "$data" && touch "$data/store" || exit 1 ;;
    --listen) listen=$2 ;;
  esac
  shift
done
[ -f "$data/store" ] || { echo "no store in $data" >&2; exit 1; }
[ "${listen##*:}" != 0 ] || listen=127.0.0.1:41001
sleep 100 &
trap 'kill $!; exit ${STOP_CODE:-0}' TERM  # after it began: else it loses a signal before its exec
echo "ready grpc=$listen http=127.0.0.1:41002"
wait
"""
FAKE_DW = r"""#!/bin/sh
case "$*" in
  *hang*) exec sleep 100 ;;
  *crash*) kill -ABRT $$ ;;
  *text*) echo words; exit 0 ;;
  *missing*) echo '{"status": "NOT_FOUND"}'; echo "not found: $*" >&2; exit 2 ;;
  *env*) echo "{\"directory\": \"$DATAWIRE_DIRECTORY\", \"config\": \"$XDG_CONFIG_HOME\"}" ;;
  *stdin*) read line; echo "{\"line\": \"$line\"}" ;;
  *) echo "{\"args\": \"$*\"}" ;;
esac
"""


def shell(script, *args, **options):
    return Program("/bin/sh", "-c", script, "sh", *args, **options)


def alive(pid):
    """Runs, and is no zombie."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


class HarnessTest(cases.TestCase):
    def setUp(self):
        self.bin = self.scratch("bin")
        for name, text in (("datawire-directory", FAKE_DIRECTORY), ("dw", FAKE_DW)):
            with open(os.path.join(self.bin, name), "w", encoding="utf-8") as file:
                file.write(text)
            os.chmod(os.path.join(self.bin, name), 0o755)
        before = os.environ.get("DATAWIRE_BIN")
        os.environ["DATAWIRE_BIN"] = self.bin
        self.addCleanup(lambda: os.environ.pop("DATAWIRE_BIN") if before is None
                        else os.environ.update(DATAWIRE_BIN=before))

    def test_line_is_found_as_soon_as_it_is_whole(self):
        with shell("printf 'port='; read x < $1; echo 4711; exec sleep 100", self.fifo()) as program:
            with self.assertRaisesRegex(ProgramError, "no line like"):
                program.wait_for_line("port=", 0.1)
            self.release()
            self.assertEqual(program.wait_for_line(r"port=(\d+)").group(1), "4711")

    def test_line_on_stderr_is_found(self):
        with shell("echo out; echo oops >&2; exec sleep 100") as program:
            self.assertEqual(program.wait_for_line("^oops$", stream="stderr").group(0), "oops")

    def test_end_before_the_line_is_told_at_once_with_its_last_words(self):
        with shell("echo 'no such disc' >&2; exit 3") as program:
            start = time.monotonic()
            with self.assertRaisesRegex(ProgramError, "(?s)ended with 3 .*no such disc"):
                program.wait_for_line("ready", 30)
            self.assertLess(time.monotonic() - start, 10)

    def test_exit_code_and_signal_are_told_apart(self):
        with shell("exit 7") as program:
            self.assertEqual(program.wait(), 7)
        with shell("exec sleep 100") as program:
            self.assertIsNone(program.poll())
            with self.assertRaisesRegex(ProgramError, "still runs"):
                program.wait(0.05)
            self.assertEqual(program.stop(), -signal.SIGTERM)

    def test_end_of_the_block_ends_the_whole_group(self):
        with shell("sleep 100 & echo $!; wait") as program:
            child = int(program.wait_for_line(r"^(\d+)$").group(1))
            self.assertTrue(alive(child))
        eventually(lambda: not alive(child), 5)
        self.assertFalse(program.running())

    def test_child_of_a_program_that_ended_first_is_ended_too(self):
        with shell("sleep 100 >/dev/null & echo $!") as program:
            child = int(program.wait_for_line(r"^(\d+)$").group(1))
            self.assertEqual(program.wait(), 0)
            self.assertTrue(alive(child))
        eventually(lambda: not alive(child), 5)

    def test_frozen_program_is_ended(self):
        with shell("exec sleep 100") as program:
            program.sigstop()
            pid = program.pid
        self.assertFalse(alive(pid))

    def test_stopped_program_runs_on_after_sigcont(self):
        with shell("trap 'echo told; exit 0' TERM; echo up; while :; do read x < $1; done", self.fifo()) as program:
            program.wait_for_line("up")
            program.sigstop()
            program.kill(signal.SIGTERM)
            self.assertTrue(program.running())
            program.sigcont()
            self.assertEqual(program.wait(), 0)
            program.wait_for_line("told")

    def test_output_is_that_of_the_last_start(self):
        program = shell("echo $$; exec sleep 100")
        with program:
            first = program.wait_for_line(r"\d+").group(0)
            program.kill9()
            program.start()
            self.assertNotEqual(program.wait_for_line(r"\d+").group(0), first)
            self.assertNotIn(first, program.output().split())
            with self.assertRaisesRegex(ProgramError, "already runs"):
                program.start()

    def test_nothing_survives_a_test_that_is_killed(self):
        script = textwrap.dedent("""
            import sys, threading
            sys.path.insert(0, sys.argv[1])
            from harness.programs import Program
            def start():
                program = Program("/bin/sleep", "100").start()
                print(program.pid, flush=True)
            thread = threading.Thread(target=start)
            thread.start()
            thread.join()
            sys.stdin.read()
        """)
        with subprocess.Popen([sys.executable, "-c", script, os.path.dirname(os.path.dirname(programs.__file__))],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as test:
            pid = int(test.stdout.readline())
            self.assertTrue(alive(pid), "the end of the thread that started it does not end it")
            test.kill()
            eventually(lambda: not alive(pid), 5, "the program dies with its test")

    def test_case_fails_if_a_process_is_left(self):
        class Careless(cases.TestCase):
            def runTest(self):
                self.program = shell("exec sleep 100").start()

        careless, result = Careless(), unittest.TestResult()
        with mock.patch.object(programs, "keep_scratch"), mock.patch("sys.stderr"):
            careless.run(result)
        self.assertEqual(len(result.failures), 1, result)
        self.assertRegex(result.failures[0][1], r"left running: \d+ sleep 100")
        self.assertEqual(careless.program.wait(), -signal.SIGKILL)

    def test_case_lets_what_the_class_started_live(self):
        class Frugal(cases.TestCase):
            def runTest(self):
                pass

        with shell("exec sleep 100") as program:
            result = unittest.TestResult()
            Frugal().run(result)
            self.assertTrue(result.wasSuccessful())
            self.assertTrue(program.running())

    def test_script_without_tests_fails(self):
        script = "import sys; sys.path.insert(0, sys.argv.pop(1)); from harness import cases; cases.main()"
        ended = subprocess.run([sys.executable, "-c", script, os.path.dirname(os.path.dirname(programs.__file__))],
                               capture_output=True, text=True, check=False)
        self.assertEqual(ended.returncode, 1)
        self.assertIn("no test in this script", ended.stderr)

    def test_directory_is_initialised_once_and_keeps_its_port(self):
        with Directory("--dev-flag", node_id="n7") as directory:
            self.assertEqual((directory.address, directory.http), ("127.0.0.1:41001", "127.0.0.1:41002"))
            self.assertRegex(directory.output("stderr"), r"--init --node-id n7 --listen 127.0.0.1:0 .*--dev-flag")
            directory.kill9()
            directory.start_again()
            self.assertNotIn("--init", directory.output("stderr"))
            self.assertIn("--listen 127.0.0.1:41001", directory.output("stderr"))
            directory.restart(keep_port=False)
            self.assertIn("--listen 127.0.0.1:0", directory.output("stderr"))

    def test_directory_that_does_not_get_ready_is_ended(self):
        with self.assertRaisesRegex(ProgramError, "(?s)ended with 1 .*no store"):
            with Directory(data=self.bin):
                self.fail("it is not ready")
        self.assertEqual(programs.leftovers(), {})

    def test_directory_that_stops_badly_fails_its_test(self):
        with self.assertRaisesRegex(ProgramError, "exit code 3 on SIGTERM"):
            with Directory(env={"STOP_CODE": "3"}):
                pass
        with Directory() as directory:
            directory.sigstop()
        self.assertEqual(directory.poll(), 0)

    def test_crash_of_a_program_fails_its_test(self):
        for script, shown in (("kill -SEGV $$", "ended by SIGSEGV"),
                              ("echo 'x.cc:3: runtime error: overflow' >&2", "runtime error: overflow"),
                              ("echo 'WARNING: ThreadSanitizer: data race' >&2", "data race")):
            with self.subTest(script=script):
                with self.assertRaisesRegex(ProgramError, shown):
                    with shell(script) as program:
                        program.wait()
        with self.assertRaisesRegex(ProgramError, "ended by SIGABRT"):
            dw("crash")

    def test_crash_is_not_forgotten_by_a_new_start(self):
        with shell("kill -SEGV $$") as program:
            program.wait()
            with self.assertRaisesRegex(ProgramError, "ended by SIGSEGV"):
                program.start()
            program._process = None  # told once is enough

    def test_dw_returns_code_and_both_streams(self):
        code, stdout, stderr = dw("resolve", "//missing", directory="127.0.0.1:1")
        self.assertEqual((code, stdout), (2, '{"status": "NOT_FOUND"}\n'))
        self.assertEqual(stderr, "not found: --directory 127.0.0.1:1 resolve //missing\n")

    def test_dw_that_hangs_is_ended_at_its_timeout(self):
        with self.assertRaisesRegex(ProgramError, "still running after 0.2 s"):
            dw("hang", timeout=0.2)
        self.assertEqual(programs.leftovers(), {})

    def test_dw_reads_what_it_is_given(self):
        self.assertEqual(dw_json("stdin", stdin="hello\n"), {"line": "hello"})

    def test_dw_json_checks_the_exit_code(self):
        self.assertEqual(dw_json("missing", code=2), {"status": "NOT_FOUND"})
        with self.assertRaisesRegex(ProgramError, r"exit code 2\n(?s:.*)expected 0"):
            dw_json("missing")
        with self.assertRaisesRegex(ProgramError, "not JSON"):
            dw_json("text")

    def test_directory_of_the_developer_is_not_seen(self):
        os.environ["DATAWIRE_DIRECTORY"] = "192.0.2.1:7400"
        self.addCleanup(os.environ.pop, "DATAWIRE_DIRECTORY")
        self.assertEqual(dw_json("env"), {"directory": "", "config": "/nonexistent"})

    def test_eventually_waits_for_truth_and_tells_what_was_missing(self):
        values = iter([0, None, "yes"])
        self.assertEqual(eventually(lambda: next(values)), "yes")
        with self.assertRaisesRegex(AssertionError, "not within 0.05 s: the row appears; last value: 0"):
            eventually(lambda: 0, 0.05, "the row appears")
        with self.assertRaisesRegex(AssertionError, "last error: 1 != 2"):
            eventually(lambda: self.assertEqual(1, 2), 0.05)

    def test_file_system_is_told(self):
        self.assertEqual(programs.filesystem("/proc/self"), "proc")

    def fifo(self):
        self._fifo = os.path.join(self.scratch("fifo"), "gate")
        os.mkfifo(self._fifo)
        return self._fifo

    def release(self):
        with open(self._fifo, "w", encoding="utf-8") as gate:
            gate.write("go\n")


if __name__ == "__main__":
    cases.main()
