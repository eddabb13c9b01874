"""Faults of etcd members: killed, frozen, on a slow disc, without a quorum, rebuilt."""

from faults import fault, hold, no_writes, watchers_at, writes
from harness.etcd import SlowDisc
from harness.programs import eventually


def _term(trial):
    return max(member.status()["term"] for member in trial.etcd.members if member.running())


@fault
def etcd_leader_killed(trial, chance):
    old = trial.etcd.wait_leader()
    old.kill9()
    new = trial.etcd.wait_leader(other_than=old)
    writes(trial)
    old.start()
    return f"{old.name} led, then {new.name}"


@fault
def etcd_follower_killed(trial, chance):
    leader = trial.etcd.wait_leader()
    one = max(trial.etcd.followers(), key=watchers_at)
    watches = watchers_at(one)
    one.kill9()
    writes(trial)
    eventually(lambda: sum(watchers_at(member) for member in trial.etcd.members if member is not one) >= 3, 20,
               "all watches are at the others")
    one.start()
    return f"{one.name} with {watches:.0f} watches; {leader.name} leads"


@fault
def etcd_leader_frozen(trial, chance):
    old = trial.etcd.wait_leader()
    old.sigstop()
    new = trial.etcd.wait_leader(other_than=old)
    writes(trial)
    eventually(lambda: sum(watchers_at(member) for member in trial.etcd.members if member is not old) >= 3, 20,
               "all watches are at the others")
    seconds = hold(chance, 0.5, 3)
    old.sigcont()
    return f"{old.name} led, then {new.name}; {seconds:.1f} s more"


@fault
def etcd_follower_frozen(trial, chance):
    one = max(trial.etcd.followers(), key=watchers_at)
    watches = watchers_at(one)
    one.sigstop()
    writes(trial)
    eventually(lambda: sum(watchers_at(member) for member in trial.etcd.members if member is not one) >= 3, 20,
               "all watches are at the others")
    seconds = hold(chance, 0.5, 3)
    one.sigcont()
    return f"{one.name} with {watches:.0f} watches, which went elsewhere; {seconds:.1f} s more"


def _slow(trial, chance, member, seconds):
    with SlowDisc(member, seconds) as slow:
        writes(trial, 5)
        eventually(lambda: slow.delayed() >= 3, 20, "syncs are delayed")
        hold(chance, 1, 3)
        delayed = slow.delayed()
    return f"{delayed} syncs of {member.name} {seconds:.2f} s later"


@fault
def etcd_leader_slow_disc(trial, chance):
    return _slow(trial, chance, trial.etcd.wait_leader(), chance.uniform(0.1, 0.8))


@fault
def etcd_follower_slow_disc(trial, chance):
    return _slow(trial, chance, chance.choice(trial.etcd.followers()), chance.uniform(0.1, 2))


@fault
def etcd_quorum_lost(trial, chance):
    down = chance.sample(trial.etcd.members, 2)
    for member in down:
        member.kill9()
    no_writes(trial)
    seconds = hold(chance, 1, 5)
    for member in down:
        member.start()
    return f"{down[0].name} and {down[1].name} down, nothing acknowledged; {seconds:.1f} s more"


@fault
def etcd_all_killed(trial, chance):
    before = trial.etcd.revision()
    trial.etcd.kill9()
    no_writes(trial)
    hold(chance, 0.5, 2)
    trial.etcd.start()
    after = trial.etcd.revision()
    assert after >= before, (before, after)
    return f"all down, revision {before} before, {after} after"


@fault
def etcd_leader_moved(trial, chance):
    to = chance.choice(trial.etcd.followers())
    term = _term(trial)
    trial.etcd.move_leader(to)
    eventually(lambda: trial.etcd.leader() is to, 10, f"{to.name} leads")
    return f"handed over to {to.name}, term {term} to {_term(trial)}"


@fault
def etcd_member_rebuilt(trial, chance):
    one = chance.choice(trial.etcd.members)
    trial.etcd.wait_healthy()
    before = one.status()["id"]
    trial.etcd.rebuild(one)
    after = one.status()["id"]
    assert before != after
    return f"{one.name} lost its disc, id {before:x} to {after:x}"
