"""TLS in both directions, against programs and libraries that we did not write where there is one: python's gRPC, openssl,
python-proton, etcd."""

import contextlib
import json
import os
import shutil
import socket
import ssl
import subprocess
import urllib.request
import warnings

import grpc
from proton import ConnectionException, Message, SSLDomain
from proton.utils import BlockingConnection, SyncRequestResponse

from harness import cases, certificates, programs
from harness.api import Api, Failed, pb, refused
from harness.programs import Directory, Program, dw

DENIED = grpc.StatusCode.PERMISSION_DENIED


class WithAuthority(cases.TestCase):
    """Each class has a CA, and one that nobody trusts."""

    @classmethod
    def setUpClass(cls):
        cls.ca = certificates.Authority(programs.scratch("ca"))
        cls.foreign = certificates.Authority(programs.scratch("foreign-ca"), "foreign")
        cls.server, cls.alice = cls.ca.issue("server"), cls.ca.issue("alice")
        # A certificate of the wrong CA, in the hands of somebody who trusts the right one.
        cls.mallory = cls.foreign.issue("alice")._replace(ca=cls.ca.cert)

    def start(self, *args, files=None):
        directory = Directory(*certificates.flags(files or self.server), *args)
        directory.__enter__()
        self.addCleanup(directory.__exit__, None)
        return directory


class Server(WithAuthority):
    """What a directory with certificates lets in."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.directory = Directory(*certificates.flags(cls.server))
        cls.directory.__enter__()

    @classmethod
    def tearDownClass(cls):
        cls.directory.__exit__(None)

    def status(self, files):
        with Api(self.directory, files) as api:
            return api.status()

    def test_a_client_with_a_certificate_of_the_ca_is_served(self):
        self.assertEqual(self.status(self.alice).source.node_id, "n1")

    def test_a_client_without_a_certificate_of_the_ca_is_refused(self):
        for files in (None, self.alice._replace(cert=None, key=None), self.mallory, self.ca.issue("old", days=-1)):
            with refused(self, grpc.StatusCode.UNAVAILABLE):
                self.status(files)

    def test_a_client_that_trusts_another_ca_refuses_the_server(self):
        with refused(self, grpc.StatusCode.UNAVAILABLE) as block:
            self.status(self.alice._replace(ca=self.foreign.cert))
        self.assertIn("certificate verify failed", block.failure.message)

    def test_tls_below_1_2_is_refused(self):
        for version, served in ((ssl.TLSVersion.TLSv1_1, False), (ssl.TLSVersion.TLSv1_2, True)):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.set_ciphers("DEFAULT:@SECLEVEL=0")
            with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
                context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, version
            context.load_verify_locations(self.ca.cert)
            context.load_cert_chain(self.alice.cert, self.alice.key)
            context.set_alpn_protocols(["h2"])
            host, port = self.directory.address.split(":")
            with socket.create_connection((host, int(port)), 10) as plain:
                try:
                    with context.wrap_socket(plain, server_hostname=host) as tls:
                        self.assertTrue(served)
                        self.assertEqual(tls.selected_alpn_protocol(), "h2")
                except ssl.SSLError:
                    self.assertFalse(served)

    def test_who_connects_and_says_nothing_is_gone_after_the_handshake_limit(self):
        host, port = self.directory.address.split(":")
        with socket.create_connection((host, int(port)), 10) as plain:
            plain.settimeout(20)
            self.assertEqual(plain.recv(1), b"")

    def test_no_or_two_identities_are_refused_by_every_verb_and_the_message_says_so(self):
        nobody = self.ca.issue("nobody", uris=[])
        two = self.ca.issue("two", uris=["spiffe://test/a", "spiffe://test/b"])
        other = self.ca.issue("other", uris=["https://test/a"])
        for files, part in ((nobody, "no identity"), (two, "2 identities"), (other, "`https://test/a` is no SPIFFE ID")):
            with Api(self.directory, files) as api:
                for call in (api.status, lambda: api.resolve("//demo/x"), lambda: api.register(("//demo/x", "amqp://h:1")),
                             lambda: api.tether(ttl_ms=3000).receive(), lambda: api.subscribe("//demo/x").receive(),
                             lambda: api.watch(prefix="//demo").receive()):
                    with refused(self, DENIED) as block:
                        call()
                    self.assertIn(part, block.failure.message)
                    self.assertIn("exactly one URI", block.failure.message)

    def test_a_session_is_resumed_by_the_identity_that_opened_it_only(self):
        hello = {}
        with Api(self.directory, self.alice) as api:
            welcome = api.tether(ttl_ms=60000).receive().welcome
            hello = {"session_id": welcome.session_id, "secret": welcome.secret, "attach_number": 5}
        with Api(self.directory, self.ca.issue("bob")) as api:
            refusal = api.tether(**hello).receive().ended.refusal
            self.assertEqual(refusal.code, pb.DENIED)
            self.assertIn("another identity than `spiffe://test/bob`", refusal.message)
        with Api(self.directory, self.alice) as api:
            self.assertTrue(api.tether(**hello).receive().welcome.resumed)

    def test_sessions_and_audit_show_the_identity(self):
        with Api(self.directory, self.alice) as api:
            api.tether(ttl_ms=60000).receive()
            api.register(("//who/x", "amqp://h:1"))
            self.assertIn("spiffe://test/alice", {one.identity for one in api.sessions().sessions})
            entries = api.audit_tail(address="//who").entries
            self.assertEqual([(one.identity, one.by) for one in entries], [("spiffe://test/alice",) * 2])


class Tool(WithAuthority):
    """dw, and what its verbs are made of: the library's resolver and tether."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.directory = Directory(*certificates.flags(cls.server))
        cls.directory.__enter__()

    @classmethod
    def tearDownClass(cls):
        cls.directory.__exit__(None)

    def dw(self, *args, files=None, **options):
        return dw(*args, *certificates.flags(files or self.alice), directory=self.directory, **options)

    def test_flags_variables_and_the_config_file_name_the_certificates(self):
        self.assertEqual(self.dw("status").code, 0)
        variables = {f"DATAWIRE_TLS_{key.upper()}": path for key, path in self.alice._asdict().items()}
        self.assertEqual(dw("status", directory=self.directory, env=variables).code, 0)
        home = self.scratch()
        os.mkdir(os.path.join(home, "datawire"))
        with open(os.path.join(home, "datawire", "config"), "w", encoding="utf-8") as file:
            file.write("".join(f"tls-{key} = {path}\n" for key, path in self.alice._asdict().items()))
        self.assertEqual(dw("status", directory=self.directory, env={"XDG_CONFIG_HOME": home}).code, 0)
        self.one_line(dw("status", directory=self.directory, env={"DATAWIRE_TLS_CERT": "x"}), 1, "go together")
        self.one_line(self.dw("status", files=self.alice._replace(key=self.server.key)), 1, "is not the key of")

    def test_whatever_is_wrong_is_said_in_one_line(self):
        self.one_line(dw("status", directory=self.directory), 4, "it speaks TLS")
        with Directory() as plain:
            self.one_line(dw("status", *certificates.flags(self.alice), directory=plain), 4, "it speaks no TLS")
        self.one_line(self.dw("status", files=self.mallory), 4, "it refuses tls-cert `", "alice.crt`")
        self.one_line(self.dw("status", files=self.alice._replace(ca=self.foreign.cert)), 4, "foreign.crt`: self-signed")
        elsewhere = self.ca.issue("elsewhere", hosts=["DNS:elsewhere.example"])
        self.one_line(dw("status", *certificates.flags(self.alice), directory=self.start(files=elsewhere)), 4, "IP address mismatch")
        self.one_line(self.dw("status", files=self.ca.issue("nobody", uris=[])), 5, "names no identity")
        self.one_line(self.dw("resolve", "//a/b", files=self.ca.issue("two", uris=["spiffe://t/a", "spiffe://t/b"])), 5,
                      "names 2 identities")

    def test_session_show_and_audit_tail_show_the_identity(self):
        with Program("dw", "register", "//shown/web", "amqp://127.0.0.1:5001", "--directory", self.directory.address,
                     *certificates.flags(self.alice)):
            programs.eventually(lambda: self.dw("resolve", "//shown/web").code == 0)
            session = next(one for one in json.loads(self.dw("session", "list", "-o", "json").stdout)
                           if one["program"] == "dw")
            shown = json.loads(self.dw("session", "show", session["id"], "-o", "json").stdout)
            self.assertEqual(shown["identity"], "spiffe://test/alice")
            self.assertIn("spiffe://test/alice", self.dw("session", "show", session["id"]).stdout)
        audit = [json.loads(line) for line in self.dw("audit", "tail", "-o", "jsonl", "--address", "//shown").stdout.splitlines()]
        self.assertEqual(audit[0]["identity"], "spiffe://test/alice")
        self.assertEqual(audit[0]["by"], "spiffe://test/alice")

    def test_a_client_takes_its_renewed_certificate_without_a_restart(self):
        folder = self.scratch()
        both = os.path.join(folder, "both.crt")
        with open(both, "w", encoding="utf-8") as file:
            for ca in (self.ca, self.foreign):
                with open(ca.cert, encoding="utf-8") as one:
                    file.write(one.read())
        mine = certificates.Files(os.path.join(folder, "mine.crt"), os.path.join(folder, "mine.key"), both)

        def take(files):
            for source, target in ((files.key, mine.key), (files.cert, mine.cert)):
                shutil.copy(source, target + ".new")
                os.replace(target + ".new", target)
        take(self.alice)
        directory = self.start(files=self.server._replace(ca=both))
        with Program("dw", "register", "//renewed/web", "amqp://127.0.0.1:5001", "--directory", directory.address,
                     *certificates.flags(mine)):
            def resolved(files):
                return lambda: dw("resolve", "//renewed/web", *certificates.flags(files), directory=directory).code == 0
            programs.eventually(resolved(self.alice))
            take(self.foreign.issue("alice"))
            directory.stop()
            directory.extra = certificates.flags(self.server._replace(ca=self.foreign.cert))
            directory.start_again()
            renewed = self.foreign.issue("alice")._replace(ca=self.ca.cert)

            def attached():
                listed = dw("session", "list", "-o", "json", *certificates.flags(renewed), directory=directory)
                return listed.code == 0 and any(one["attached"] for one in json.loads(listed.stdout))
            programs.eventually(attached, 30, "the session is resumed with the renewed certificate")


class Links(WithAuthority):
    """amqps endpoints: services of ours with certificates, and who links to them."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.directory = Directory(*certificates.flags(cls.server))
        cls.directory.__enter__()

    @classmethod
    def tearDownClass(cls):
        cls.directory.__exit__(None)

    def upper(self, files, address="//demo/upper"):
        """The example service, and its URL once it is registered."""
        variables = {f"DATAWIRE_TLS_{key.upper()}": path for key, path in files._asdict().items()}
        program = Program("datawire-example-upper", address, env={**variables, "DATAWIRE_DIRECTORY": self.directory.address})
        program.__enter__()
        self.addCleanup(program.__exit__, None)
        url = program.wait_for_line(r"at (amqps://\S+)$", stream="stderr").group(1)
        programs.eventually(lambda: url in self.dw("resolve", address, "-o", "short").stdout)
        return url

    def dw(self, *args, files=None, **options):
        return dw(*args, *certificates.flags(files or self.alice), directory=self.directory, **options)

    @staticmethod
    def proton(url, files):
        """What python-proton gets for a request; ConnectionException if it is not let in."""
        domain = SSLDomain(SSLDomain.MODE_CLIENT)
        domain.set_trusted_ca_db(files.ca)
        domain.set_peer_authentication(SSLDomain.VERIFY_PEER_NAME)
        if files.cert:
            domain.set_credentials(files.cert, files.key, None)
        # By name: proton does not compare IP addresses.
        connection = BlockingConnection(url.replace("127.0.0.1", "localhost"), 10, ssl_domain=domain, virtual_host="localhost")
        try:
            return SyncRequestResponse(connection, "//demo/upper").call(Message(body="through proton")).body
        finally:
            connection.close()

    def test_a_service_announces_amqps_and_python_proton_with_a_certificate_is_served(self):
        url = self.upper(self.ca.issue("upper"))
        self.assertEqual(self.proton(url, self.alice), "THROUGH PROTON")
        for files in (self.alice._replace(cert=None), self.mallory):
            with self.assertRaises(ConnectionException):
                self.proton(url, files)

    def test_openssl_without_a_certificate_is_refused_by_directory_and_service(self):
        for at in (self.directory.address, self.upper(self.ca.issue("upper")).removeprefix("amqps://")):
            command = ["openssl", "s_client", "-connect", at, "-CAfile", self.ca.cert, "-tls1_2", "-alpn", "h2"]
            own = ["-cert", self.alice.cert, "-key", self.alice.key]
            for files, served in ((own, True), ([], False)):
                done = subprocess.run([*command, *files], input=b"Q\n", capture_output=True, timeout=20, check=False)
                self.assertEqual(done.returncode == 0, served, done.stderr)

    def test_dw_sends_requests_and_receives_over_amqps(self):
        url = self.upper(self.ca.issue("upper"))
        self.assertEqual(self.dw("request", "//demo/upper", "hi", "--wait", "5s").stdout, "HI\n")
        self.assertEqual(dw("request", url + "///demo/upper", "hi", *certificates.flags(self.alice)).stdout, "HI\n")
        with Program("dw", "receive", "//demo/inbox", "--count", "2", "--directory", self.directory.address,
                     *certificates.flags(self.server)) as receive:
            self.assertEqual(self.dw("send", "//demo/inbox", "one", "two", "--wait", "10s").code, 0)
            self.assertEqual(receive.wait(), 0)
            self.assertEqual(receive.output(), "one\ntwo\n")

    def test_register_check_amqp_probes_amqps_with_the_certificates(self):
        def register(files):
            url = self.upper(files, "//demo/probed")
            return Program("dw", "register", "//demo/checked", url, "--check", "amqp", "--directory", self.directory.address,
                           *certificates.flags(self.alice))
        with register(self.ca.issue("probed")) as held:
            held.wait_for_line("^registered ", 30)
        with register(self.ca.issue("elsewhere", hosts=["DNS:elsewhere.example"])) as held:
            held.wait_for_line("does not pass.*registered once it answers", 30, "stderr")

    def test_who_shows_another_certificate_than_was_registered_gets_no_message(self):
        right = self.upper(self.ca.issue("right"), "//demo/right")
        self.assertEqual(self.endpoints("//demo/right"), {right: "spiffe://test/right"}, "a service says who it is")

        def register(identity, url=right):
            done = self.dw("register", "--static", "//demo/named", url + "///demo/right", "--identity", identity)
            self.assertEqual(done.code, 0, done)
        register("spiffe://test/other")
        self.one_line(self.dw("request", "//demo/named", "hi", "--timeout", "1s"), 6,
                      "shows the certificate of `spiffe://test/right`, it is registered as `spiffe://test/other`")
        second = self.upper(self.ca.issue("second"), "//demo/right")
        register("spiffe://test/second", second)
        self.assertEqual(self.endpoints("//demo/named"), {right + "///demo/right": "spiffe://test/other",
                                                         second + "///demo/right": "spiffe://test/second"})
        for _ in range(5):
            self.assertEqual(self.dw("request", "//demo/named", "hi").stdout, "HI\n", "it goes elsewhere")
        self.assertEqual(self.dw("request", "//demo/right", "hi").stdout, "HI\n")
        for url, identity, part in ((right, "test/right", "no SPIFFE ID"), ("amqp://127.0.0.1:1", "spiffe://test/a", "no certificate")):
            self.one_line(self.dw("register", "--static", "//demo/named", url, "--identity", identity), 1, part)

    def endpoints(self, address):
        found = json.loads(self.dw("resolve", address, "-o", "json").stdout)["endpoints"]
        return {one["url"]: one["identity"] for one in found}

    def test_what_is_wrong_with_a_link_is_said_in_one_line(self):
        url = self.upper(self.ca.issue("upper"))
        elsewhere = self.upper(self.ca.issue("other", hosts=["DNS:elsewhere.example"]), "//demo/elsewhere")
        one_line = lambda code, files, at, part: self.one_line(
            dw("request", at, "hi", "--timeout", "1s", *(certificates.flags(files) if files else ())), code, part)
        one_line(1, None, url, "wants certificates")
        one_line(6, self.mallory, url, "unknown ca")
        one_line(6, self.alice._replace(ca=self.foreign.cert), url, "self-signed certificate")
        one_line(6, self.alice, elsewhere, "does not pass")
        one_line(6, self.alice, url.replace("amqps", "amqp"), "closed the socket")

    def test_a_renewed_service_goes_on_and_shows_its_new_certificate(self):
        url = self.upper(self.ca.issue("upper"))
        at = tuple(url.removeprefix("amqps://").split(":"))
        before = ssl.get_server_certificate(at)
        self.ca.issue("upper")
        self.assertNotEqual(ssl.get_server_certificate(at), before)
        self.assertEqual(self.dw("request", "//demo/upper", "hi").stdout, "HI\n")


class Start(WithAuthority):
    """What a directory says of its files."""

    def test_beyond_loopback_wants_certificates_or_insecure(self):
        data = os.path.join(self.scratch(), "data")
        with Program("datawire-directory", "--data", data, "--init", "--listen", "0.0.0.0:0") as program:
            self.assertEqual(program.wait(), 1)
            self.assertRegex(program.output("stderr"), r"^datawire-directory: --listen `0\.0\.0\.0:0` .*--tls-cert.*--insecure\n$")
        with Directory(*certificates.flags(self.server), host="0.0.0.0") as directory:
            with Api("127.0.0.1:" + directory.address.rsplit(":", 1)[1], self.alice) as api:
                api.status()
            self.assertNotIn("without certificates", directory.output("stderr"))

    def test_metrics_beyond_loopback_stay_plain_and_are_warned_of(self):
        data = os.path.join(self.scratch(), "data")
        with Program("datawire-directory", "--data", data, "--init", *certificates.flags(self.server), "--listen", "127.0.0.1:0",
                     "--http-listen", "0.0.0.0:0") as program:
            port = program.wait_for_line(r"^ready .* http=0\.0\.0\.0:(\d+)", 30).group(1)
            program.wait_for_line(r"level=warning .*without certificates: anybody can read metrics and health.* listener=http", 5, "stderr")
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5) as page:
                self.assertEqual(page.status, 200)
            self.assertEqual(program.stop(), 0)

    def test_files_that_do_not_belong_together_are_refused_in_one_line(self):
        for files, part in ((self.server._replace(key=self.alice.key), "is not the key of"),
                            (self.server._replace(ca=self.server.ca + ".none"), "No such file"),
                            (self.ca.issue("late", days=-1), "has expired")):
            with Program("datawire-directory", "--dev", *certificates.flags(files)) as program:
                self.assertEqual(program.wait(), 1)
                lines = program.output("stderr").splitlines()
                self.assertEqual(len(lines), 1, lines)
                self.assertIn(part, lines[0])

    def test_the_files_are_keys_of_the_config_file(self):
        config = os.path.join(self.scratch(), "config")
        with open(config, "w", encoding="utf-8") as file:
            file.write("".join(f'{key} = "{path}"\n' for key, path in
                               (("tls-cert", self.server.cert), ("tls-key", self.server.key), ("tls-ca", self.server.ca))))
        with Directory("--config", config) as directory, Api(directory, self.alice) as api:
            api.status()


class Etcd(WithAuthority):
    def etcd(self):
        """(HOST:PORT, the program) of an etcd that wants certificates of the CA."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            at = f"127.0.0.1:{free.getsockname()[1]}"
        files = self.ca.issue("etcd")
        program = Program("/usr/bin/etcd", "--data-dir", os.path.join(self.scratch(), "etcd"), "--listen-client-urls",
                          f"https://{at}", "--advertise-client-urls", f"https://{at}", "--listen-peer-urls", "http://127.0.0.1:0",
                          "--cert-file", files.cert, "--key-file", files.key, "--trusted-ca-file", files.ca,
                          "--client-cert-auth", "--log-level", "error")
        program.__enter__()
        self.addCleanup(program.__exit__, None)
        return at

    def test_https_endpoints_are_spoken_to_with_the_certificates_and_what_is_wrong_is_logged(self):
        at = self.etcd()
        engine = ("--engine", "etcd", "--etcd-endpoints")
        directory = self.start(*engine, f"https://{at}")
        with Api(directory, self.alice) as api:
            api.register(("//etcd/x", "amqp://h:1"))
            self.assertEqual(api.resolve("//etcd/x").answers[0].row.endpoints[0].url, "amqp://h:1")
        wrong = ((at, self.server, "it speaks TLS"), (f"https://{at}", self.mallory, "it refuses tls-cert"),
                 (f"https://{at}", self.server._replace(ca=self.foreign.cert), "does not pass tls-ca"))
        with contextlib.ExitStack() as running:
            said = [(running.enter_context(Program(
                "datawire-directory", "--data", os.path.join(self.scratch(), "data"), *engine, endpoint, "--listen",
                "127.0.0.1:0", "--http-listen", "127.0.0.1:0", *certificates.flags(files))), part)
                for endpoint, files, part in wrong]
            for program, part in said:
                program.wait_for_line(f"waiting for etcd.*{part}", 20, "stderr")


class Renewal(WithAuthority):
    def test_renewed_certificates_are_taken_without_a_restart_and_streams_live_on(self):
        files = self.ca.issue("renewed", uris=["spiffe://test/first"])
        directory = self.start(files=files)

        def shown():
            return ssl.get_server_certificate(tuple(directory.address.split(":")))

        with Api(directory, self.alice) as api:
            stream = api.watch(prefix="//demo")
            stream.receive()
            before = shown()
            self.ca.issue("renewed")
            programs.eventually(lambda: shown() != before, 20, "the new certificate is shown")
            stream.receive()  # a mark each second
            with Api(directory, self.alice) as later:
                later.status()

    def test_a_new_ca_is_taken_too(self):
        folder = self.scratch()
        ca = os.path.join(folder, "ca.crt")
        with open(self.ca.cert, encoding="utf-8") as mine, open(self.foreign.cert, encoding="utf-8") as other:
            old, new = mine.read(), other.read()
        with open(ca, "w", encoding="utf-8") as file:
            file.write(old)
        directory = self.start(files=self.server._replace(ca=ca))
        with refused(self, grpc.StatusCode.UNAVAILABLE), Api(directory, self.mallory) as api:
            api.status()
        with open(ca + ".new", "w", encoding="utf-8") as file:
            file.write(old + new)
        os.replace(ca + ".new", ca)

        def served():
            try:
                with Api(directory, self.mallory) as api:
                    return api.status()
            except Failed:
                return None
        programs.eventually(served, 20, "the new CA is trusted")


if __name__ == "__main__":
    cases.main()
