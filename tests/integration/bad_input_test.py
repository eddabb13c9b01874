"""Bad input and faults of the surroundings: one clear line, the documented exit code, nothing changed, the server alive."""

import os
import socket

import grpc

from harness import cases
from harness.api import Api, pb, refused, urls, WithDirectory
from harness.programs import Directory, Program, dw

PORTS = ("--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0")


class Server(cases.TestCase):
    def fails(self, *args, env=None):
        """datawire-directory ends with exit code 1 and one line on stderr, which is returned; nothing on stdout."""
        with Program("datawire-directory", *args, env=env) as program:
            self.assertEqual(program.wait(30), 1, program.tail())
            lines = program.output("stderr").splitlines()
            self.assertEqual(len(lines), 1, lines)
            self.assertTrue(lines[0].startswith("datawire-directory: "), lines)
            self.assertEqual(program.output("stdout"), "")
        return lines[0]

    def file(self, name, text):
        path = os.path.join(self.scratch(), name)
        with open(path, "w", encoding="utf-8") as out:
            out.write(text)
        return path


class Requests(WithDirectory, Server):
    def setUp(self):
        self.before = self.api.status()

    def tearDown(self):
        after = self.api.status()
        self.assertTrue(after.healthy)
        self.assertEqual((after.revision, after.registrations), (self.before.revision, self.before.registrations))

    def invalid(self, call, *parts):
        with refused(self, grpc.StatusCode.INVALID_ARGUMENT) as held:
            call()
        self.assertNotIn("\n", held.failure.message)
        for part in parts:
            self.assertIn(part, held.failure.message)

    def test_registrations_that_break_a_rule_show_the_value_and_the_rule(self):
        def register(url="amqp://127.0.0.1:1", **spec):
            return lambda: self.api.register(("//a/b", url), **spec)
        self.invalid(register("http://h:1"), "`http://h:1`")
        self.invalid(register("amqp://h:99999"), "99999", "1-65535")
        self.invalid(register(""), "endpoint URL")
        self.invalid(register("amqp://h/" + "x" * 600), "512")
        self.invalid(register(weight=1001), "1001", "1000")
        self.invalid(register(priority=70000), "70000", "65535")
        self.invalid(register(region="a b"), "`a b`", "space")
        self.invalid(register(zone="z" * 64), "64", "63")
        self.invalid(register(labels={"k\n": "v"}), "\\x0a")
        self.invalid(register("amqps://127.0.0.1:1", identity="spiffe://a/b c"), "`spiffe://a/b c`", "space")
        self.invalid(register("amqps://127.0.0.1:1", identity="https://a/b"), "`https://a/b`", "spiffe://")
        self.invalid(register("amqps://127.0.0.1:1", identity="spiffe://a/" + "x" * 2048), "2059", "2048")
        self.invalid(register(identity="spiffe://a/b"), "`spiffe://a/b`", "amqps")
        self.invalid(register(labels={"k": "v" * 129}), "129", "128")
        self.invalid(register(labels={f"k{i}": "v" for i in range(17)}), "17", "16")

    def test_addresses_that_break_a_rule_are_refused_by_every_verb(self):
        for address, rule in (("a/b", "//"), ("//a:1/b", "port"), ("//a//b", "empty"), ("//a/../b", ".."), ("//a/%41", "%"),
                              ("//u@a/b", "user"), ("//a/b?q", "?"), ("//1.2.3.4/b", "IP literal"), ("//a/\u00fc", "ASCII"),
                              ("//a/" + "x" * 129, "128"), ("//a" + "/b" * 33, "32"), ("//a/$x", "$"), ("", "//")):
            for call in (lambda: self.api.register((address, "amqp://127.0.0.1:1")), lambda: self.api.withdraw((address, "")),
                         lambda: self.api.explain(address)):
                with self.subTest(address=address):
                    self.invalid(call, rule)

    def test_a_call_with_one_bad_registration_registers_none(self):
        self.invalid(lambda: self.api.register(("//a/good", "amqp://127.0.0.1:1"), ("//a//bad", "amqp://127.0.0.1:1")), "`//a//bad`")
        self.assertEqual(urls(self.api.resolve("//a/good").answers[0]), [])
        self.invalid(lambda: self.api.register(*[(f"//a/{i}", "amqp://127.0.0.1:1") for i in range(51)]), "51", "50")

    def test_an_unknown_session_and_a_foreign_secret_change_nothing(self):
        owner = self.api.tether(host="h", program="p")
        welcome = owner.receive().welcome
        for session, secret, code in ((b"\1" * 16, b"\2" * 32, pb.SESSION_EXPIRED), (b"short", b"", pb.INVALID),
                                      (welcome.session_id, b"\0" * len(welcome.secret), pb.DENIED),
                                      (welcome.session_id, b"", pb.DENIED)):
            thief = self.api.tether(session_id=session, secret=secret, attach_number=99)
            thief.send(pb.TetherRequest(bye=pb.TetherRequest.Bye(reason="mine now")))
            self.assertEqual(thief.receive().ended.refusal.code, code)
        owner.send(pb.TetherRequest(heartbeat=pb.TetherRequest.Heartbeat(number=1)))
        self.assertEqual(owner.receive().heartbeat.number, 1)
        owner.send(pb.TetherRequest(bye=pb.TetherRequest.Bye()))
        while owner.receive() is not None:  # until the stream is closed, after the end was committed
            pass
        self.before = self.api.status()

    def test_dw_shows_what_the_server_says_in_one_line(self):
        for args, part in ((["register", "--static", "//a/b", "amqp://127.0.0.1:1", "--region", "x" * 64], "63"),
                           (["resolve", *["//a/b"] * 1001], "1000"),
                           (["register", "//a/b", "amqp://127.0.0.1:1", "--ttl", "2h"], "1 h")):
            result = dw(*args, directory=self.directory)
            self.assertEqual((result.code, result.stdout, len(result.stderr.splitlines())), (1, "", 1), result)
            self.assertIn(part, result.stderr)


class Files(Server):
    def test_a_config_file_that_is_wrong_is_refused_with_the_value(self):
        data = os.path.join(self.scratch(), "data")
        for text, shown in (("listen_on = \"x\"\n", "`listen_on`"), ("[tls]\nkey = 1\n", "`tls`"), ("listen = \"nowhere\"\n", "`nowhere`"),
                            ("node-id = \"a b\"\n", "`a b`"), ("init = maybe\n", "maybe"), ("config = \"/x\"\n", "`config`"),
                            ("listen = \"10.0.0.1:1\"\n", "--insecure"), ("cluster-id = \"c\"\n", "--init"),
                            ("dev = true\n", "--data and --dev"), ("data = \"\"\n", "data")):
            with self.subTest(text=text):
                extra = [] if text.startswith("data") else ["--data", data]
                self.assertIn(shown, self.fails(*extra, "--config", self.file("c.toml", text)))
        for path in (self.scratch(), "/nonexistent/file"):
            line = self.fails("--data", data, "--config", path)
            self.assertIn(path, line)
            self.assertIn("cannot be read", line)
        self.assertFalse(os.path.exists(data))

    def test_a_data_directory_that_is_a_file_or_below_one_is_refused_with_what_to_do(self):
        path = self.file("data", "mine\n")
        below = os.path.join(path, "below")
        for init in ([], ["--init"]):
            self.assertIn(f"{path} is a file: name a directory with --data", self.fails("--data", path, *init, *PORTS))
            self.assertIn(below, self.fails("--data", below, *init, *PORTS))
        with open(path, encoding="utf-8") as file:
            self.assertEqual(file.read(), "mine\n")

    def test_init_of_one_in_use_is_refused_and_its_owner_serves_on(self):
        with Directory() as directory, Api(directory) as api:
            for init in ([], ["--init"]):
                line = self.fails("--data", directory.data, *init, *PORTS)
                self.assertIn("in use by another process: stop that one", line)
            self.assertTrue(api.status().healthy)

    def test_a_start_that_cannot_listen_initialises_nothing(self):
        data = os.path.join(self.scratch(), "data")
        with socket.socket() as used:
            used.bind(("127.0.0.1", 0))
            used.listen()
            at = f"127.0.0.1:{used.getsockname()[1]}"
            for ports in (("--listen", at, "--http-listen", "127.0.0.1:0"), ("--listen", "127.0.0.1:0", "--http-listen", at),
                          ("--insecure", "--listen", "192.0.2.1:1", "--http-listen", "127.0.0.1:0"), ("--listen", at, "--http-listen", at)):
                self.assertRegex(self.fails("--data", data, "--init", *ports), f"{at}|192.0.2.1:1")
                self.assertFalse(os.path.exists(data))
        with Directory(data=data):  # the same command, with the port free
            pass


class Process(Server):
    def test_a_closed_stdout_or_stdin_harms_nothing(self):
        for closed in (">&-", "<&-", ">&- <&-"):
            data = os.path.join(self.scratch(), "data")
            with Program("/bin/bash", "-c", f'exec "$0" --data {data} --init --listen 127.0.0.1:0 --http-listen 127.0.0.1:0 {closed}',
                         os.path.join(os.environ["DATAWIRE_BIN"], "datawire-directory"), label="closed") as program:
                at = program.wait_for_line(r"msg=serving grpc=(\S+)", 30, "stderr").group(1)
                for number, sign in ((0, "<&-"), (1, ">&-")):  # no file of its own stands in for a closed one
                    if sign in closed:
                        self.assertEqual(os.readlink(f"/proc/{program.pid}/fd/{number}"), "/dev/null")
                self.assertEqual(dw("register", "--static", "//a/b", "amqp://127.0.0.1:1", directory=at).code, 0)
                self.assertEqual(program.stop(), 0)
            with Directory(data=data) as directory, Api(directory) as api:
                self.assertEqual(urls(api.resolve("//a/b").answers[0]), ["amqp://127.0.0.1:1"])

    def test_a_reader_of_stdout_that_goes_harms_nothing(self):
        with Program("/bin/bash", "-c", '"$0" --dev --listen 127.0.0.1:0 --http-listen 127.0.0.1:0 > >(head -c 0) & d=$!\n'
                     'trap \'kill $d; wait $d; exit $?\' TERM; wait $d',
                     os.path.join(os.environ["DATAWIRE_BIN"], "datawire-directory"), label="unread") as program:
            at = program.wait_for_line(r"msg=serving grpc=(\S+)", 30, "stderr").group(1)
            self.assertEqual(dw("status", directory=at).code, 0)
            self.assertEqual(program.stop(20), 0)


if __name__ == "__main__":
    cases.main()
