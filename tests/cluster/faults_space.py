"""Faults of etcd's store: compacted too far, full, restored from a backup."""

import os

from faults import fault, hold, writes
from harness.api import Api, pb
from harness.etcd import EtcdError
from harness.programs import dw, eventually


def on_disc(trial):
    """The role that compacts leaves what a live node has only in memory; who compacts by hand makes up for it. Else a node that is
    killed then lists anew, and if all are, nobody remembers what watchers were told."""
    for node in trial.nodes:
        saved = dw("snapshot", "save", os.path.join(trial.test.scratch("saved"), "saved"), directory=node)  # writes all out
        assert saved.code == 0, saved


@fault
def compacted_while_a_node_was_down(trial, chance):
    node = chance.choice(trial.nodes)
    node.kill9()
    writes(trial, 100)
    to = trial.etcd.revision()
    trial.etcd.compact(to)
    try:
        trial.etcd.compact(to - 1)
        raise AssertionError("it is not compacted")
    except EtcdError as error:
        assert "compacted" in error.text, error
    node.start_again()
    eventually(lambda: node.metric("datawire_revision") >= to, 30, "it lists anew")
    on_disc(trial)
    return f"{node.label} was away, etcd compacted to {to}"


@fault
def compacted_under_all(trial, chance):
    to = trial.etcd.revision()
    trial.etcd.compact(to)
    writes(trial)
    on_disc(trial)
    return f"etcd compacted to {to} while all follow"


@fault
def no_space(trial, chance):
    """Registrations are refused, withdrawals and resolves are not; after compaction and disarming all goes on."""
    node = chance.choice(trial.nodes)
    address = f"//space/{chance.randrange(1 << 40):x}"
    assert dw("register", "--static", address, "amqp://127.0.0.1:1", directory=node).code == 0
    trial.etcd.raise_no_space()

    def refused():
        result = dw("register", "--static", address, "amqp://127.0.0.1:2", directory=node)
        return result if result.code != 0 else None

    said = eventually(refused, 10, "a registration is refused")
    assert "space" in said.stderr, said
    withdrawn = dw("withdraw", address, "amqp://127.0.0.1:1", directory=node)
    assert withdrawn.code == 0, withdrawn
    shown = dw("resolve", address, directory=node)
    assert shown.code == 2, shown
    hold(chance, 0, 2)
    trial.etcd.free_space()
    on_disc(trial)
    return said.stderr.strip()[:120]


def restored_from_backup(trial, chance):
    """The last of a run, the load standing still: what was in the backup is there, what came later is not, the epoch is greater."""
    node = trial.nodes[0]
    held = trial.listed(node)
    with Api(node) as api:
        before = api.status().revision
    saved = os.path.join(trial.test.scratch("backup"), "saved")
    trial.etcd.save_snapshot(saved)
    assert dw("register", "--static", "//later/one", "amqp://127.0.0.1:1", directory=node).code == 0
    for one in trial.nodes:
        one.stop()
    trial.etcd.restore_snapshot(saved)
    raiser, *others = chance.sample(trial.nodes, 3)
    raiser.once = ("--raise-epoch",)
    for one in (raiser, *others):
        one.start_again()
    trial.cluster.wait_ready()

    def same():
        for one in trial.nodes:
            with Api(one) as api:
                assert api.status().revision.epoch == 2, one.label
                told = api.watch(after=before).receive().kind
                assert told == pb.WatchResponse.KIND_RESYNC, f"a watcher of epoch 1 is told {told}"
                answer = api.resolve("//later/one").answers[0]
                assert answer.row.status == pb.ANSWER_STATUS_NOT_FOUND, answer
            now = trial.listed(one)
            missing = {address: urls for address, urls in held.items() if now.get(address) != urls}
            assert not missing, f"{one.label}: {len(missing)} of {len(held)} are missing"
        return True
    eventually(same, 60, "all nodes show what was saved")
    return f"epoch 2, {len(held)} addresses as saved"
