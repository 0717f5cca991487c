"""The etcd of a site on the segment of the hosts, with TLS, which demands a certificate of its clients."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import trustme

from compat_tests.support.daemons import STOP, Completed, run_program
from compat_tests.support.polling import until

_PORT, _PEERS = 2379, 2380


class SiteEtcd:
    """One member, which will listen at ``address``. Call ``start``, and ``stop`` at the end."""

    def __init__(self, directory: Path, address: str) -> None:
        self.url = f"https://{address}:{_PORT}"
        self._enter: list[str] = []
        self._data, self._log = directory / "data", directory / "log"
        self.ca, self.certificate, self.key = (directory / name for name in ("ca.pem", "client.pem", "client-key.pem"))
        authority = trustme.CA()
        authority.cert_pem.write_to_path(self.ca)
        client = authority.issue_cert("manager@site.example")
        client.cert_chain_pems[0].write_to_path(self.certificate)
        client.private_key_pem.write_to_path(self.key)
        server = authority.issue_cert(address)
        self._own = directory / "server.pem"
        server.private_key_and_cert_chain_pem.write_to_path(self._own)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def flags(self) -> tuple[str, ...]:
        """The flags of wharfd."""
        files = ("--swarm-store-ca", str(self.ca), "--swarm-store-cert", str(self.certificate))
        return ("--swarm-store", self.url, *files, "--swarm-store-key", str(self.key))

    def ctl(self, *args: str, identified: bool = True) -> Completed:
        """Run etcdctl. ``identified``: with the client's certificate."""
        tls = ["--cacert", str(self.ca)]
        if identified:
            tls += ["--cert", str(self.certificate), "--key", str(self.key)]
        argv = [*self._enter, "etcdctl", "--endpoints", self.url, "--command-timeout", "1s", *tls, *args]
        return run_program(argv, env=dict(os.environ), check=False)

    def start(self, enter: Sequence[str] | None = None) -> None:
        """``enter``: the start of a command that runs a program in the namespaces of the address; None: as before."""
        if enter is not None:
            self._enter = list(enter)
        peers = f"http://127.0.0.1:{_PEERS}"
        argv = [*self._enter, "etcd", "--data-dir", str(self._data), "--name", "site"]
        argv += ["--listen-client-urls", self.url, "--advertise-client-urls", self.url]
        argv += ["--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers]
        argv += ["--initial-cluster", f"site={peers}", "--cert-file", str(self._own), "--key-file", str(self._own)]
        argv += ["--client-cert-auth", "--trusted-ca-file", str(self.ca)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        assert until(lambda: self.ctl("endpoint", "health").status == 0), self._log.read_text()[-2000:]

    def stop(self) -> None:
        """End it with SIGKILL."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait(STOP)
