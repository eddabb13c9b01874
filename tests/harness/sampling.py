"""Answers over time: what every look at an address said, with the moment of the look."""

import threading
import time

from harness.api import Api, Failed, pb

_STATES = {pb.ENDPOINT_STATE_UP: "up", pb.ENDPOINT_STATE_DRAINING: "draining", pb.ENDPOINT_STATE_SUSPECT: "suspect"}


def states(answer):
    """{url: state} of an answer."""
    return {endpoint.url: _STATES[endpoint.state] for endpoint in answer.row.endpoints}


class Sampler(threading.Thread):
    """Resolves addresses over and over, until the `with` block ends. `samples`: (moment, {address: {url: state}}),
    None in place of the answers when there was none."""

    def __init__(self, directory, addresses, period=0.05):
        super().__init__(daemon=True)
        self.samples = []
        self._directory, self._addresses, self._period = directory, list(addresses), period
        self._end = threading.Event()
        self.begun = time.monotonic()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self._end.set()
        self.join(30)

    def run(self):
        with Api(self._directory) as api:
            while not self._end.wait(self._period):
                try:
                    answers = api.resolve(*self._addresses, timeout=2.0).answers
                    shown = {address: states(answer) for address, answer in zip(self._addresses, answers)}
                except Failed:
                    shown = None
                self.samples.append((time.monotonic(), shown))

    def last(self, address):
        """The latest answer."""
        return next((shown[address] for _, shown in reversed(self.samples) if shown), {})

    def first(self, address, url, wanted, since):
        """Seconds from `since` to the first look after it at which the endpoint was `wanted` (None: not listed)."""
        for moment, shown in list(self.samples):
            if moment >= since and shown is not None and shown[address].get(url) == wanted:
                return moment - since
        return None
