"""datawire-directory as a program: starting, refusing, serving, stopping."""

import os
import re
import shutil
import signal
import socket
import stat
import time
import urllib.error
import urllib.request

import grpc

from harness import cases, programs
from harness.api import Api, pb, refused, urls, WithDirectory
from harness.programs import Directory, Program, eventually

NOBODY = 65534


def http_get(at, path):
    """(status code, text)"""
    try:
        with urllib.request.urlopen(f"http://{at}{path}", timeout=5) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


class Server(cases.TestCase):
    def fails(self, *args, command="datawire-directory", deadline=10.0):
        """It ends with exit code 1 and one line on stderr, which is returned; nothing on stdout."""
        with Program(command, *args) as program:
            self.assertEqual(program.wait(deadline), 1, program.tail())
            lines = program.output("stderr").splitlines()
            self.assertEqual(len(lines), 1, lines)
            self.assertEqual(program.output("stdout"), "")
        return lines[0]

    def init(self):
        """The data directory of a server that has run and stopped."""
        with Directory() as directory:
            pass
        return directory.data


class Starting(Server):
    def test_ready_line_shows_the_real_ports_and_stdout_holds_nothing_else(self):
        with Directory() as directory:
            self.assertRegex(directory.output(), r"\Aready grpc=127\.0\.0\.1:[1-9]\d* http=127\.0\.0\.1:[1-9]\d*\n\Z")
            with Api(directory) as api:
                self.assertTrue(api.status().healthy)
            self.assertEqual(http_get(directory.http, "/healthz")[0], 200)

    def test_flags_and_keys_that_are_wrong_are_refused_in_one_line_with_the_value(self):
        folder = self.scratch()

        def file(name, text):
            path = os.path.join(folder, name)
            with open(path, "w", encoding="utf-8") as out:
                out.write(text)
            return path

        data = os.path.join(folder, "data")
        for args, shown in (
                (["--data", data, "--colour", "red"], "--colour"),
                (["--data", data, "--listen", "nowhere"], "`nowhere`"),
                (["--data", data, "--http-listen", "127.0.0.1:70000"], "70000"),
                (["--data", data, "--node-id", "a b"], "`a b`"),
                (["--dev", "--data", data], "--data and --dev"),
                ([], "--data is missing"),
                (["--data", data, "--tls-cert", "x"], "tls-key is missing"),
                (["--config", file("key.toml", "listn = \"127.0.0.1:1\"\n")], "`listn`"),
                (["--config", file("section.toml", "[tls]\ncert = \"x\"\n")], "`tls`"),
                (["--config", os.path.join(folder, "none.toml")], "none.toml")):
            with self.subTest(args=args):
                self.assertIn(shown, self.fails(*args))
        self.assertFalse(os.path.exists(data))

    def test_a_config_file_serves_like_flags(self):
        folder = self.scratch()
        path = os.path.join(folder, "directory.toml")
        with open(path, "w", encoding="utf-8") as out:
            out.write(f'data = "{folder}/data"\ninit = true\nnode-id = "from-file"\ncluster-id = "c7"\n'
                      'listen = "127.0.0.1:0"\nhttp-listen = "127.0.0.1:0"\n')
        with Program("datawire-directory", "--config", path) as program:
            at = program.wait_for_line(r"^ready grpc=(\S+)", 30).group(1)
            with Api(at) as api:
                source = api.status().source
            self.assertEqual((source.node_id, source.cluster_id, source.epoch), ("from-file", "c7", 1))
            self.assertEqual(program.stop(), 0)

    def test_help_and_version_go_to_stdout_with_exit_code_0(self):
        for flag, shown in (("--help", "--http-listen"), ("--version", "datawire-directory ")):
            with Program("datawire-directory", flag) as program:
                self.assertEqual(program.wait(), 0)
                self.assertIn(shown, program.output())
                self.assertEqual(program.output("stderr"), "")

    def test_beyond_loopback_wants_insecure_and_then_warns(self):
        data = os.path.join(self.scratch(), "data")
        for flag in ("--listen", "--http-listen"):
            self.assertIn("--insecure", self.fails("--data", data, "--init", flag, "0.0.0.0:0"))
        with Program("datawire-directory", "--data", data, "--init", "--insecure", "--listen", "0.0.0.0:0",
                     "--http-listen", "127.0.0.1:0") as program:
            program.wait_for_line(r"^ready grpc=0\.0\.0\.0:\d+ ", 30)
            program.wait_for_line(r"level=warning .*without certificates.* listener=grpc", 5, "stderr")
            self.assertEqual(program.stop(), 0)

    def test_dev_serves_temporary_data_that_is_gone_afterwards(self):
        temporary = self.scratch()
        before = int(time.time())
        with Program("datawire-directory", "--dev", "--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0",
                     env={"TMPDIR": temporary}) as program:
            at = program.wait_for_line(r"^ready grpc=(\S+)", 30).group(1)
            self.assertEqual(len(os.listdir(temporary)), 1)
            with Api(at) as api:
                source = api.status().source
            self.assertEqual(source.cluster_id, "dev")
            self.assertTrue(before <= source.epoch <= time.time(), source.epoch)
            self.assertEqual(program.stop(), 0)
        self.assertEqual(os.listdir(temporary), [])


class DataDirectory(Server):
    ports = ("--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0")

    def test_missing_or_empty_without_init_is_refused_and_stays_as_it_is(self):
        folder = self.scratch()
        missing, empty = os.path.join(folder, "missing"), os.path.join(folder, "empty")
        os.mkdir(empty)
        for path in (missing, empty):
            line = self.fails("--data", path, *self.ports)
            self.assertIn(path, line)
            self.assertIn("--init", line)
        self.assertFalse(os.path.exists(missing))
        self.assertEqual(os.listdir(empty), [])

    def test_init_of_an_initialised_one_is_refused_and_changes_nothing(self):
        with Directory() as directory, Api(directory) as api:
            api.register(("//demo/a", "amqp://127.0.0.1:1"))
            cluster = api.status().source.cluster_id
        line = self.fails("--data", directory.data, "--init", *self.ports)
        self.assertIn(directory.data, line)
        with Directory(data=directory.data) as again, Api(again) as api:
            self.assertEqual(api.status().source.cluster_id, cluster)
            self.assertEqual(urls(api.resolve("//demo/a").answers[0]), ["amqp://127.0.0.1:1"])

    def test_in_use_by_another_process_is_refused(self):
        with Directory() as directory:
            line = self.fails("--data", directory.data, *self.ports)
            self.assertIn(directory.data, line)
            self.assertIn("in use", line)
            with Api(directory) as api:
                self.assertTrue(api.status().healthy)

    def test_not_writable_is_refused(self):
        data = self.init()
        command, args = "datawire-directory", ["--data", data, *self.ports]
        for path in [data, *(os.path.join(data, name) for name in os.listdir(data))]:
            mode = stat.S_IMODE(os.stat(path).st_mode)
            os.chmod(path, (mode | 0o444 | (0o111 if os.path.isdir(path) else 0)) & ~0o222)
        try:
            if os.geteuid() == 0:  # modes do not bind root
                for parent in (os.path.dirname(data), os.path.dirname(os.path.dirname(data))):  # the test's own
                    os.chmod(parent, 0o755)
                args = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", programs.binary(command), *args]
                command = shutil.which("setpriv")
            line = self.fails(*args, command=command)
            self.assertIn(data, line)
            self.assertRegex(line, "writ")
        finally:
            for path in [data, *(os.path.join(data, name) for name in os.listdir(data))]:
                os.chmod(path, 0o700 if os.path.isdir(path) else 0o600)

    def test_of_a_newer_version_is_refused_and_left_alone(self):
        data = self.init()
        with Program("newer_store", data) as program:
            self.assertEqual(program.wait(), 0, program.tail())
        line = self.fails("--data", data, *self.ports)
        self.assertIn(data, line)
        self.assertRegex(line, "newer")

    def test_registrations_survive_kill_9_and_restart(self):
        with Directory() as directory:
            with Api(directory) as api:
                pairs = [(f"//demo/s{i}", f"amqp://127.0.0.1:{5000 + i}") for i in range(20)]
                revision = api.register(*pairs).revision
                cluster = api.status().source.cluster_id
                tether = api.tether(host="h", program="p")
                welcome = tether.receive().welcome
                tether.send(pb.TetherRequest(register=pb.TetherRequest.Register(op_id=1, registrations=[
                    pb.TetherRequest.Registration(address="//demo/t", endpoint=pb.EndpointSpec(url="amqp://127.0.0.1:9"))])))
                self.assertFalse(tether.receive().done.HasField("refusal"))
                directory.kill9()
            directory.start_again()
            with Api(directory) as api:
                answers = api.resolve(*[address for address, _ in pairs], "//demo/t").answers
                self.assertEqual([urls(answer) for answer in answers], [[url] for _, url in pairs] + [["amqp://127.0.0.1:9"]])
                self.assertGreaterEqual(answers[0].revision.number, revision.number)
                self.assertEqual(api.status().source.cluster_id, cluster)
                resumed = api.tether(session_id=welcome.session_id, secret=welcome.secret, attach_number=2).receive().welcome
                self.assertTrue(resumed.resumed)


class Ports(Server):
    def test_a_used_port_is_refused_whichever_listener(self):
        with socket.socket() as used:
            used.bind(("127.0.0.1", 0))
            used.listen()
            at = f"127.0.0.1:{used.getsockname()[1]}"
            for listen, http in ((at, "127.0.0.1:0"), ("127.0.0.1:0", at)):
                line = self.fails("--dev", "--listen", listen, "--http-listen", http)
                self.assertIn(at, line)
                self.assertIn("already in use", line)

    def test_a_second_server_on_the_same_ports_is_refused(self):
        with Directory() as first:
            for listen, http in ((first.address, "127.0.0.1:0"), ("127.0.0.1:0", first.http)):
                self.assertIn("already in use", self.fails("--dev", "--listen", listen, "--http-listen", http))


class Stopping(Server):
    def test_sigterm_ends_open_streams_in_bounded_time(self):
        with Directory() as directory, Api(directory) as api:
            tether = api.tether(host="h", program="p")
            tether.receive()
            subscribe, watch = api.subscribe("//demo/a"), api.watch()
            subscribe.receive()
            watch.receive()
            begin = time.monotonic()
            self.assertEqual(directory.stop(6), 0)
            self.assertLess(time.monotonic() - begin, 5)
            self.assertTrue(tether.receive_until(lambda message: message.WhichOneof("kind") == "move"))
            for stream in (tether, subscribe, watch):
                with refused(self, grpc.StatusCode.UNAVAILABLE) as held:
                    stream.receive_until(lambda _: False)
                self.assertIn("this server stops", held.failure.message)  # told, not cut at the deadline

    def test_sigint_ends_it_too(self):
        with Directory() as directory:
            directory.kill(signal.SIGINT)
            self.assertEqual(directory.wait(6), 0)

    def test_a_second_signal_ends_it_at_once(self):
        with Directory() as directory:
            directory.sigstop()  # so that both signals are there when it looks
            directory.kill(signal.SIGTERM)
            directory.kill(signal.SIGINT)
            directory.sigcont()
            self.assertEqual(directory.wait(2), 1)
            self.assertIn("a second signal", directory.output("stderr"))

    def test_a_frozen_subscriber_does_not_hold_it_up(self):
        with Directory() as directory, Api(directory) as api:
            # The client's side of the socket is never read after this.
            with socket.create_connection(directory.address.rsplit(":", 1)) as mute:
                mute.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
                api.subscribe("//demo/a").receive()
                begin = time.monotonic()
                self.assertEqual(directory.stop(6), 0)
                self.assertLess(time.monotonic() - begin, 5)


class Ops(Server):
    def test_metrics_are_those_of_the_table(self):
        with open(os.path.join(os.environ["DATAWIRE_SOURCE"], "directory/ops/METRICS.md"), encoding="utf-8") as file:
            table = dict(re.findall(r"^\| `(datawire_(?!etcd_)\w+)` \| (\w+) \|", file.read(), re.MULTILINE))
        with Directory() as directory, Api(directory) as api:
            api.resolve("//demo/a")
            code, text = http_get(directory.http, "/metrics")
        self.assertEqual(code, 200)
        shown = dict(re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE))
        self.assertEqual(shown, table)
        for name, kind in table.items():
            self.assertEqual(name.endswith("_total"), kind == "counter", name)
        self.assertRegex(text, r'(?m)^datawire_grpc_calls_total\{verb="resolve",code="OK"\} 1$')
        self.assertRegex(text, r"(?m)^datawire_healthy 1$")

    def test_ready_while_it_serves(self):
        with Directory() as directory:
            self.assertEqual(http_get(directory.http, "/readyz"), (200, "ok\n"))
            self.assertEqual(http_get(directory.http, "/nothing")[0], 404)

    def test_hostile_http_hurts_nobody(self):
        with Directory() as directory:
            at = directory.http.rsplit(":", 1)
            held = [socket.create_connection(at) for _ in range(8)]  # more than there are threads, and silent
            try:
                for request in (b"\0" * 4096, b"GET /metrics HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n" + b"x" * 10000,
                                b"G" * 100_000):
                    with socket.create_connection(at) as peer:
                        try:
                            peer.sendall(request)
                        except OSError:
                            pass
                eventually(lambda: http_get(directory.http, "/healthz")[0] == 200, 15)
            finally:
                for one in held:
                    one.close()

    def test_the_log_is_logfmt_on_stderr(self):
        with Directory() as directory:
            directory.wait_for_line(r"msg=serving", 5, "stderr")
        for line in directory.output("stderr").splitlines():
            self.assertRegex(line, r'^ts=\S+Z level=\w+ msg=("[^"]*"|\S+)( [a-z_]+=("[^"]*"|\S+))*$')


class Grpc(WithDirectory, Server):
    def test_health_says_serving_for_the_server_and_its_services(self):
        for service in ("", "datawire.directory.v1.Directory", "datawire.directory.v1.Admin"):
            request = b"\x0a" + bytes([len(service)]) + service.encode() if service else b""
            self.assertEqual(self.api.raw("/grpc.health.v1.Health/Check", request), b"\x08\x01", service)
        with refused(self, grpc.StatusCode.NOT_FOUND):
            self.api.raw("/grpc.health.v1.Health/Check", b"\x0a\x03abc")

    def test_reflection_lists_the_services(self):
        call = self.api.channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
        reply = next(call(iter([b"\x3a\x01*"]), timeout=10))
        for service in (b"datawire.directory.v1.Directory", b"datawire.directory.v1.Admin", b"grpc.health.v1.Health"):
            self.assertIn(service, reply)

    def test_a_malformed_address_is_invalid_with_the_value_and_the_rule(self):
        before = self.api.status().revision
        for call in (lambda: self.api.register(("//Demo/a b", "amqp://127.0.0.1:1")),
                     lambda: self.api.explain("//Demo/a b"),
                     lambda: self.api.list(prefix="//Demo/a b")):
            with refused(self, grpc.StatusCode.INVALID_ARGUMENT) as held:
                call()
            self.assertIn("a b", held.failure.message)
            self.assertEqual(held.failure.refusal.code, pb.INVALID)
            self.assertEqual(held.failure.refusal.message, held.failure.message)
        with refused(self, grpc.StatusCode.INVALID_ARGUMENT):
            self.api.watch(prefix="//a//b").receive()
        self.assertEqual(self.api.status().revision, before)

    def test_an_oversize_request_is_refused_with_the_limit(self):
        before = self.api.status().revision
        with refused(self, grpc.StatusCode.INVALID_ARGUMENT) as held:
            self.api.resolve(*["//demo/" + "x" * 100] * 700)
        self.assertIn("at most 65536", held.failure.message)
        with refused(self, grpc.StatusCode.RESOURCE_EXHAUSTED):
            self.api.resolve(*["//demo/" + "x" * 100] * 20_000)
        tether = self.api.tether(host="h" * 2_000_000)
        with refused(self, grpc.StatusCode.RESOURCE_EXHAUSTED):
            tether.receive()
        self.assertEqual(self.api.status().revision, before)

    def test_oversize_metadata_is_refused(self):
        status = "/datawire.directory.v1.Admin/Status"
        self.api.raw(status, b"", metadata=[("x-trace", "y" * 1000)])
        with Api(self.directory) as other, refused(self, grpc.StatusCode.RESOURCE_EXHAUSTED):
            other.raw(status, b"", metadata=[("x-long", "y" * 4096)])  # its own connection may go with it
        self.assertTrue(self.api.status().healthy)

    def test_bytes_that_are_no_message_are_invalid(self):
        for verb in ("Resolve", "Register", "Withdraw", "List", "Explain"):
            with refused(self, grpc.StatusCode.INVALID_ARGUMENT) as held:
                self.api.raw(f"/datawire.directory.v1.Directory/{verb}", b"\xff\xff\xff")
            self.assertIn(f"{verb}Request", held.failure.message)
        for verb in ("Tether", "Subscribe"):
            call = self.api.channel.stream_stream(f"/datawire.directory.v1.Directory/{verb}")
            with self.assertRaises(grpc.RpcError) as raised:
                list(call(iter([b"\xff\xff\xff"]), timeout=10))
            self.assertEqual(raised.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)

    def test_an_unknown_session_is_told_so(self):
        tether = self.api.tether(session_id=b"\x01" * 16, secret=b"\x02" * 32, attach_number=1)
        ended = tether.receive().ended
        self.assertEqual(ended.refusal.code, pb.SESSION_EXPIRED)
        self.assertEqual(ended.reason, "unknown")
        self.assertIsNone(tether.receive())  # the stream ended, OK

    def test_a_foreign_secret_is_denied_and_the_session_lives_on(self):
        tether = self.api.tether(host="h", program="p")
        welcome = tether.receive().welcome
        thief = self.api.tether(session_id=welcome.session_id, secret=b"\0" * len(welcome.secret), attach_number=9)
        self.assertEqual(thief.receive().ended.refusal.code, pb.DENIED)
        tether.send(pb.TetherRequest(heartbeat=pb.TetherRequest.Heartbeat(number=5)))
        self.assertEqual(tether.receive().heartbeat.number, 5)

    def test_a_stream_whose_first_message_is_no_hello_is_refused(self):
        tether = self.api.tether()
        tether.send(pb.TetherRequest(heartbeat=pb.TetherRequest.Heartbeat(number=1)))
        self.assertEqual(tether.receive().ended.refusal.code, pb.INVALID)

    def test_a_tether_that_says_nothing_is_closed_after_10_s(self):
        begin = time.monotonic()
        with refused(self, grpc.StatusCode.DEADLINE_EXCEEDED):
            self.api.tether().receive(15)
        self.assertGreater(time.monotonic() - begin, 9)

    def test_a_connection_that_says_nothing_is_closed_after_5_s(self):
        begin = time.monotonic()
        with socket.create_connection(self.directory.address.rsplit(":", 1), timeout=15) as mute:
            while mute.recv(4096):  # the server's settings, then its end
                pass
        self.assertTrue(4 < time.monotonic() - begin < 12)

    def test_many_subscribers_of_one_connection_are_served_and_forgotten_when_they_go(self):
        streams = [self.api.subscribe(f"//demo/s{i}") for i in range(90)]
        for stream in streams:
            stream.receive()
        for stream in streams:
            stream.close()
        eventually(lambda: self.api.status().subscribers == 0, 10)


if __name__ == "__main__":
    cases.main()
