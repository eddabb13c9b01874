"""The etcd of the harness does what the fault tests rely on: each fault really happens, and ends."""

import os
import time

from harness import cases
from harness.etcd import Etcd, EtcdError, SlowDisc
from harness.programs import eventually


class OneMember(cases.TestCase):
    def test_keys_revisions_and_compaction(self):
        with Etcd(1) as etcd:
            first = etcd.put("datawire/a", "1")
            self.assertEqual(etcd.put("datawire/b", "2"), first + 1)
            self.assertEqual(etcd.get("datawire/"), {b"datawire/a": (b"1", first), b"datawire/b": (b"2", first + 1)})
            self.assertEqual((etcd.count("datawire/"), etcd.count("other/")), (2, 0))
            etcd.compact(first + 1)
            with self.assertRaisesRegex(EtcdError, "compacted"):
                etcd.compact(first)
            etcd.members[0].kill9()
            etcd.start()
            self.assertEqual(etcd.revision(), first + 1)

    def test_a_reached_quota_refuses_puts_until_space_is_freed(self):
        with Etcd(1, quota_bytes=2 << 20) as etcd:
            with self.assertRaisesRegex(EtcdError, "database space exceeded"):
                for _ in range(20):
                    etcd.put("big", os.urandom(400_000))
            self.assertEqual(etcd.alarms(), ["NOSPACE"])
            etcd.free_space()
            etcd.put("big", "small")
            self.assertEqual(etcd.alarms(), [])
            etcd.raise_no_space()
            with self.assertRaisesRegex(EtcdError, "database space exceeded"):
                etcd.put("big", "small")


class ThreeMembers(cases.TestCase):
    def test_another_member_leads_when_the_leader_is_killed_and_when_it_is_frozen(self):
        with Etcd() as etcd:
            etcd.put("a", "1")
            killed = etcd.wait_leader()
            killed.kill9()
            frozen = etcd.wait_leader(other_than=killed)
            killed.start()
            etcd.wait_healthy()
            self.assertEqual(etcd.leader(), frozen)
            frozen.sigstop()
            etcd.wait_leader(other_than=frozen)
            etcd.put("a", "2")
            frozen.sigcont()
            etcd.wait_healthy()
            to = etcd.followers()[0]
            etcd.move_leader(to)
            eventually(lambda: etcd.leader() is to, 5, "it was handed over")

    def test_a_slow_disc_is_slow_only_while_it_is(self):
        with Etcd() as etcd:
            leader = etcd.wait_leader()

            def seconds():
                begun = time.monotonic()
                leader.call("kv/put", key="YQ==", value="YQ==")
                return time.monotonic() - begun

            follower = etcd.followers()[0]
            with SlowDisc(leader, 0.3) as one, SlowDisc(follower, 0.3) as other:
                self.assertGreater(seconds(), 0.3)
                self.assertGreater(one.delayed() + other.delayed(), 0)
            eventually(lambda: seconds() < 0.25, 5, "it is quick again")

    def test_a_member_whose_disc_is_lost_is_rebuilt_from_the_others(self):
        with Etcd() as etcd:
            etcd.put("a", "1")
            member = etcd.followers()[0]
            etcd.rebuild(member)
            eventually(lambda: member.status()["revision"] == etcd.revision(), 10, "it has what the others have")

    def test_a_restored_cluster_has_what_was_saved_and_nothing_later(self):
        with Etcd() as etcd:
            etcd.put("a", "saved")
            saved = os.path.join(self.scratch(), "saved")
            etcd.save_snapshot(saved)
            etcd.put("b", "later")
            etcd.restore_snapshot(saved)
            self.assertEqual(list(etcd.get("a")) + list(etcd.get("b")), [b"a"])


if __name__ == "__main__":
    cases.main()
