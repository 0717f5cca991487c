"""The store of a manager with a member of etcd."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from engine.common.errors import Kind, WharfError
from server.swarm import certificates
from server.swarm.etcd import backend as backends
from server.swarm.etcd.backend import EtcdBackend
from server.swarm.etcd.members import Members, MemberStatus
from server.swarm.etcd.tests.cluster import free_port
from server.swarm.membership import ETCD, Membership
from server.swarm.operations.admission import denied
from server.swarm.remote.identity import Certificate, Identity
from server.swarm.tests.hosts import FakeEngine


def _backend(directory: Path, peer_port: int, *, force_new: bool = False) -> EtcdBackend:
    directory.mkdir(exist_ok=True)
    host = FakeEngine(directory).host()
    host = replace(host, options=replace(host.options, peer_port=peer_port))
    address = f"127.0.0.1:{peer_port}"
    membership = Membership(
        node_id="n1",
        cluster_id="swarm",
        listen_addr="127.0.0.1:2377",
        advertise_addr="127.0.0.1:2377",
        local_addr="127.0.0.1",
        role="manager",
        store=ETCD,
        etcd_cluster=f"n1=https://{address}",
    )
    return EtcdBackend(host, membership, _identity(directory), force_new=force_new)


def _identity(directory: Path) -> Identity:
    identity = Identity(None)
    root = certificates.make_root()
    issued = certificates.issue(
        root, swarm_id="swarm", node_id="n1", role="manager", lifetime_ns=3600 * 10**9, address="127.0.0.1"
    )
    identity.put(
        Certificate(certificate=issued.certificate, root=root.certificate, roots=(root.certificate,)), issued.key
    )
    return identity


@pytest.mark.parametrize("serves", [True, False])
def test_a_learner_that_is_refused_has_lost_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, serves: bool
) -> None:
    class Child:
        async def serving(self, seconds: float) -> None:
            if not serves:
                raise WharfError(Kind.UNAVAILABLE, "etcd does not serve")

        async def removed(self) -> None:
            await asyncio.get_running_loop().create_future()

    class Refusing:
        def __init__(self, *_arguments: object) -> None:
            return

        async def request(self, *_arguments: object) -> None:
            raise denied("node n1 is no longer a manager")

        async def close(self) -> None:
            return

    async def learner(_members: Members) -> MemberStatus:
        return MemberStatus(1, 2, learner=True, revision=1, size=1, used=1)

    async def main() -> None:
        backend = _backend(tmp_path / "swarm", free_port())
        monkeypatch.setattr(backend, "_child", Child())
        monkeypatch.setattr(Members, "status", learner)
        monkeypatch.setattr(backends, "Managers", Refusing)
        with pytest.raises(WharfError, match="no longer a manager") as refused:
            await backend.prepare()
        assert refused.value.kind is Kind.UNAVAILABLE
        async with asyncio.timeout(5):
            await backend.lost()
        monkeypatch.setattr(backend, "_child", None)
        await backend.close()

    asyncio.run(main())


def test_a_member_that_goes_on_alone_has_its_new_address(tmp_path: Path) -> None:
    async def main() -> None:
        directory, first, second = tmp_path / "swarm", free_port(), free_port()
        await _backend(directory, first).start_once()
        await _backend(directory, second, force_new=True).start_once()
        backend = _backend(directory, second)
        try:
            await backend.open()
            assert backend._child is not None
            await backend._child.serving()
            assert [list(member.peer_urls) for member in await backend._cluster.list()] == [
                [f"https://127.0.0.1:{second}"]
            ]
        finally:
            await backend.close()

    asyncio.run(main())
