"""What wakes a subscription, over gRPC against the real program: addresses and subtrees."""

from harness import cases
from harness.api import Api, pb, urls, WithDirectory

ONE, TWO = "amqp://127.0.0.1:5001", "amqp://127.0.0.1:5002"


class Subscribe(WithDirectory, cases.TestCase):
    def next(self, stream):
        """{address: (matched, URLs that are up)} of the next message that carries answers."""
        message = stream.receive_until(lambda m: m.answers, 20)
        return {answer.address: (answer.matched, urls(answer)) for answer in message.answers}

    def until_marked(self, stream, revision):
        """All that is told up to and with the first mark at or after the revision."""
        answers, confirmed = {}, []
        while True:
            message = stream.receive(20)
            for answer in message.answers:
                answers[answer.address] = (answer.matched, urls(answer))
            confirmed += message.confirmed
            if message.HasField("mark") and message.mark.revision.number >= revision.number:
                return answers, confirmed

    def subtree(self, stream, prefix, held=()):
        """All that is told of the subtree up to the mark that covers it."""
        self.assertTrue(stream.receive(20).mark.HasField("source"))
        stream.send(pb.SubscribeRequest(add=[pb.SubscribeRequest.Held(address="//unknown")],
                                        add_subtree=[pb.SubscribeRequest.Subtree(prefix=prefix, held=held)]))
        answers, confirmed = {}, []
        while "//unknown" not in answers:  # marks before it were sent before the request was read
            more = self.until_marked(stream, pb.Revision())
            answers.update(more[0])
            confirmed += more[1]
        self.assertEqual(answers.pop("//unknown"), ("", []))
        return answers, confirmed

    def session(self, address, url, match=pb.MATCH_SUBTREE):
        tether = self.api.tether(host="h", program="p")
        self.assertTrue(tether.receive().HasField("welcome"))
        tether.send(pb.TetherRequest(register=pb.TetherRequest.Register(op_id=1, registrations=[
            pb.TetherRequest.Registration(address=address, endpoint=pb.EndpointSpec(url=url, match=match))])))
        self.assertFalse(tether.receive().done.HasField("refusal"))
        return tether

    def test_an_address_is_woken_by_all_that_its_answer_depends_on(self):
        stream = self.api.subscribe("//wake/a/b")
        self.assertEqual(self.next(stream), {"//wake/a/b": ("", [])})
        self.api.register(("//wake/a", ONE), match=pb.MATCH_SUBTREE)
        self.assertEqual(self.next(stream), {"//wake/a/b": ("//wake/a", [ONE])})
        self.api.register(("//wake/a/b", TWO))
        self.assertEqual(self.next(stream), {"//wake/a/b": ("//wake/a/b", [TWO])})
        self.api.withdraw(("//wake/a/b", TWO))
        self.assertEqual(self.next(stream), {"//wake/a/b": ("//wake/a", [ONE])})
        tether = self.session("//wake/a", TWO)
        self.assertEqual(self.next(stream), {"//wake/a/b": ("//wake/a", [ONE, TWO])})
        tether.send(pb.TetherRequest(drain=pb.TetherRequest.Drain(op_id=2)))
        self.assertEqual(self.next(stream), {"//wake/a/b": ("//wake/a", [ONE])})
        tether.send(pb.TetherRequest(drain=pb.TetherRequest.Drain(op_id=3, undo=True)))
        self.assertEqual(self.next(stream), {"//wake/a/b": ("//wake/a", [ONE, TWO])})
        tether.send(pb.TetherRequest(bye=pb.TetherRequest.Bye(reason="done")))
        self.assertEqual(self.next(stream), {"//wake/a/b": ("//wake/a", [ONE])})
        self.api.withdraw(("//wake/a", ONE))
        self.assertEqual(self.next(stream), {"//wake/a/b": ("", [])})

    def test_a_subtree_is_answered_kept_up_and_confirmed_by_a_mark(self):
        many = [(f"//tree/a/{i}", ONE) for i in range(120)]
        for i in range(0, len(many), 40):
            self.api.register(*many[i:i + 40])
        self.api.register(("//tree/ab", ONE))
        stream = self.api.subscribe()
        answers, _ = self.subtree(stream, "//tree/a")
        self.assertEqual(answers, {address: (address, [url]) for address, url in many})
        self.api.register(("//tree/a/new/deep", TWO))
        self.assertEqual(self.next(stream), {"//tree/a/new/deep": ("//tree/a/new/deep", [TWO])})
        tether = self.session("//tree/a/7", TWO, pb.MATCH_EXACT)
        self.assertEqual(self.next(stream), {"//tree/a/7": ("//tree/a/7", [ONE, TWO])})
        tether.send(pb.TetherRequest(bye=pb.TetherRequest.Bye(reason="done")))
        self.assertEqual(self.next(stream), {"//tree/a/7": ("//tree/a/7", [ONE])})
        self.api.withdraw(("//tree/a/new/deep", TWO))
        self.assertEqual(self.next(stream), {"//tree/a/new/deep": ("", [])})
        stream.send(pb.SubscribeRequest(drop_subtree=["//tree/a"]))
        self.api.resolve("//tree/a/7")
        revision = self.api.register(("//tree/a/8", TWO)).revision
        # Dropped before or after the change: either way nothing but marks comes in the end.
        self.until_marked(stream, revision)
        revision = self.api.register(("//tree/a/9", TWO)).revision
        self.assertEqual(self.until_marked(stream, revision), ({}, []))

    def test_a_client_that_comes_back_is_told_what_it_does_not_hold(self):
        for address in ("//back/a", "//back/b", "//back/c"):
            self.api.register((address, ONE))
        held = {answer.address: answer for answer in self.api.resolve("//back/a", "//back/b", "//back/c").answers}
        self.api.register(("//back/b", TWO))
        self.api.withdraw(("//back/c", ONE))
        answers, confirmed = self.subtree(self.api.subscribe(), "//back", [
            pb.SubscribeRequest.Held(address=address, revision=answer.revision, hash=answer.row.hash)
            for address, answer in held.items()])
        self.assertEqual(confirmed, ["//back/a"])
        self.assertEqual(answers, {"//back/b": ("//back/b", [ONE, TWO]), "//back/c": ("", [])})

    def test_what_is_no_prefix_is_refused_with_the_rule_and_the_stream_lives(self):
        stream = self.api.subscribe("//alive/a")
        stream.send(pb.SubscribeRequest(add_subtree=[pb.SubscribeRequest.Subtree(prefix="//Alive/a b")]))
        one = stream.receive_until(lambda m: m.refused, 20).refused[0]
        self.assertTrue(one.subtree)
        self.assertEqual((one.address, one.refusal.code), ("//Alive/a b", pb.INVALID))
        self.assertIn("a b", one.refusal.message)
        self.api.register(("//alive/a", ONE))
        stream.receive_until(lambda m: any(urls(answer) == [ONE] for answer in m.answers), 20)


if __name__ == "__main__":
    cases.main()
