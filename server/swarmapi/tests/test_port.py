"""What reaches a port from outside: strangers, garbage, long bodies, slow readers."""

import asyncio
import contextlib
import logging
import ssl
from dataclasses import replace
from pathlib import Path

import pytest
from starlette.responses import Response

from api_models.swarm.service import ServiceSpec
from engine.common import timeouts
from engine.common.errors import WharfError
from server.swarm import certificates
from server.swarm.model.objects import Service, Task, TaskStatus
from server.swarm.model.taskstate import TaskState
from server.swarm.remote.identity import MANAGER, Certificate, Identity, unverified, verifying
from server.swarm.state.state import Put
from server.swarmapi.connections import Connections
from server.swarmapi.deferred import App
from server.swarmapi.listener import PatientListener, SwarmListener
from server.swarmapi.tests.site import SWARM, Site, identity_of, run, until


def _empty() -> App:
    return Response()


async def _open(address: str, context: ssl.SSLContext) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, _, port = address.rpartition(":")
    return await asyncio.open_connection(host, int(port), ssl=context, server_hostname=MANAGER)


async def _answer(address: str, context: ssl.SSLContext, request: bytes) -> bytes:
    """All that comes until the server closes the connection."""
    reader, writer = await _open(address, context)
    try:
        writer.write(request)
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        async with asyncio.timeout(5):
            return await reader.read()
    except (ssl.SSLError, ConnectionError):
        return b""
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def _request(method: str, path: str, body: bytes = b"", length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return b"%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (
        method.encode(), path.encode(), size, body,
    )  # fmt: skip


def _issued(site: Site, *, swarm_id: str = SWARM, node_id: str = "n", role: str = "worker", hours: int = 1) -> Identity:
    """A certificate of the swarm's root."""
    cluster = site.state.cluster
    authority = certificates.Root(cluster.root_certificate, site.keys.open(cluster.sealed_root_key).decode())
    issued = certificates.issue(
        authority, swarm_id=swarm_id, node_id=node_id, role=role, lifetime_ns=hours * 3600 * 10**9
    )
    identity = Identity(None)
    identity.put(Certificate(certificate=issued.certificate, roots=(cluster.root_certificate,)), issued.key)
    return identity


def test_a_stranger_reads_the_root_certificate_only(tmp_path: Path) -> None:
    async def scenario(site: Site) -> None:
        address = site.addresses[0]
        anonymous = unverified()
        answer = await _answer(address, anonymous, _request("GET", "/v1/ca"))
        assert b"200 OK" in answer
        assert b"BEGIN CERTIFICATE" in answer
        for method, path in (
            ("POST", "/v1/renew"),
            ("GET", "/v1/managers"),
            ("POST", "/v1/member"),
            ("POST", "/v1/member/promote"),
            ("GET", "/v1/dispatcher/assignments"),
            ("POST", "/v1/dispatcher/report"),
            ("POST", "/v1/dispatcher/describe"),
            ("POST", "/v1/dispatcher/heartbeat"),
            ("GET", "/v1/dispatcher/secrets/x"),
            ("GET", "/v1/dispatcher/configs/x"),
            ("GET", "/v1/dispatcher/services/x/auth"),
            ("POST", "/v1/dispatcher/attachments"),
            ("DELETE", "/v1/dispatcher/attachments/x"),
        ):
            answer = await _answer(address, anonymous, _request(method, path, b"{}"))
            assert b" 403 " in answer, path
            assert b"no client certificates in request" in answer
        for method, path in (("GET", "/v1/join"), ("GET", "/"), ("GET", "/v1/dispatcher/secrets/a%2Fb/c")):
            assert b" 404 " in await _answer(address, anonymous, _request(method, path))

    run(tmp_path, scenario)


def test_certificates_that_are_refused(tmp_path: Path) -> None:
    async def scenario(site: Site) -> None:
        for identity, sentence in (
            (_issued(site), "node n was removed from swarm"),
            (_issued(site, swarm_id="other"), f"not part of organization: {SWARM}"),
            (_issued(site, role="ca"), "not part of OUs"),
        ):
            with pytest.raises(WharfError, match=sentence):
                await _managers(site, identity)
        # The handshake fails.
        expired = _issued(site, hours=0)
        with pytest.raises(WharfError, match="expired"):
            await _managers(site, expired)
        foreign = certificates.issue(
            certificates.make_root(), swarm_id=SWARM, node_id="manager1", role="manager", lifetime_ns=10**13
        )
        stranger = Identity(None)
        root = site.state.cluster.root_certificate
        stranger.put(Certificate(certificate=foreign.certificate, roots=(root,)), foreign.key)
        with pytest.raises(WharfError, match=r"(?i)unknown.ca"):
            await _managers(site, stranger)

    run(tmp_path, scenario)


async def _managers(site: Site, identity: Identity) -> None:
    await site.managers(identity).standing()


def test_a_worker_can_not_become_a_member(tmp_path: Path) -> None:
    async def scenario(site: Site) -> None:
        joined, managers = await site.worker()
        for path in ("/v1/member", "/v1/member/promote"):
            with pytest.raises(WharfError, match=r"not part of OUs: \[swarm-manager\]"):
                await managers.request("POST", path, {})
        assert not site.members.joined
        assert not site.members.promoted
        # Nor is its certificate accepted for a manager's.
        server = SwarmListener(_empty, identity_of(joined))
        address = await server.open("127.0.0.1:0")
        with pytest.raises(ssl.SSLCertVerificationError, match=r"(?i)hostname mismatch"):
            await _open(address, verifying([site.state.cluster.root_certificate]))
        await server.close()

    run(tmp_path, scenario)


def test_garbage_and_long_bodies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(site: Site) -> None:
        address, context = site.addresses[0], unverified()
        for body in (b"", b"{", b"[]", b'"x"', b'{"Token": 5}', b'{"Description": []}', b"[" * 100_000, b"\xff"):
            answer = await _answer(address, context, _request("POST", "/v1/join", body))
            assert b" 400 " in answer
            assert b'"kind":"invalid argument"' in answer
        answer = await _answer(address, context, _request("POST", "/v1/join", b" " * (1 << 20) + b"{}"))
        assert b"more than 262144 bytes" in answer
        # A length that no node sends is refused before the body comes.
        answer = await _answer(address, context, _request("POST", "/v1/join", b" " * (2 << 20), 1 << 40))
        assert b"more than 262144 bytes" in answer
        for data in (b"\0" * 1000, b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"x" * 2_000_000):
            assert b" 200 " not in await _answer(address, context, data)
        # In place of TLS.
        host, _, port = address.rpartition(":")
        for data in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff" + b"x" * 70_000, b"garbage" * 100):
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(data)
            with contextlib.suppress(ConnectionError):
                await reader.read()
            writer.close()
        assert b"200 OK" in await _answer(address, context, _request("GET", "/v1/ca"))

    for name in ("http.linger", "http.rejected"):
        monkeypatch.setitem(timeouts._SECONDS, name, 0.1)
    run(tmp_path, scenario)


def test_a_body_that_does_not_come_is_bounded_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(site: Site) -> None:
        answer = await _answer(site.addresses[0], unverified(), _request("POST", "/v1/join", b"{", 100))
        assert b"swarm.body: not done after 0.2 s" in answer

    monkeypatch.setitem(timeouts._SECONDS, "swarm.body", 0.2)
    monkeypatch.setitem(timeouts._SECONDS, "http.linger", 0.2)
    run(tmp_path, scenario)


def _large(number: int, node_id: str) -> Task:
    status = TaskStatus(state=int(TaskState.ASSIGNED), message="x" * 500_000 + str(number))
    return Task(id=f"t{number % 4}", node_id=node_id, service_id="s1", status=status, desired_state=512)


def test_a_slow_reader_gets_the_newest_state_and_one_that_stops_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(site: Site) -> None:
        joined = await site.join()
        context = identity_of(joined).client()
        reader, writer = await _open(site.addresses[0], context)
        writer.write(b"GET /v1/dispatcher/assignments HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        await site.state.commit([Put(Service(id="s1", spec=ServiceSpec(name="web")))])
        connections = site.listeners[0]._server.state.connections
        for number in range(60):
            former = site.state.tables.tasks.find(f"t{number % 4}")
            task = _large(number, joined.node_id)
            await site.state.commit([Put(task if former is None else _newer(former, task))])
            # 30 MB of changes: one line at the most waits for the reader, beside what the kernel buffers.
            assert all(each.transport.get_write_buffer_size() < 8_000_000 for each in connections)
        await until(lambda: not any(task.get_name() == "swarm-stream" for task in asyncio.all_tasks()))
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            async with asyncio.timeout(10):
                while await reader.read(1 << 20):
                    pass
        writer.close()

    monkeypatch.setitem(timeouts._SECONDS, "swarm.reader", 1.0)
    run(tmp_path, scenario)


def _newer(former: Task, task: Task) -> Task:
    return replace(former, status=task.status)


def test_an_address_that_is_taken(tmp_path: Path) -> None:
    async def scenario(site: Site) -> None:
        listener = SwarmListener(_empty, site.identity)
        with pytest.raises(WharfError, match=r"^failed to listen on remote API address: .*address already in use$"):
            await listener.open(site.addresses[0])
        for wrong in ("", "x", "127.0.0.1:x", "127.0.0.1"):
            with pytest.raises(WharfError, match="could not parse listen address"):
                await listener.open(wrong)

    run(tmp_path, scenario)


def test_a_node_works_without_its_port_until_that_is_free(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(site: Site) -> None:
        address = site.addresses[0]
        ports = [PatientListener(SwarmListener(_empty, site.identity), address, "no logs", 0.01) for _ in range(2)]
        for port in ports:
            await port.open()
        await ports[1].close()
        warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
        assert len(warnings) == 2
        assert warnings[0].startswith("no logs: failed to listen")
        assert "already in use" in warnings[0]
        await site.listeners[0].close()
        await until(lambda: f"listening on {address} now" in caplog.text)
        assert await _answer(address, unverified(), b"GET /v1/ca HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        await ports[0].close()
        # Nobody has the port now.
        await site.listeners[0].open(address)

    caplog.set_level(logging.INFO)
    run(tmp_path, scenario)


class _Peer:
    def __init__(self, address: str, *, known: bool = False) -> None:
        self.transport = self
        self.address = address
        self.known = known
        self.aborted = False

    def get_extra_info(self, name: str) -> object:
        return (self.address, 1) if name == "peername" else self

    def getpeercert(self) -> dict[str, str]:
        return {"subject": "x"} if self.known else {}

    def abort(self) -> None:
        self.aborted = True

    def refuse(self, error: WharfError) -> None:
        raise AssertionError


def test_the_connections_of_strangers_leave_room_for_nodes() -> None:
    connections = Connections()

    def opened(address: str, *, known: bool = False, number: int = 1) -> list[_Peer]:
        peers = [_Peer(address, known=known) for _ in range(number)]
        for peer in peers:
            connections.opened(peer)
        return [peer for peer in peers if not peer.aborted]

    first = opened("192.0.2.1", number=100)
    assert len(first) == 64
    assert sum(len(opened(f"192.0.2.{address}", number=100)) for address in range(2, 10)) == 256 - 64
    assert not opened("192.0.2.20")
    assert len(opened("192.0.2.1", known=True, number=2000)) == 1000
    assert opened("192.0.2.20", known=True)
    for peer in first:
        connections.closed(peer)
    assert opened("192.0.2.20")


def test_the_streams_of_a_node_are_bounded(tmp_path: Path) -> None:
    async def scenario(site: Site) -> None:
        _, managers = await site.worker()
        streams = [managers.follow() for _ in range(17)]
        for stream in streams[:16]:
            await anext(stream)
        with pytest.raises(WharfError, match="has 16 streams already"):
            await anext(streams[16])
        for stream in streams:
            await stream.aclose()
        await until(lambda: not site.listeners[0]._server.state.tasks)
        await managers.standing()

    run(tmp_path, scenario)
