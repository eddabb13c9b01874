"""The audit log of a server that runs: who did what, and that an edit on its disc is found."""

import json
import signal

from harness import cases, programs
from harness.api import Api
from harness.programs import Directory, Program, dw, dw_json

URL = "amqp://127.0.0.1:5001"


class Audit(cases.TestCase):
    def start(self, *args):
        directory = Directory(*args)
        directory.__enter__()
        self.addCleanup(directory.__exit__, None)
        return directory

    def tail(self, directory, *args):
        result = dw("audit", "tail", "-o", "jsonl", *args, directory=directory)
        self.assertEqual(result.code, 0, result)
        return [json.loads(line) for line in result.stdout.splitlines()]

    def done(self, *args, directory):
        result = dw(*args, directory=directory)
        self.assertEqual(result.code, 0, result)

    def filled(self, directory):
        """Each kind of change that dw can make; returns the id of a session that expired."""
        self.done("register", "--static", "//demo/web", URL, "--weight", "50", directory=directory)
        self.done("drain", "//demo/web", directory=directory)
        self.done("drain", "--undo", "//demo/web", directory=directory)
        self.done("policy", "set", "//demo/web", "ordered", directory=directory)
        self.done("policy", "unset", "//demo/web", directory=directory)
        self.done("withdraw", "//demo/web", directory=directory)
        with Program("dw", "register", "//demo/lost", "amqp://127.0.0.1:5002", "--ttl", "3s",
                     "--directory", directory.address) as program:
            programs.eventually(lambda: dw("resolve", "//demo/lost", directory=directory).code == 0)
            program.kill9()
        programs.eventually(lambda: "expire-session" in [entry["verb"] for entry in self.tail(directory)], 30)

    def test_tail_names_who_did_what_and_verify_finds_an_edited_byte(self):
        directory = self.start()
        self.filled(directory)
        entries = self.tail(directory)
        self.assertEqual([(entry["verb"], entry["address"]) for entry in entries],
                         [("register", "//demo/web"), ("drain", "//demo/web"), ("undrain", "//demo/web"),
                          ("set-policy", "//demo/web"), ("unset-policy", "//demo/web"), ("withdraw", "//demo/web"),
                          ("open-session", None), ("register", "//demo/lost"), ("expire-session", None)])
        for entry in entries[:-1]:
            self.assertRegex(entry["by"], r"^127\.0\.0\.1:\d+$")
            self.assertEqual(entry["by"], entry["peer"])
            self.assertGreater(entry["at_wall_ms"], 0)
        self.assertEqual((entries[0]["before"], entries[0]["after"]["url"], entries[0]["after"]["weight"]), (None, URL, 50))
        self.assertEqual((entries[1]["before"]["draining"], entries[1]["after"]["draining"]), (False, True))
        self.assertEqual(entries[1]["reason"], "DRAINED")
        self.assertEqual(entries[3]["after"]["policy"], "ordered")
        self.assertTrue(entries[4]["after"]["ended"])
        self.assertEqual((entries[5]["reason"], entries[5]["after"]["ended"]), ("WITHDRAWN", True))
        opened, lost, expired = entries[6:]
        self.assertEqual(opened["after"]["program"], "dw")
        self.assertEqual(lost["session"], opened["session"])
        self.assertEqual((expired["session"], expired["by"], expired["peer"], expired["reason"]),
                         (opened["session"], "n1", "", "EXPIRED"))

        self.assertEqual(self.tail(directory, "-n", "2"), entries[-2:])
        self.assertEqual(self.tail(directory, "--address", "//demo/lost"), [lost])
        self.assertEqual(self.tail(directory, "--session", opened["session"]), entries[6:])
        self.assertEqual(self.tail(directory, "--since", "1h"), entries)
        self.assertEqual(self.tail(directory, "--since", "1h", "-n", "1"), entries[-1:])
        self.assertEqual(dw_json("audit", "tail", directory=directory), entries)
        table = dw("audit", "tail", "-o", "wide", directory=directory).stdout.splitlines()
        self.assertEqual(table[0].split(), ["TIME", "REVISION", "VERB", "OF", "BEFORE", "AFTER", "REASON", "BY", "PEER",
                                            "SESSION", "OP"])
        self.assertEqual(len(table), 1 + len(entries))
        self.assertRegex(table[2], rf"drain +//demo/web +{URL} weight=50 +{URL} draining weight=50 +DRAINED +127")

        whole = dw_json("audit", "verify", directory=directory)
        self.assertEqual((whole["whole"], whole["entries"], whole["revisions"]), (True, 9, 9))
        seen = dw("audit", "verify", "-o", "short", directory=directory).stdout.strip()
        self.assertTrue(seen.endswith(whole["last_hash"]), seen)
        self.done("register", "--static", "//demo/more", URL, directory=directory)
        directory.restart()
        self.assertIn(f"last {whole['last']['epoch']}:", dw("audit", "verify", "--expect", seen, directory=directory).stdout)
        other = seen[:-1] + ("0" if seen[-1] != "0" else "1")
        self.one_line(dw("audit", "verify", "--expect", other, directory=directory), 4, "written anew", seen.rsplit(":", 1)[0])

        directory.stop()
        with Program("edit_store", directory.data) as program:
            self.assertEqual(program.wait(), 0, program.tail())
            number = program.output().strip()
        directory.start_again()
        result = dw("audit", "verify", directory=directory)
        self.one_line(result, 4, f"broken at revision 1:{number}", "changed")
        self.assertEqual(result.stdout, "")
        broken = dw_json("audit", "verify", code=4, directory=directory)
        self.assertEqual((broken["whole"], broken["broken_at"]), (False, {"epoch": 1, "number": int(number)}))

    def test_follow_shows_what_comes_until_interrupted(self):
        directory = self.start()
        self.done("register", "--static", "//demo/a", URL, directory=directory)
        with Program("dw", "audit", "tail", "--follow", "--address", "//demo", "--directory", directory.address) as program:
            program.wait_for_line(r"register +//demo/a")
            self.done("register", "--static", "//other/b", URL, directory=directory)
            self.done("withdraw", "//demo/a", directory=directory)
            program.wait_for_line(r"withdraw  //demo/a")
            program.kill(signal.SIGINT)
            self.assertEqual(program.wait(), 130, program.tail())
            self.assertNotIn("//other/b", program.output())

    def test_a_small_log_keeps_its_end_and_verifies(self):
        directory = self.start("--audit-bytes", "4K", "--audit-age", "1h")
        with Api(directory) as api:
            for n in range(60):
                api.register((f"//demo/{n}", URL))
        programs.eventually(lambda: 0 < len(self.tail(directory, "-n", "100")) < 40, 30)
        self.assertEqual(self.tail(directory)[-1]["address"], "//demo/59")
        kept = dw_json("audit", "verify", directory=directory)
        self.assertTrue(kept["whole"])
        self.assertGreater(kept["complete_after"]["number"], 20)
        result = dw("audit", "verify", "--expect", "1:1:" + "0" * 64, directory=directory)
        self.one_line(result, 2, "begins after revision")

    def test_wrong_words_are_refused_with_the_rule(self):
        directory = self.start()
        for args, part in [(("audit", "show"), "neither tail nor verify"),
                           (("audit", "verify", "--expect", "1:2"), "EPOCH:NUMBER:HASH"),
                           (("audit", "verify", "--expect", "1:2:" + "g" * 64), "EPOCH:NUMBER:HASH"),
                           (("audit", "tail", "--address", "demo"), "demo"),
                           (("audit", "tail", "--session", "x"), "x"),
                           (("audit", "tail", "-n", "x"), "not a number"),
                           (("audit", "tail", "--since", "5"), "duration")]:
            self.one_line(dw(*args, directory=directory), 1, part)
        empty = dw("audit", "tail", directory=directory)
        self.assertEqual((empty.code, empty.stdout), (0, ""))


if __name__ == "__main__":
    cases.main()
