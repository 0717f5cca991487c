"""Clients on a TCP socket: the user is the name in the client's certificate."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from compat_tests.support.daemons import Completed
from compat_tests.support.host.ports import free_ports
from compat_tests.support.users import Lab, lab

POLICY = """
published_images = ["docker.io/library/busybox:*"]

[administrators]
certificates = ["operator"]

[users]
{alice} = "member"

[roles.member]

[audit]
file = "AUDIT"
"""


class Remote:
    """A lab whose engine listens on TCP, and clients with certificates."""

    def __init__(self, made: Lab, folder: Path, port: int) -> None:
        self.lab, self.folder, self._port = made, folder, port

    def docker(self, who: str, *args: str, check: bool = True) -> Completed:
        """Run the CLI with the certificate of a name; "": with a certificate that has no name."""
        files = {"cacert": "ca.pem", "cert": f"{who}.pem", "key": f"{who}-key.pem"}
        words = ["--tlsverify", *(f"--tls{name}={self.folder / path}" for name, path in files.items())]
        host = f"tcp://127.0.0.1:{self._port}"
        return self.lab.engine.run("docker", *words, "-H", host, *args, env={"DOCKER_HOST": ""}, check=check)


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Remote]:
    trustme = pytest.importorskip("trustme")
    folder, port, authority = tmp_path_factory.mktemp("tls"), free_ports(), trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))

    def issue(file: str, name: str | None, address: str = "client") -> None:
        made = authority.issue_cert(address, common_name=name)
        made.private_key_pem.write_to_path(str(folder / f"{file}-key.pem"))
        made.cert_chain_pems[0].write_to_path(str(folder / f"{file}.pem"))

    issue("server", None, "127.0.0.1")
    flags = ["--tlsverify", "--tlscacert", str(folder / "ca.pem"), "--tlscert", str(folder / "server.pem")]
    flags += ["--tlskey", str(folder / "server-key.pem"), "-H", f"tcp://127.0.0.1:{port}"]
    policy = POLICY.replace("AUDIT", str(folder / "audit.log"))
    with lab("remote", policy, ("alice",), *flags) as made:
        for file, name in (("alice", made["alice"].name), ("operator", "operator"), ("mallory", "mallory"), ("", None)):
            issue(file, name)
        yield Remote(made, folder, port)


def test_the_user_of_a_certificate_is_the_user_of_the_socket(remote: Remote) -> None:
    alice = remote.lab["alice"]
    id = remote.docker("alice", "run", "-d", "--name", "far", "busybox", "sleep", "600").stdout.strip()
    assert alice.docker("ps", "-q", "--no-trunc").stdout.strip() == id
    assert remote.docker("alice", "exec", "-i", "far", "echo", "x").stdout == "x\n"
    assert remote.docker("operator", "ps", "--format", "{{.Names}}").stdout == "far\n"
    failed = remote.docker("alice", "run", "--rm", "-v", f"{alice.home}:/home", "busybox", "true", check=False)
    assert "by a client that has no uid" in failed.stderr
    remote.docker("alice", "rm", "-f", "far")
    entries = [json.loads(line) for line in (remote.folder / "audit.log").read_text().splitlines()]
    created = next(entry for entry in entries if entry["path"].endswith("/containers/create"))
    assert "127.0.0.1" in json.dumps(created)
    assert alice.name in json.dumps(created)


@pytest.mark.parametrize("who", ["mallory", ""])
def test_a_certificate_without_a_role_is_refused(remote: Remote, who: str) -> None:
    failed = remote.docker(who, "ps", check=False)
    assert failed.status == 1
    assert "the policy of this engine gives no role to" in failed.stderr
