"""What other clients may do to a directory, and what one of them feels of it."""

import time

from harness.api import pb
from harness.programs import Program, binary


class Lister(Program):
    """Lists all again and again, a line `listed` each time. In earnest it runs on another machine: here it gets what nobody else
    wants of the processors."""

    def __init__(self, directory):
        super().__init__("/bin/bash", "-c",
                         "(echo 19 >/proc/self/autogroup) 2>/dev/null; while :; do "
                         f"nice -n 19 '{binary('dw')}' --directory {directory.address} list -o name >/dev/null && echo listed; done",
                         label="lists")


def deaf_watcher(api):
    """A Watch of everything whose messages nobody asks for; `cancel()` ends it."""
    return api.channel.unary_stream("/datawire.directory.v1.Directory/Watch", pb.WatchRequest.SerializeToString,
                                    pb.WatchResponse.FromString)(pb.WatchRequest())


def resolve_p99(api, addresses):
    """Seconds: the 99th percentile of one resolve after the other."""
    took = []
    for address in addresses:
        begun = time.monotonic()
        api.resolve(address)
        took.append(time.monotonic() - begun)
    return sorted(took)[len(took) * 99 // 100]
