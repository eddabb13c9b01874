"""Faults between a directory node and the etcd members: by the proxies on each way."""

from faults import fault, hold, writes
from harness.programs import eventually


def _cut(trial, chance, **how):
    """Between one node and all members: it becomes not ready, others write, and it is back when it is healed."""
    number = chance.randrange(3)
    node, proxies = trial.nodes[number], trial.proxies[number]
    before = sum(proxy.held for proxy in proxies)
    for proxy in proxies:
        proxy.blackhole(**how)
    eventually(lambda: not node.is_ready(), 15, f"{node.label} sees that it is cut off")
    why = node.why_not().strip()
    writes(trial)
    hold(chance, 0, 4)
    for proxy in proxies:
        proxy.heal()
    held = sum(proxy.held for proxy in proxies) - before
    eventually(node.is_ready, 30, f"{node.label} is back")
    return f"{node.label}: {why[:80]}; {held} bytes held"


@fault
def node_cut_off(trial, chance):
    return _cut(trial, chance)


@fault
def node_not_heard(trial, chance):
    return _cut(trial, chance, down=False)


@fault
def node_hears_nothing(trial, chance):
    return _cut(trial, chance, up=False)


@fault
def connections_reset(trial, chance):
    number, count = chance.randrange(3), 0
    for _ in range(chance.randrange(1, 5)):
        count += sum(proxy.reset() for proxy in trial.proxies[number])
        hold(chance, 0, 0.5)
    assert count > 0
    return f"{count} connections of {trial.nodes[number].label} reset"


@fault
def members_refuse(trial, chance):
    number = chance.randrange(3)
    node, proxies = trial.nodes[number], trial.proxies[number]
    for proxy in proxies:
        proxy.refuse()
    eventually(lambda: not node.is_ready(), 15, f"{node.label} sees that it is cut off")
    eventually(lambda: sum(proxy.refused for proxy in proxies) > 0, 15, "it tries again")
    writes(trial)
    for proxy in proxies:
        proxy.heal()
    eventually(node.is_ready, 30, f"{node.label} is back")
    return f"{node.label} refused {sum(proxy.refused for proxy in proxies)} times"


@fault
def slow_network(trial, chance):
    number, seconds = chance.randrange(3), chance.uniform(0.02, 0.2)
    for proxy in trial.proxies[number]:
        proxy.delay(seconds)
    trial.progress(50, 60)
    before = sum(sum(proxy.passed) for proxy in trial.proxies[number])
    hold(chance, 1, 3)
    passed = sum(sum(proxy.passed) for proxy in trial.proxies[number]) - before
    assert passed > 0
    for proxy in trial.proxies[number]:
        proxy.heal()
    return f"{trial.nodes[number].label} {seconds * 1000:.0f} ms away from etcd each way, {passed} bytes passed"


@fault
def one_way_lost(trial, chance):
    """A node and the one member that serves its watch: the watch goes on elsewhere, and the node stays ready or is so again
    before the way is back."""
    number = chance.randrange(3)
    node, proxies = trial.nodes[number], trial.proxies[number]
    marks = [proxy.passed[1] for proxy in proxies]
    trial.progress(50)
    watched = max(range(len(proxies)), key=lambda one: proxies[one].passed[1] - marks[one])
    proxies[watched].blackhole()
    eventually(lambda: proxies[watched].held > 0, 10, "something is held")
    writes(trial, 50)
    target = max(one.metric("datawire_revision") for one in trial.nodes if one is not node)
    eventually(lambda: node.metric("datawire_revision") >= target, 15, f"{node.label} goes on through another member")
    eventually(node.is_ready, 15, f"{node.label} is ready without it")
    proxies[watched].heal()
    return f"{node.label} without {trial.etcd.members[watched].name}, at {target:.0f} all the same"
