"""A node that joins a swarm in SQLite: what keeps it from that is named."""

import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from engine.common.errors import Kind, WharfError
from server.swarm.facade import SwarmFacade
from server.swarm.remote.records import JoinRequest
from server.swarm.tests.hosts import INIT, FakeEngine, run

_Usage = namedtuple("_Usage", "total used free")


def _request(facade: SwarmFacade) -> JoinRequest:
    from server.swarm import certificates

    manager = facade.manager()
    token = manager.keys.open(manager.state.cluster.sealed_worker_token).decode()
    return JoinRequest(token=token, csr=certificates.make_request().csr, advertise_addr="192.0.2.2:2377")


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def join(facade: SwarmFacade) -> None:
        await facade.init(INIT)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: _Usage(1 << 30, 1 << 30, 10 << 20))
        with pytest.raises(
            WharfError, match="etcd needs 256 MiB for the state of the swarm, and the disk has 10 MiB"
        ) as no:
            await facade.manager().admission.join(_request(facade), "192.0.2.2")
        assert no.value.kind is Kind.RESOURCE_EXHAUSTED

    run(FakeEngine(tmp_path / "swarm"), join)


def test_etcd_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def join(facade: SwarmFacade) -> None:
        await facade.init(INIT)
        monkeypatch.setattr(shutil, "which", lambda name, path=None: None)
        with pytest.raises(WharfError, match="apt-get install etcd-server"):
            await facade.manager().admission.join(_request(facade), "192.0.2.2")

    run(FakeEngine(tmp_path / "swarm"), join)
