"""Services and senders of the tests, with the marks they leave."""

import collections
import json
import os
import re
import urllib.request

from harness import programs
from harness.programs import Program


class Worker(Program):
    """A service that marks what becomes of each message. `url` once it is registered (ready())."""

    def __init__(self, directory, address, delay_ms=0, ttl_ms=15000, zone="", label="worker"):
        self.marks = os.path.join(programs.scratch(f"marks-{label}"), "marks")
        self.url, self._marked_before = None, 0
        super().__init__("datawire-test-worker", "--directory", at(directory), "--address", address, "--marks", self.marks,
                         "--delay-ms", delay_ms, "--ttl-ms", ttl_ms, "--zone", zone, label=label)

    def start(self):
        self._marked_before = len(lines(self.marks))
        return super().start()

    def unsettled(self):
        """Ids that it received since its last start and has not accepted."""
        since = lines(self.marks)[self._marked_before:]
        return {words[1] for words in since if words[0] == "R"} - {words[1] for words in since if words[0] == "A"}

    def ready(self, deadline=30.0):
        self.url = self.wait_for_line(r"^listening (\S+)$", deadline).group(1)
        self.wait_for_line(r"^registered$", deadline)
        return self

    def marked(self, what):
        """Ids marked R (received), P (processed) or A (accepted), in that order, over all starts."""
        return [words[1] for words in lines(self.marks) if words[0] == what]


class Flow(Program):
    """A sender of `count` messages at `rate` a second. `outcomes()` and, after its end, `sums()`."""

    def __init__(self, directory, address, count, rate=200, zone="", ejection_ms=30_000, size=0, seconds=0, label="flow"):
        self.marks = os.path.join(programs.scratch(f"marks-{label}"), "marks")
        super().__init__("datawire-test-flow", "--directory", at(directory), "--address", address, "--marks", self.marks,
                         "--rate", rate, "--count", count, "--zone", zone, "--ejection-ms", ejection_ms, "--bytes", size,
                         "--seconds", seconds, label=label)

    def outcomes(self):
        """(word, id, ...) of each delivery that ended."""
        return lines(self.marks)

    def peers(self, since=0):
        """How many messages each endpoint accepted, but for the first `since`."""
        return collections.Counter(words[3] for words in self.outcomes()[since:] if words[0] == "accepted")

    def accepted(self):
        return [words[1] for words in self.outcomes() if words[0] == "accepted"]

    def sums(self):
        return json.loads(self.output().splitlines()[-1])


class Intermediary(Program):
    """datawire-queue, -topic or -forward, by its word. `url` once it serves (ready())."""

    def __init__(self, directory, kind, *args, label=None):
        self.url = self._pages = None
        super().__init__(f"datawire-{kind}", *args, "--directory", at(directory), "--http-listen", "127.0.0.1:0",
                         label=label or kind)

    def ready(self, deadline=30.0):
        self.url, self._pages = self.wait_for_line(r"^ready amqp=(\S+) http=(\S+)$", deadline).groups()
        return self

    def metric(self, name):
        """One of its metrics, without the words `datawire_KIND_`."""
        with urllib.request.urlopen(f"http://{self._pages}/metrics", timeout=10) as page:
            text = page.read().decode()
        kind = os.path.basename(self.command()[0]).removeprefix("datawire-")
        return int(float(re.search(rf"^datawire_{kind}_{name} (\S+)$", text, re.M).group(1)))


def at(directory):
    return directory if isinstance(directory, str) else directory.address


def lines(path):
    """The whole lines of a file, split at blanks; none if it is not there yet."""
    if not os.path.exists(path):
        return []
    with open(path, "rb") as file:
        return [line.split() for line in file.read().rpartition(b"\n")[0].decode().split("\n") if line]
