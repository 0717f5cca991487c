"""A node's certificate on its disk, and TLS with it."""

import ssl
from dataclasses import replace
from pathlib import Path

import pytest

from engine.common.errors import WharfError
from server.swarm import certificates
from server.swarm.keys import Keys
from server.swarm.remote.identity import FILE, MANAGER, Certificate, Identity, unverified, verifying


def _issue(root: certificates.Root, node_id: str, role: str, *, cross: str = "") -> tuple[Certificate, str]:
    issued = certificates.issue(root, swarm_id="s", node_id=node_id, role=role, lifetime_ns=3600 * 10**9)
    made = Certificate(certificate=issued.certificate + cross, root=root.certificate, roots=(root.certificate,))
    return made, issued.key


def _handshake(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """:raises ssl.SSLError: of one of both sides."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    there = server.wrap_bio(up, down, server_side=True)
    here = client.wrap_bio(down, up, server_hostname=name)
    waiting = {here, there}
    for _ in range(10):
        for side in (here, there):
            try:
                side.do_handshake()
                waiting.discard(side)
            except ssl.SSLWantReadError:
                continue
    assert not waiting
    return there, here


def test_a_managers_key_is_never_on_its_disk_in_clear(tmp_path: Path) -> None:
    keys = Keys.create(tmp_path)
    identity = Identity(tmp_path, keys)
    made, key = _issue(certificates.make_root(), "m", "manager")
    identity.put(made, key)
    identity.server()
    assert not [path for path in tmp_path.rglob("*") if b"PRIVATE KEY" in path.read_bytes()]
    again = Identity(tmp_path, Keys.load(tmp_path))
    assert again.key() == key
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600


def test_a_worker_continues_with_its_key(tmp_path: Path) -> None:
    made, key = _issue(certificates.make_root(), "w", "worker")
    Identity(tmp_path).put(made, key)
    assert Identity(tmp_path).key() == key
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600
    # Promoted: the key is sealed with the next certificate.
    keys = Keys.create(tmp_path)
    promoted = Identity(tmp_path, keys)
    assert promoted.key() == key
    promoted.put(*_issue(certificates.make_root(), "w", "manager"))
    assert b"PRIVATE KEY" not in (tmp_path / FILE).read_bytes()


def test_a_damaged_file_is_no_certificate(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"{")
    assert Identity(tmp_path).current == Certificate()
    with pytest.raises(WharfError, match="no certificate"):
        Identity(tmp_path).client()


def test_clients_require_a_managers_certificate_and_servers_one_of_the_swarm() -> None:
    root = certificates.make_root()
    manager, worker, stranger = Identity(None), Identity(None), Identity(None)
    manager.put(*_issue(root, "m", "manager"))
    worker.put(*_issue(root, "w", "worker"))
    stranger.put(*_issue(certificates.make_root(), "x", "manager"))
    there, _ = _handshake(manager.server(), worker.client(), MANAGER)
    subject = dict(pair for each in (there.getpeercert() or {})["subject"] for pair in each)  # type: ignore[misc]
    assert (subject["commonName"], subject["organizationalUnitName"]) == ("w", "swarm-worker")
    assert there.version() == "TLSv1.3"
    _handshake(worker.server(), manager.client(), "w")
    anonymous, _ = _handshake(manager.server(), verifying([root.certificate]), MANAGER)
    assert not anonymous.getpeercert()
    _handshake(manager.server(), unverified(), MANAGER)
    for server, client, name in (
        (worker.server(), worker.client(), MANAGER),
        (worker.server(), manager.client(), "m"),
        (manager.server(), stranger.client(), MANAGER),
        (stranger.server(), worker.client(), MANAGER),
        (manager.server(), verifying([certificates.make_root().certificate]), MANAGER),
    ):
        with pytest.raises(ssl.SSLError):
            _handshake(server, client, name)


def test_a_node_that_knows_only_former_roots_accepts_new_certificates() -> None:
    roots = [certificates.make_root() for _ in range(3)]
    manager, late, early = Identity(None), Identity(None), Identity(None)
    cross = "".join(certificates.cross_sign(roots[number], roots[number + 1]) for number in (1, 0))
    made, key = _issue(roots[2], "m", "manager", cross=cross)
    manager.put(made, key)
    manager.trust([roots[2].certificate, roots[0].certificate])
    for number, identity in ((0, early), (1, late)):
        behind = certificates.cross_sign(roots[0], roots[1]) if number else ""
        identity.put(*_issue(roots[number], "w", "worker", cross=behind))
        _handshake(manager.server(), identity.client(), MANAGER)
    before = early.version
    early.trust([roots[2].certificate])
    assert early.version == before + 1
    _handshake(manager.server(), early.client(), MANAGER)
    manager.trust([roots[2].certificate])
    with pytest.raises(ssl.SSLError):
        _handshake(manager.server(), early.client(), MANAGER)


def test_an_expired_certificate_is_named(tmp_path: Path) -> None:
    made, key = _issue(certificates.make_root(), "w", "worker")
    Identity(tmp_path).put(replace(made, expires_ns=1), key)
    for context in (Identity(tmp_path).client, Identity(tmp_path).server):
        with pytest.raises(WharfError, match=r"^Swarm certificates have expired\. To replace them, leave the swarm"):
            context()
