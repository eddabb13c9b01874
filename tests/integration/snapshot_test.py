"""A process that starts while every directory is down: its snapshot file, and `dw cache show`."""

import json
import os
import stat

from harness import cases
from harness.api import Api
from harness.programs import Directory, Program, dw, dw_json, eventually

AT, OTHER, ONE = "//demo/a", "//demo/b/c", "amqp://127.0.0.1:5001"


class Resolves(Program):
    def __init__(self, at, snapshot, addresses=AT):
        super().__init__("datawire-test-resolves", "--directory", at, "--addresses", addresses, "--rate", "200",
                         "--snapshot", snapshot, label="resolves")

    def first(self):
        """(status, source, stale, age in ms, ms it took) of its first look-up."""
        words = self.wait_for_line(r"^first (\S+) (\S+) (\d) (\d+) (\d+)$", 20).groups()
        return words[0], words[1], words[2] == "1", int(words[3]), int(words[4])


class Snapshots(cases.TestCase):
    def learn(self, file):
        """A directory is asked and killed; so is who asked, once its file is there. The directory's address."""
        with Directory() as directory:
            with Api(directory) as api:
                api.register((AT, ONE), (OTHER, ONE))
            at = directory.address
            with Resolves(at, file, f"{AT},{OTHER}") as process:
                self.assertEqual(process.first()[0], "FOUND")
                eventually(lambda: dw("cache", "show", file, "-o", "name").stdout.split() == [AT, OTHER], 20)
                process.kill9()
            directory.kill9()
        return at

    def test_p14_a_restarted_process_answers_within_a_second_while_every_directory_is_down(self):
        file = os.path.join(self.scratch(), "cache")
        at = self.learn(file)
        eventually(lambda: dw_json("cache", "show", file)["answers"][0]["stale"], 20)
        with Resolves(at, file) as process:
            status, source, stale, age_ms, took_ms = process.first()
            self.assertEqual((status, source, stale), ("FOUND", "snapshot", True))
            self.assertGreaterEqual(age_ms, 5000)
            self.assertLess(took_ms, 1000)
            self.assertEqual(process.stop(), 0)
        shown = dw_json("cache", "show", file)
        self.assertGreaterEqual(shown["answers"][0]["age_ms"], age_ms)  # a restart makes nothing young

    def test_dw_cache_show_in_every_format(self):
        file = os.path.join(self.scratch(), "cache")
        self.learn(file)
        self.assertEqual(stat.S_IMODE(os.stat(file).st_mode), 0o600)
        shown = dw_json("cache", "show", file)
        self.assertEqual([(a["address"], a["status"], a["source"]) for a in shown["answers"]],
                         [(AT, "FOUND", "snapshot"), (OTHER, "FOUND", "snapshot")])
        self.assertEqual(shown["answers"][0]["endpoints"][0]["url"], ONE)
        self.assertEqual(shown["revision"], max((a["revision"] for a in shown["answers"]), key=lambda r: r["number"]))
        lines = [json.loads(line) for line in dw("cache", "show", file, "-o", "jsonl").stdout.splitlines()]
        self.assertEqual([a["address"] for a in lines], [AT, OTHER])
        self.assertEqual(dw("cache", "show", file, "-o", "short").stdout, f"{ONE}\n{ONE}\n")
        for form in ("table", "wide"):
            table = dw("cache", "show", file, "-o", form).stdout.splitlines()
            self.assertRegex(table[0], rf"^cluster {shown['cluster']}  revision \d+:\d+  saved \d+m?s ago$")
            self.assertEqual(table[1].split(), ["ADDRESS", "STATUS", "AGE", "REVISION", "ENDPOINTS"])
            self.assertIn(f"{ONE} up", table[2])

    def test_dw_cache_show_refuses_in_one_line(self):
        folder = self.scratch()
        self.one_line(dw("cache", "show", f"{folder}/none"), 2, f"{folder}/none", "No such file")
        with open(f"{folder}/bad", "wb") as file:
            file.write(b"DWCACHE1" + b"\0" * 100)
        result = dw("cache", "show", f"{folder}/bad")
        self.one_line(result, result.code, f"{folder}/bad: not a whole snapshot: at byte")
        self.assertNotEqual(result.code, 0)
        self.one_line(dw("cache", "drop", f"{folder}/bad"), 1, "`drop`", "show")
        self.one_line(dw("cache", "show"), 1, "2 arguments")


if __name__ == "__main__":
    cases.main()
