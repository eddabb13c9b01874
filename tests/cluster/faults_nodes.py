"""Faults of directory nodes: killed, frozen, restarted, wiped, fenced."""

from faults import fault, hold, writes
from harness.api import Api, Failed, pb
from harness.programs import dw, eventually


@fault
def node_killed(trial, chance):
    node = chance.choice(trial.nodes)
    node.kill9()
    writes(trial)
    hold(chance, 0, 2)
    node.start_again()
    return f"{node.label} killed, others wrote"


@fault
def all_nodes_killed(trial, chance):
    for node in trial.nodes:
        node.kill9()
    count = trial.acknowledged.read().count
    for node in chance.sample(trial.nodes, 3):
        node.start_again()
    return f"all killed at {count} acknowledged"


@fault
def node_killed_as_it_starts(trial, chance):
    node = chance.choice(trial.nodes)
    node.kill9()
    node.start()
    seconds = hold(chance, 0, 0.4)
    node.kill9()
    node.start_again()
    return f"{node.label} killed again {seconds:.2f} s after its start"


@fault
def node_frozen(trial, chance):
    node = chance.choice(trial.nodes)
    node.sigstop()
    writes(trial)
    seconds = hold(chance, 1, 5)
    others = max(one.metric("datawire_revision") for one in trial.nodes if one is not node)
    node.sigcont()
    eventually(lambda: node.metric("datawire_revision") >= others, 20, "it catches up")
    return f"{node.label} froze for {seconds:.1f} s, the others went on to {others:.0f}"


@fault
def node_restarted(trial, chance):
    node = chance.choice(trial.nodes)
    code = node.stop()
    assert code == 0, node.tail()
    writes(trial)
    node.start_again()
    return f"{node.label} stopped with 0"


@fault
def node_lost_its_disc(trial, chance):
    node = chance.choice(trial.nodes)
    node.kill9()
    trial.cluster.wipe(node)
    writes(trial)
    node.start_again()
    return f"{node.label} listed {node.metric('datawire_registrations'):.0f} registrations anew"


@fault
def node_fenced_by_its_double(trial, chance):
    """A second run under the same node id, as after a hasty fail-over: the former one's next write is refused, and it ends."""
    node = chance.choice(trial.nodes)
    double = type(node)(trial.nodes.index(node), node.endpoints, *node.extra)
    with double:
        late = dw("register", "--static", "//late/one", "amqp://127.0.0.1:1", directory=node)
        assert late.code != 0, f"the former run wrote: {late}"
        code = node.wait(20)
        assert code == 1, node.tail()
        said = node.output("stderr").strip().splitlines()[-1]
        writes(trial)
    node.start_again()
    return f"{node.label}: {said[:100]}"


@fault
def late_planner(trial, chance):
    """Who planned first wakes up last: its session was taken over meanwhile, and nothing it then sends is done."""
    older, newer = chance.sample(trial.nodes, 2)
    address = f"//planner/{chance.randrange(1 << 40):x}"
    with Api(older) as first, Api(newer) as second:
        tether = first.tether(ttl_ms=3000)
        welcome = tether.receive().welcome
        held = pb.TetherRequest.Registration(address=address, endpoint=pb.EndpointSpec(url="amqp://127.0.0.1:1"))
        tether.send(pb.TetherRequest(register=pb.TetherRequest.Register(op_id=1, registrations=[held])))
        at = tether.receive_until(lambda message: message.HasField("done")).done
        assert not at.HasField("refusal"), at
        older.sigstop()
        try:
            late = pb.TetherRequest.Registration(address=address, endpoint=pb.EndpointSpec(url="amqp://127.0.0.1:2"))
            tether.send(pb.TetherRequest(register=pb.TetherRequest.Register(op_id=2, registrations=[late])))
            taken = second.tether(session_id=welcome.session_id, secret=welcome.secret,
                                  attach_number=welcome.attach_number + 1)
            answer = taken.receive_until(lambda message: message.HasField("welcome") or message.HasField("ended"), 20)
            assert answer.HasField("welcome") and answer.welcome.resumed, answer
            hold(chance, 0, 1)
        finally:
            older.sigcont()
        refused = "the stream ended"
        try:
            last = tether.receive_until(lambda message: message.HasField("ended") or (
                message.HasField("done") and message.done.op_id == 2), 20)
            assert not last.HasField("done") or last.done.HasField("refusal"), f"a fenced holder's write was done: {last}"
            refused = str(last).split("message: ")[-1].split("\n")[0]
        except Failed as failure:
            refused = failure.message
        answer = second.resolve(address, consistency=pb.CONSISTENCY_LINEARIZABLE).answers[0]
        assert [one.url for one in answer.row.endpoints] == ["amqp://127.0.0.1:1"], answer
        taken.send(pb.TetherRequest(bye=pb.TetherRequest.Bye()))  # else it would expire, and nobody is to
        assert taken.receive_until(lambda message: message.HasField("ended")).ended.reason == "closed"
    return f"{older.label} woke up after {newer.label}: {refused}"


@fault
def role_holder_frozen(trial, chance):
    """Who reaps and compacts sleeps until its lease is over; another has the role, and keeps it when the former one wakes up."""
    def holder():
        return trial.etcd.get("datawire/l/reaper").get(b"datawire/l/reaper", (b"", 0))[0].decode().split(" ")[0]

    former = eventually(lambda: next((node for node in trial.nodes if node.node_id == holder()), None), 30, "somebody has the role")
    former.sigstop()
    try:
        newer = eventually(lambda: (lambda now: now if now not in ("", former.node_id) else None)(holder()), 30,
                           "another has the role")
        writes(trial)
        hold(chance, 0, 1)
    finally:
        former.sigcont()
    eventually(former.is_ready, 30, f"{former.label} is ready again")
    writes(trial, 100)
    assert holder() == newer, f"{newer} had the role, now {holder()} has it"
    return f"{former.node_id} had the role, {newer} took it and kept it"
