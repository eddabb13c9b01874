"""What clients of a directory were told, kept for the comparison afterwards: the acknowledgements of datawire-test-load, and
the events of watchers."""

import threading
import time

from harness.api import Api, Failed, pb


def revision(text):
    epoch, number = text.split(":")
    return int(epoch), int(number)


class Acknowledged:
    """What the load says, read as it comes. Thread-safe."""

    def __init__(self, path):
        self.present, self.gone = {}, set()  # acknowledged: address -> (kind, url), withdrawn addresses
        self.events = {}  # (address, "+" or "-") -> revision
        self.count, self.sessions, self.done, self.errors = 0, 0, False, []
        self._path, self._position, self._lock = path, 0, threading.Lock()

    def read(self):
        with self._lock:
            return self._read()

    def _read(self):
        with open(self._path, "rb") as file:
            file.seek(self._position)
            whole = file.read().rpartition(b"\n")[0]
        if not whole:
            return self
        self._position += len(whole) + 1
        for line in whole.decode().split("\n"):
            self._take(line.split(" "))
        return self

    def _take(self, words):
        what = words[0]
        if what == "+":
            _, kind, at, address, url = words
            self.present[address] = (kind, url)
            self.events[address, "+"] = revision(at)
        elif what == "?":
            del self.present[words[2]]
        elif what == "-":
            _, kind, at, address = words
            self.gone.add(address)
            self.events[address, "-"] = revision(at)
        elif what == "=":
            self.done = True
        else:
            self.errors.append(" ".join(words))
        if what in "+-":
            self.count += 1
            self.sessions += kind == "session"


class Watcher(threading.Thread):
    """A watcher of everything that resumes where it was when its stream is lost: at the next of `addresses`, if there are
    several. No snapshot after the first. RESYNC is wrong when every node says so, one after the other."""

    def __init__(self, *addresses, silence=60.0):
        super().__init__(daemon=True)
        self.events, self.revisions, self.wrong, self.losses, self.resyncs = [], [], [], 0, 0
        self.told = []  # the same as lines of a history
        self.begun_at = self.at = (0, 0)
        self._addresses, self._silence, self._stopping, self._api = list(addresses), silence, False, None
        self._resyncs_in_a_row = 0
        self._begun = threading.Event()

    def begin(self):
        self.start()
        assert self._begun.wait(10), "the watcher got no snapshot"
        return self

    def end(self):
        self._stopping = True
        self._api.channel.close()
        self.join(10)

    def run(self):
        part, told = [], []
        while not self._stopping:
            after = {"after": pb.Revision(epoch=self.at[0], number=self.at[1])} if self.at[1] else {}
            with Api(self._addresses[0]) as self._api:
                part.clear()  # what came of a revision that was cut comes again
                told.clear()
                try:
                    stream = self._api.watch(**after)
                    while not self._stopping:
                        self._take(stream.receive(self._silence), part, told)
                except (Failed, ValueError, AttributeError, AssertionError):
                    self.losses += 1
                    self._addresses.append(self._addresses.pop(0))
                    time.sleep(0.05)

    def _take(self, message, part, told):
        at, kind = (message.revision.epoch, message.revision.number), message.kind
        if kind == pb.WatchResponse.KIND_SNAPSHOT_END:
            self.begun_at = self.at = at
            self._begun.set()
        elif kind in (pb.WatchResponse.KIND_CHANGES, pb.WatchResponse.KIND_CHANGES_PART):
            part.extend(("-" if event.kind == pb.Event.KIND_GONE else "+", event.address, at)
                        for event in message.events)
            told.extend(f"event {at[0]}:{at[1]} {event.address} "
                        + ("-" if event.kind == pb.Event.KIND_GONE else event.endpoint.labels["value"])
                        for event in message.events)
            if kind == pb.WatchResponse.KIND_CHANGES:
                if at <= self.at:
                    self.wrong.append(f"revision {at} after {self.at}")
                self.events += part
                self.told += told
                self.revisions.append(at)
                part.clear()
                told.clear()
                self.at = at
                self._resyncs_in_a_row = 0
        elif kind == pb.WatchResponse.KIND_PROGRESS:
            if at < self.at:
                self.wrong.append(f"progress to {at} after {self.at}")
            self.at = max(self.at, at)
            self._resyncs_in_a_row = 0
        elif kind == pb.WatchResponse.KIND_RESYNC:
            self.resyncs += 1
            self._resyncs_in_a_row += 1
            if self._resyncs_in_a_row >= len(self._addresses):
                self.wrong.append(f"RESYNC after {self.at}")
            raise ValueError("another node may have what this one has not")
        elif self._begun.is_set():
            self.wrong.append(f"a snapshot after {self.at}")
