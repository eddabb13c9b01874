"""The directory is found by DNS SRV: by dw and by a session that a server outlives, at a real DNS server."""

import time

from harness import cases
from harness.dns import Dns
from harness.programs import Directory, Program, dw, dw_json, eventually


def record(directory, priority=1):
    return f"localhost,{directory.address.split(':')[1]},{priority},1"


class DiscoveryTest(cases.TestCase):
    def test_dw_finds_the_server_of_the_lowest_priority(self):
        with Directory(node_id="near") as near, Directory(node_id="far") as far, Dns() as dns:
            dns.serve(record(far, 20), record(near, 10))
            self.assertEqual(dw("register", "--static", "//a/b", "amqp://127.0.0.1:5", env=dns.env).code, 0)
            self.assertEqual(dw_json("resolve", "//a/b", directory=near)["status"], "FOUND")
            near.kill9()
            self.assertEqual(dw("resolve", "//a/b", env=dns.env).code, 2)  # the other one answers

    def test_what_names_servers_goes_before_a_domain(self):
        with Directory() as directory, Dns() as dns:
            dns.serve()
            at = {**dns.env, "DATAWIRE_DIRECTORY": directory.address}
            self.assertEqual(dw("status", env=at).code, 0)
            self.assertEqual(dw("status", directory=directory, env=dns.env).code, 0)

    def test_no_name_no_dns_and_a_target_that_says_none_are_told_in_one_line_in_time(self):
        with Dns() as dns:
            for records, why in (((), "no such name (NXDOMAIN)"), (("",), "names no directory server")):
                dns.serve(*records)
                self.refused(dns, why)
            dns.end()
            self.refused(dns, "_datawire._tcp.example.test")
            result = dw("status", env={**dns.env, "DATAWIRE_DOMAIN": "no domain"})
            self.assertEqual(result.code, 1)
            self.assertIn("$DATAWIRE_DOMAIN: `no domain` is no domain", result.stderr)

    def refused(self, dns, why):
        start = time.monotonic()
        result = dw("status", "--timeout", "2s", env=dns.env)
        self.assertEqual(result.code, 4)
        self.assertIn(why, result.stderr)
        self.assertEqual(result.stderr.count("\n"), 1)
        self.assertLess(time.monotonic() - start, 5)

    def test_a_session_waits_for_dns_and_moves_when_its_server_is_listed_no_longer(self):
        with Directory(node_id="one") as one, Directory(node_id="two") as two, Dns() as dns:
            with Program("dw", "register", "//a/b", "amqp://127.0.0.1:5", "--wait", "30s", env=dns.env) as holder:
                dns.serve(record(one))
                eventually(lambda: dw_json("resolve", "//a/b", directory=one, code=None)["status"] == "FOUND", 20)
                dns.serve(record(two))
                eventually(lambda: dw_json("resolve", "//a/b", directory=two, code=None)["status"] == "FOUND", 20)
                self.assertIn("DNS lists its server no longer", holder.output("stderr"))

    def test_a_session_that_dns_names_no_server_goes_on_with_those_it_knows(self):
        with Directory(node_id="one") as one, Directory(node_id="two") as two, Dns() as dns:
            dns.serve(record(one), record(two, 2))
            with Program("dw", "register", "//a/b", "amqp://127.0.0.1:5", env=dns.env):
                eventually(lambda: dw_json("resolve", "//a/b", directory=one, code=None)["status"] == "FOUND", 20)
                dns.serve()
                dns.wait_for_line("config _datawire._tcp.example.test is NXDOMAIN", 20, "stderr")
                one.kill9()
                eventually(lambda: dw_json("resolve", "//a/b", directory=two, code=None)["status"] == "FOUND", 20)


if __name__ == "__main__":
    cases.main()
