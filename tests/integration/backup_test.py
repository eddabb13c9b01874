"""Backups: exports and snapshots of a directory that serves, and one that is made from them."""

import json
import os

import grpc

from harness import cases, programs
from harness.api import Api, pb, refused, urls
from harness.programs import Directory, Program, dw, dw_json


class Backup(cases.TestCase):
    def start(self, *args, data=None, label=None):
        """A directory with `args` instead of --init; it ends with the test."""
        directory = Made(*args, data=data, label=label) if args else Directory(label=label)
        directory.__enter__()
        self.addCleanup(directory.__exit__, None)
        return directory

    def fails(self, *args):
        """The server ends with exit code 1 and one line, which is returned."""
        with Program("datawire-directory", "--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0", *args) as program:
            self.assertEqual(program.wait(30), 1, program.tail())
            lines = program.output("stderr").splitlines()
            self.assertEqual(len(lines), 1, lines)
        return lines[0]

    def file(self, text, name="export.jsonl"):
        path = os.path.join(self.scratch(), name)
        with open(path, "w", encoding="utf-8") as out:
            out.write(text)
        return path

    def api(self, directory):
        api = Api(directory)
        api.__enter__()
        self.addCleanup(api.__exit__)
        return api

    def exported(self, directory):
        result = dw("export", directory=directory)
        self.assertEqual(result.code, 0, result)
        return result.stdout

    def filled(self, count=3):
        """A directory with static registrations, and its export."""
        directory = self.start(label="from")
        api = self.api(directory)
        for first in range(0, count, 50):
            api.register(*[(f"//d/{n}", f"amqp://127.0.0.1:{n + 1}") for n in range(first, min(first + 50, count))],
                         weight=7, labels={"k": "v"})
        dw("policy", "set", "//d/1", "ordered", directory=directory)
        return directory, self.exported(directory)

    def registrations(self, text):
        return [json.loads(line)["registration"] for line in text.splitlines() if "registration\"" in line]

    def without_age(self, text):
        return [{key: value for key, value in one.items() if key != "created"} for one in self.registrations(text)]


class Made(Directory):
    """A directory whose data come from a backup; its second start is a plain one."""

    def command(self):
        command = super().command()
        if os.path.exists(os.path.join(self.data, "CURRENT")):
            return [word for word in command if word not in self.extra]
        return [word for word in command if word != "--init"]


class Export(Backup):
    def test_lines_are_a_header_the_static_registrations_and_a_trailer(self):
        directory = self.start()
        api = self.api(directory)
        api.register(("//shop/b", "amqp://127.0.0.1:2"), ("//shop/a", "amqp://127.0.0.1:1/q"), match=pb.MATCH_SUBTREE,
                     priority=3, weight=7, region="eu", zone="eu-1", labels={"k": "v"})
        api.register(("//shop/gone", "amqp://127.0.0.1:3"))
        api.withdraw(("//shop/gone", ""))
        dw("policy", "set", "//shop/a", "ordered", directory=directory)
        dw("policy", "set", "//shop/b", "ordered", directory=directory)
        dw("policy", "unset", "//shop/b", directory=directory)
        tether = api.tether(host="h", program="p")
        tether.receive()
        tether.send(pb.TetherRequest(register=pb.TetherRequest.Register(op_id=1, registrations=[
            pb.TetherRequest.Registration(address="//shop/held", endpoint=pb.EndpointSpec(url="amqp://127.0.0.1:9"))])))
        at = tether.receive().done.revision
        source = api.status().source
        header, *lines, trailer = [json.loads(line) for line in self.exported(directory).splitlines()]
        self.assertEqual(header, {"header": {"format": 1, "cluster_id": source.cluster_id,
                                             "revision": {"epoch": "1", "number": str(at.number)}}})
        self.assertEqual([line["registration"]["address"] for line in lines[:2]], ["//shop/a", "//shop/b"])
        self.assertEqual(lines[2:], [{"policy": {"address": "//shop/a", "policy": "POLICY_ORDERED"}}])
        self.assertEqual(lines[0]["registration"]["endpoint"], {
            "url": "amqp://127.0.0.1:1/q", "match": "MATCH_SUBTREE", "priority": 3, "weight": 7, "region": "eu",
            "zone": "eu-1", "labels": {"k": "v"}})
        self.assertEqual(trailer, {"trailer": {"registrations": "2", "policies": "1"}})

    def test_all_pages_are_of_one_revision_whatever_changes_meanwhile(self):
        directory = self.start()
        api = self.api(directory)
        api.register(*[(f"//d/{n}", "amqp://127.0.0.1:1") for n in range(5)])

        def page(token=""):
            return api._call("Admin/Export", pb.ExportRequest(page_size=2, page_token=token), pb.ExportResponse)

        pages = [page()]
        api.register(("//d/9", "amqp://127.0.0.1:1"))
        api.withdraw(("//d/4", ""))
        while pages[-1].next_page_token:
            pages.append(page(pages[-1].next_page_token))
        self.assertGreater(len(pages), 2)
        self.assertEqual({one.revision.number for one in pages}, {pages[0].revision.number})
        self.assertEqual([r.address for one in pages for r in one.registrations], [f"//d/{n}" for n in range(5)])
        with refused(self, grpc.StatusCode.ABORTED):
            page("00" * 20)
        with refused(self, grpc.StatusCode.INVALID_ARGUMENT):
            api._call("Admin/Export", pb.ExportRequest(page_size=1001), pb.ExportResponse)

    def test_without_a_directory_it_is_4_and_nothing_is_printed(self):
        result = dw("export", directory="127.0.0.1:1")
        self.one_line(result, 4, "cannot be reached")
        self.assertEqual(result.stdout, "")


class Import(Backup):
    def test_what_was_exported_is_there_afterwards(self):
        _, text = self.filled(120)
        target = self.start(label="to")
        done = dw_json("import", self.file(text), directory=target)
        self.assertEqual(done["imported"], 120)
        self.assertEqual(self.without_age(self.exported(target)), self.without_age(text))

    def test_a_directory_that_holds_registrations_wants_merge_and_then_the_file_wins(self):
        _, text = self.filled()
        target = self.start(label="to")
        api = self.api(target)
        api.register(("//d/0", "amqp://127.0.0.1:1"), ("//other", "amqp://127.0.0.1:1"), weight=1)
        path = self.file(text)
        before = api.status().revision.number
        self.one_line(dw("import", path, directory=target), 1, "holds 2 registrations", "--merge")
        self.assertEqual(api.status().revision.number, before)
        self.assertEqual(dw("import", path, "--merge", directory=target).code, 0)
        weights = {one["address"]: one["endpoint"]["weight"] for one in self.registrations(self.exported(target))}
        self.assertEqual(weights, {"//d/0": 7, "//d/1": 7, "//d/2": 7, "//other": 1})

    def test_a_file_that_is_cut_off_or_wrong_imports_nothing(self):
        _, text = self.filled()
        target = self.start(label="to")
        api = self.api(target)
        lines = text.splitlines(keepends=True)
        for broken, part in ((lines[:-1], "cut off after line 5"), (lines[:2] + lines[3:], "there are 2"),
                             ([lines[1]], "line 1 "), ([], "empty"), (lines + ["x\n"], "line 7 "),
                             ([*lines[:2], lines[2].replace("//d/", "d/"), *lines[3:]], "line 3 ")):
            with self.subTest(part):
                self.one_line(dw("import", self.file("".join(broken)), directory=target), 1, "export.jsonl", part)
                self.assertEqual(api.status().registrations, 0)
        newer = text.replace('"format":1', '"format":2,"more":1', 1)
        self.one_line(dw("import", self.file(newer), directory=target), 4, "format 2")
        self.one_line(dw("import", "/nonexistent", directory=target), 1, "/nonexistent")

    def test_an_import_that_broke_off_says_how_far_it_came_and_goes_on(self):
        _, text = self.filled(400)
        target = self.start(label="to")
        path = self.file(text)
        stuck = Program("dw", "--directory", target.address, "--timeout", "1s", "import", path)
        with stuck:
            programs.eventually(lambda: dw_json("status", directory=target)["registrations"] > 0, 20)
            target.sigstop()
            code = stuck.wait(30)
            target.sigcont()
            told = stuck.output("stderr")
        if code != 0:  # else it was quicker than the signal
            self.assertIn("run it again with --merge", told)
            self.one_line(dw("import", path, directory=target), 1, "--merge")
        self.assertEqual(dw("import", "--merge", path, directory=target).code, 0)
        self.assertEqual(self.without_age(self.exported(target)), self.without_age(text))


class ImportIntoAnEmptyStore(Backup):
    def test_it_keeps_the_cluster_id_and_the_age_and_raises_the_epoch(self):
        source, _ = self.filled()
        api = self.api(source)
        for port in (30, 10, 20):  # not the order of their keys
            api.register(("//ordered", f"amqp://127.0.0.1:{port}"))
        dw("policy", "set", "//ordered", "consistent", directory=source)
        path = self.file(self.exported(source))
        made = self.start("--import", path, label="to")
        there = self.api(made)
        now, then = there.status(), api.status()
        self.assertEqual((now.source.cluster_id, now.source.epoch), (then.source.cluster_id, 2))
        self.assertEqual(now.registrations, then.registrations)
        row = there.resolve("//ordered").answers[0].row
        self.assertEqual(row.policy, pb.POLICY_CONSISTENT)
        by_age = [e.url for e in sorted(row.endpoints, key=lambda e: e.created)]
        self.assertEqual(by_age, [f"amqp://127.0.0.1:{port}" for port in (30, 10, 20)])
        there.register(("//ordered", "amqp://127.0.0.1:30"), weight=9)  # the same registration, not another
        self.assertEqual(there.status().registrations, then.registrations)
        made.restart()
        again = self.api(made)
        self.assertEqual(urls(again.resolve("//d/1").answers[0]), ["amqp://127.0.0.1:2"])
        self.assertEqual(again.status().source.epoch, 2)

    def test_it_refuses_data_that_are_there_and_files_that_are_none_and_leaves_no_half(self):
        source, text = self.filled()
        path = self.file(text)
        self.assertIn("is not empty", self.fails("--data", source.data, "--import", path))
        folder = self.scratch()
        data = os.path.join(folder, "data")
        cut = self.file(text.rpartition('{"trailer')[0])
        self.assertIn("cut off", self.fails("--data", data, "--import", cut))
        self.assertIn("/nonexistent", self.fails("--data", data, "--import", "/nonexistent"))
        self.assertIn("greater than the backup's, 1", self.fails("--data", data, "--import", path, "--epoch", "1"))
        self.assertFalse(os.path.exists(data))
        # An attempt that was interrupted is none.
        os.makedirs(os.path.join(data, ".incoming", "junk"))
        self.assertIn("--init", self.fails("--data", data))
        made = self.start("--import", path, "--epoch", "7", data=data)
        self.assertEqual(self.api(made).status().source.epoch, 7)
        self.assertFalse(os.path.exists(os.path.join(data, ".incoming")))


class Snapshot(Backup):
    def save(self, directory, path):
        result = dw_json("snapshot", "save", path, directory=directory)
        self.assertEqual(result["directory"], path)
        return result

    def test_saved_and_verified_while_it_serves_by_any_server(self):
        directory = self.start(label="from")
        api = self.api(directory)
        api.register(("//d/a", "amqp://127.0.0.1:1"), ("//d/b", "amqp://127.0.0.1:1"))
        path = os.path.join(self.scratch(), "snapshot")
        saved = self.save(directory, path)
        self.assertEqual((saved["registrations"], saved["revision"]), (2, {"epoch": 1, "number": api.status().revision.number}))
        before = sorted(os.listdir(path))
        other = self.start(label="other")
        self.assertEqual(dw_json("snapshot", "verify", path, directory=other), saved)
        self.assertRegex(dw("snapshot", "verify", path, directory=other).stdout, r"^verified /\S+  cluster \S+  revision 1:\d+  2 ")
        self.assertEqual(sorted(os.listdir(path)), before, "verifying writes nothing there")

    def test_refusals_say_what_to_do(self):
        directory = self.start()
        folder = self.scratch()
        for args, code, part in ((["save", "relative"], 1, "absolute"), (["save", folder], 1, "there already"),
                                 (["save", f"{directory.data}/x"], 1, "inside the data directory"),
                                 (["verify", f"{folder}/none"], 2, "is not there"),
                                 (["verify", directory.data], 1, "is a data directory"),
                                 (["restore", folder], 1, "datawire-directory --restore"),
                                 (["frobnicate", folder], 1, "neither save nor verify")):
            with self.subTest(args=args):
                self.one_line(dw("snapshot", *args, directory=directory), code, part)
        data = os.path.join(folder, "data")
        self.assertIn("is not there", self.fails("--data", data, "--restore", f"{folder}/none"))
        self.assertIn("is a data directory", self.fails("--data", data, "--restore", directory.data))
        path = os.path.join(folder, "snapshot")
        self.save(directory, path)
        self.assertIn("is not empty", self.fails("--data", directory.data, "--restore", path))
        with open(os.path.join(path, "CURRENT"), "w", encoding="utf-8") as file:
            file.write("MANIFEST-999999\n")
        self.assertIn("cannot be read", self.fails("--data", data, "--restore", path))
        self.assertFalse(os.path.exists(data))

    def test_after_a_restore_no_client_has_to_be_restarted(self):
        directory = self.start(label="first")
        self.assertEqual(dw("register", "--static", "//d/static", "amqp://127.0.0.1:9", directory=directory).code, 0)

        def holds(name, *args):
            program = Program("dw", "--directory", directory.address, *args, label=name)
            program.__enter__()
            self.addCleanup(program.end)
            return program

        early = holds("early", "register", "//d/early", "amqp://127.0.0.1:1")
        early.wait_for_line("registered //d/early")
        receiver = holds("receiver", "receive", "//d/feed")
        receiver.wait_for_line("listening on", stream="stderr")
        fifo = os.path.join(self.scratch(), "lines")
        os.mkfifo(fifo)
        lines = os.open(fifo, os.O_RDWR)
        self.addCleanup(os.close, lines)
        sender = Program("/bin/bash", "-c", f'exec "{programs.binary("dw")}" send --directory {directory.address} //d/feed < {fifo}',
                         label="sender")
        sender.__enter__()
        self.addCleanup(sender.end)
        os.write(lines, b"before\n")
        receiver.wait_for_line("^before$", 20)
        path = os.path.join(self.scratch(), "snapshot")
        self.save(directory, path)
        late = holds("late", "register", "//d/late", "amqp://127.0.0.1:2")  # the snapshot knows nothing of it
        late.wait_for_line("registered //d/late")
        directory.kill9()
        restored = Made("--restore", path, label="restored")
        restored._port = int(directory.address.rsplit(":", 1)[1])
        restored.__enter__()
        self.addCleanup(restored.__exit__, None)
        api = self.api(restored)
        self.assertEqual(api.status().source.epoch, 2)
        for name in ("static", "early", "late", "feed"):
            programs.eventually(lambda: urls(api.resolve(f"//d/{name}").answers[0]), 20, f"//d/{name} is found")
        # The sender's resolver takes what the new epoch says: the next receiver is elsewhere.
        receiver.end()
        second = Program("dw", "--directory", restored.address, "receive", "//d/feed", label="second")
        second.__enter__()
        self.addCleanup(second.end)
        second.wait_for_line("listening on", stream="stderr")
        os.write(lines, b"after\n")
        second.wait_for_line("^after$", 30)
        for program in (early, late, sender):
            self.assertTrue(program.running(), program.tail())


if __name__ == "__main__":
    cases.main()
