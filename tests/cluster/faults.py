"""The table of faults. A fault is a function of a Trial and a source of chance that makes the fault, sees it, ends it, and returns what
shows that it happened, in a few words; an AssertionError says that it did not, and then the run fails. Kinds are drawn by the
runner; what comes after each fault, for all of them alike, is there too."""

import contextlib
import time

from harness.etcd import EtcdError
from harness.programs import eventually

KINDS = {}


def fault(function):
    """Names a kind by its function."""
    KINDS[function.__name__] = function
    return function


def hold(chance, least, most):
    """A fault's length, lived through; its seconds."""
    seconds = chance.uniform(least, most)
    time.sleep(seconds)
    return seconds


def writes(trial, count=20, deadline=20.0):
    """Writes go on in spite of the fault."""
    trial.progress(count, deadline)


def no_writes(trial, seconds=1.5):
    """Nothing is acknowledged any more: true after so long without."""
    def quiet():
        before = trial.acknowledged.count
        time.sleep(seconds)
        return trial.acknowledged.count == before
    eventually(quiet, 15, "nothing is acknowledged")


@contextlib.contextmanager
def grown(what, more=1, deadline=20.0, name=""):
    """The number that `what()` gives is greater by `more` at the end of the block, or soon after."""
    before = what()
    yield
    eventually(lambda: what() >= before + more, deadline, f"{name or 'a number'} grows from {before} by {more}")


def watchers_at(member):
    """Watches of nodes that an etcd member serves."""
    try:
        return member.metric("etcd_debugging_mvcc_watcher_total")
    except (OSError, EtcdError):
        return 0


def watched_member(trial, among=None):
    """A member that serves the watch of a node."""
    return max(among or trial.etcd.members, key=watchers_at)
