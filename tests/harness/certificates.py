"""A CA and certificates of its making, by the openssl command line: what TLS tests show each other."""

import collections
import os
import subprocess

Files = collections.namedtuple("Files", "cert key ca")
DAYS = 30


def _openssl(*args):
    done = subprocess.run(["openssl", *args], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"openssl {' '.join(args)}: {done.stderr}"


def _write(path, text):
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return path


def flags(files):
    """What datawire-directory and dw are told of them."""
    return ["--tls-cert", files.cert, "--tls-key", files.key, "--tls-ca", files.ca]


class Authority:
    """A CA in a folder. `issue` writes NAME.crt and NAME.key there."""

    def __init__(self, folder, name="ca"):
        self.folder, self.cert, self._key = folder, self._path(folder, name + ".crt"), self._path(folder, name + ".key")
        _openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", str(DAYS),
                 "-subj", f"/CN=test {name}", "-keyout", self._key, "-out", self.cert)

    @staticmethod
    def _path(folder, name):
        return os.path.join(folder, name)

    def issue(self, name, uris=None, hosts=("DNS:localhost", "IP:127.0.0.1"), days=DAYS):
        """Files of a certificate for both ends; one already there is replaced as renewals do, the certificate last.

        `uris`: None for spiffe://test/NAME. A negative number of days: it has expired.
        """
        cert, key = self._path(self.folder, name + ".crt"), self._path(self.folder, name + ".key")
        names = list(hosts) + ["URI:" + uri for uri in ([f"spiffe://test/{name}"] if uris is None else uris)]
        extensions = _write(cert + ".ext", "basicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth,clientAuth\n" +
                            (f"subjectAltName={','.join(names)}\n" if names else ""))
        _openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", f"/CN={name}",
                 "-keyout", key + ".new", "-out", cert + ".csr")
        _openssl("x509", "-req", "-in", cert + ".csr", "-CA", self.cert, "-CAkey", self._key, "-CAcreateserial",
                 "-days", str(days), "-extfile", extensions, "-out", cert + ".new")
        os.replace(key + ".new", key)
        os.replace(cert + ".new", cert)
        return Files(cert, key, self.cert)
