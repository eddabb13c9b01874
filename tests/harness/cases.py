"""The base of all integration tests, and their main()."""

import os
import signal
import sys
import unittest

from harness import programs


def _end_leftovers(known=()):
    """Ends what still runs beyond `known`; its text, empty if there was nothing. What is dying may take a moment."""
    def left():
        return {pid: line for pid, line in programs.leftovers().items() if pid not in known}

    try:
        programs.eventually(lambda: not left(), 1.0)
        return ""
    except AssertionError:
        found = left()
    for pid in found:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    return "; ".join(f"{pid} {line}" for pid, line in found.items())


class TestCase(unittest.TestCase):
    """Fails if a process started by the test outlives it; keeps the files of a failed test and tells where.

    What setUpClass started may live on; main() checks that it ends with the class.
    """

    def run(self, result=None):
        result = self.defaultTestResult() if result is None else result
        before = len(result.failures) + len(result.errors)
        # First added, last called: after the clean-ups of setUp and of the test.
        self.addCleanup(self._fail_if_something_is_left, programs.leftovers())
        super().run(result)
        if len(result.failures) + len(result.errors) > before:
            print(f"files of the failed test: {programs.keep_scratch()}", file=sys.stderr)
        return result

    def scratch(self, name="test"):
        """A new empty folder of this test."""
        return programs.scratch(name)

    def one_line(self, result, code, *parts):
        """A dw that ended with `code` and one line on stderr that holds the parts."""
        self.assertEqual(result.code, code, result)
        lines = result.stderr.splitlines()
        self.assertEqual(len(lines), 1, result)
        self.assertTrue(lines[0].startswith("dw: "), result)
        for part in parts:
            self.assertIn(part, lines[0])

    @staticmethod
    def _fail_if_something_is_left(known):
        left = _end_leftovers(known)
        if left:
            raise AssertionError(f"left running: {left}")


def main():
    """Runs the calling script's tests. Fails, too, if it has none or if anything still runs after them."""
    result = unittest.main(module="__main__", verbosity=2, exit=False).result
    left = _end_leftovers()
    if left:
        sys.exit(f"left running by a class: {left}")
    if result.testsRun == 0:
        sys.exit("no test in this script")
    sys.exit(0 if result.wasSuccessful() else 1)
