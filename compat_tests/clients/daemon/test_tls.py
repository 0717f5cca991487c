"""A daemon with TLS on TCP, a socket passed by socket activation, and rules for the build cache."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from compat_tests.support.api import TcpApi
from compat_tests.support.daemons import Completed
from compat_tests.support.engines import Wharf
from compat_tests.support.host import resources
from compat_tests.support.host.ports import free_ports
from compat_tests.support.polling import until

ACTIVATE = """
import os, socket, sys
sock = socket.socket(socket.AF_UNIX)
sock.bind(sys.argv[1])
sock.listen()
os.dup2(sock.fileno(), 3)
os.set_inheritable(3, True)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}
os.execv(sys.argv[2], sys.argv[2:])
"""


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wharf]:
    """An engine on a passed socket, and on TCP with certificates for both sides."""
    trustme = pytest.importorskip("trustme")
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    for name, certificate in (("server", authority.issue_cert("127.0.0.1")), ("", authority.issue_cert("client"))):
        dash = f"{name}-" if name else ""
        certificate.private_key_pem.write_to_path(str(folder / f"{dash}key.pem"))
        certificate.cert_chain_pems[0].write_to_path(str(folder / f"{dash}cert.pem"))
    port = free_ports()
    args = ["--tlsverify", "--tlscacert", str(folder / "ca.pem"), "--tlscert", str(folder / "server-cert.pem")]
    args += ["--tlskey", str(folder / "server-key.pem"), "-H", f"tcp://127.0.0.1:{port}"]
    engine = Wharf(resources.allocate("guarded"), args, containerd=None)
    policy = [{"all": True, "keepStorage": "3MB"}]
    (engine.resources.root / "daemon.json").write_text(
        json.dumps({"builder": {"gc": {"enabled": True, "policy": policy}}})
    )
    argv = ["fd://" if word == engine.host else word for word in engine.daemon.argv]
    engine.daemon.argv[:] = [sys.executable, "-c", ACTIVATE, str(engine.resources.socket), *argv]
    engine.env |= {"PORT": str(port), "CERTIFICATES": str(folder)}
    try:
        engine.start()
        engine.load_busybox()
        yield engine
    except BaseException:
        engine.destroy()
        raise
    leftovers = engine.destroy()
    assert not leftovers, leftovers


def secure(engine: Wharf, *args: str, input: str = "", check: bool = True) -> Completed:
    words = ("--tlsverify", "-H", f"tcp://127.0.0.1:{engine.env['PORT']}")
    environ = {"DOCKER_CERT_PATH": engine.env["CERTIFICATES"], "DOCKER_HOST": ""}
    return engine.run("docker", *words, *args, input=input, env=environ, check=check)


def test_a_passed_socket_is_served_and_stays(guarded: Wharf) -> None:
    assert guarded.docker("run", "--rm", "busybox", "echo", "hi").stdout == "hi\n"
    guarded.daemon.stop()
    guarded.resources.socket.unlink()  # it still exists: systemd uses it for the next start
    guarded.start()


def test_build_cache_is_pruned_by_its_rules(guarded: Wharf) -> None:
    text = "FROM busybox\n" + "".join(f"RUN dd if=/dev/urandom of=/{n} bs=1M count=1\n" for n in range(4))
    identity = guarded.docker("build", "-q", "-", input=text).stdout.strip()

    assert guarded.docker("run", "--rm", identity, "ls", "/0", "/3").stdout.split() == ["/0", "/3"]
    guarded.docker("rmi", identity)  # layers of images don't count: pruning the cache would not free them

    def cached() -> int:
        return sum(int(row["Size"]) for row in guarded.api.get("/system/df", type="build-cache").json()["BuildCache"])

    small = guarded.docker("build", "-q", "-", input="FROM busybox\nRUN echo small > /small\n").stdout.strip()
    assert until(lambda: 0 < cached() <= 3 * 1024 * 1024)
    assert guarded.docker("run", "--rm", small, "cat", "/small").stdout == "small\n"
    guarded.docker("rmi", small)


def test_tls_carries_streams_with_half_closes(guarded: Wharf) -> None:
    text = "".join(f"line {number}\n" for number in range(20000))
    assert secure(guarded, "run", "--rm", "-i", "busybox", "cat", input=text).stdout == text
    secure(guarded, "run", "-d", "--name", "tlsd", "busybox", "sleep", "1000")
    try:
        assert secure(guarded, "exec", "-i", "tlsd", "wc", "-l", input=text).stdout.strip() == "20000"
        done = secure(guarded, "exec", "tlsd", "sh", "-c", "echo out; echo err >&2; exit 3", check=False)
        assert (done.status, done.stdout, done.stderr) == (3, "out\n", "err\n")
    finally:
        secure(guarded, "rm", "-f", "tlsd")


def test_tls_requires_a_client_certificate(guarded: Wharf, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_bytes((Path(guarded.env["CERTIFICATES"]) / "ca.pem").read_bytes())
    words = ("--tls", "--tlscacert", str(tmp_path / "ca.pem"), "-H", f"tcp://127.0.0.1:{guarded.env['PORT']}")
    done = guarded.run("docker", *words, "version", env={"DOCKER_HOST": ""}, check=False)
    assert done.status != 0
    assert "certificate required" in done.stderr or "bad certificate" in done.stderr, done.stderr
    answer = TcpApi(int(guarded.env["PORT"])).get("/_ping")
    assert (answer.status, answer.body) == (400, b"Client sent an HTTP request to an HTTPS server.\n")
    assert secure(guarded, "version").status == 0
