"""A DNS server that names the directory: dnsmasq on loopback, for the domain example.test alone."""

import os

from harness.etcd import free_port
from harness.programs import Program, scratch


class Dns(Program):
    """`serve` starts it, or starts it again on the same port with other records."""

    def __init__(self):
        self._config = os.path.join(scratch("dns"), "dnsmasq.conf")
        super().__init__("/usr/sbin/dnsmasq", "--no-daemon", f"--conf-file={self._config}", label="dnsmasq")
        self.address = f"127.0.0.1:{free_port()}"
        self.env = {"DATAWIRE_DOMAIN": "example.test", "DATAWIRE_DNS": self.address}

    def __enter__(self):
        return self

    def serve(self, *records):
        """Each is `target,port,priority,weight`; `""` is the target `.`; none: no such name."""
        self.end()
        with open(self._config, "w", encoding="utf-8") as file:
            file.write("listen-address=127.0.0.1\nbind-interfaces\nno-resolv\nno-hosts\nlocal=/test/\nlocal-ttl=1\nlog-queries\n"
                       f"port={self.address.split(':')[1]}\n")
            file.writelines(f"srv-host=_datawire._tcp.example.test{',' if record else ''}{record}\n" for record in records)
        self.start()
        self.wait_for_line(": started", stream="stderr")
