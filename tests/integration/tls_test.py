"""TLS in both directions, against programs and libraries that we did not write where there is one: python's gRPC, openssl,
python-proton, etcd."""

import os
import socket
import ssl
import warnings

import grpc

from harness import cases, certificates, programs
from harness.api import Api, Failed, pb, refused
from harness.programs import Directory, Program

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
