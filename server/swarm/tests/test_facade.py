"""A manager's life: init, restarts of the daemon, autolock, failures, leave."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from api_models.filters import Filters
from api_models.swarm.cluster import EncryptionConfig, InitRequest, SwarmSpec
from api_models.swarm.node import NodeDescription
from api_models.swarm.secret import SecretSpec
from engine.common.errors import Kind, WharfError
from server.swarm.facade import SwarmFacade
from server.swarm.host import Host
from server.swarm.operations.cluster import Rotations
from server.swarm.tests.hosts import INIT, FakeEngine, run

LOCKING = replace(INIT, spec=SwarmSpec(encryption_config=EncryptionConfig(auto_lock_managers=True)))
DATA = "c2VjcmV0LXRleHQtMTIzNDU="  # secret-text-12345


async def _secret(facade: SwarmFacade) -> None:
    await facade.manager().objects.secrets.create(SecretSpec(name="password", data=DATA))


def _content(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in directory.rglob("*") if path.is_file())


def test_a_restart_of_the_daemon_continues_the_swarm(tmp_path: Path) -> None:
    engine, seen = FakeEngine(tmp_path / "swarm"), []

    async def make(facade: SwarmFacade) -> None:
        assert (facade.local_state, facade.status) == ("inactive", "inactive")
        node_id = await facade.init(INIT)
        assert (facade.local_state, facade.status) == ("active", "active/manager")
        await _secret(facade)
        seen.append((node_id, facade.manager().cluster.inspect()))

    async def resumed(facade: SwarmFacade) -> None:
        node_id, swarm = seen[0]
        assert facade.status == "active/manager"
        info = facade.info()
        assert (info["NodeID"], info["NodeAddr"], info["Error"]) == (node_id, "192.0.2.1", "")
        assert facade.manager().cluster.inspect() == swarm
        assert [each["Spec"]["Name"] for each in facade.manager().objects.secrets.list(Filters())] == ["password"]
        # Nothing has changed, so nothing is written.
        assert facade.manager().state.revision == revision[0]

    async def settled(facade: SwarmFacade) -> None:
        revision.append(facade.manager().state.revision)

    revision: list[int] = []
    run(engine, make, settled, resumed)


def test_the_certificate_of_the_node_stays_until_it_is_due(tmp_path: Path) -> None:
    engine, seen = FakeEngine(tmp_path / "swarm"), []

    async def read(facade: SwarmFacade) -> None:
        seen.append((tmp_path / "swarm/swarm-node.json").read_bytes())

    async def shorten(facade: SwarmFacade) -> None:
        cluster = facade.manager().state.cluster
        expiry = replace(cluster.spec.ca_config, node_cert_expiry=2 * 3600 * 1_000_000_000)
        spec = replace(cluster.spec, ca_config=expiry)
        await facade.manager().cluster.update(cluster.version, spec, Rotations())

    async def make(facade: SwarmFacade) -> None:
        await facade.init(INIT)

    run(engine, make, read, read, shorten, read)
    assert seen[0] == seen[1] != seen[2]


def test_a_locked_swarm(tmp_path: Path) -> None:
    engine, keys = FakeEngine(tmp_path / "swarm"), []

    async def make(facade: SwarmFacade) -> None:
        await facade.init(LOCKING)
        await _secret(facade)
        keys.append(facade.manager().cluster.unlock_key())

    async def unlock(facade: SwarmFacade) -> None:
        assert (facade.local_state, facade.status) == ("locked", "locked")
        info = facade.info()
        assert (info["LocalNodeState"], info["NodeAddr"]) == ("locked", "192.0.2.1")
        assert "docker swarm unlock" in info["Error"]
        with pytest.raises(WharfError, match="Swarm is encrypted and needs to be unlocked") as locked:
            facade.manager()
        assert locked.value.kind is Kind.UNAVAILABLE
        with pytest.raises(WharfError, match="already part of a swarm"):
            await facade.init(INIT)
        with pytest.raises(WharfError, match="Please unlock it first or use `--force`"):
            await facade.leave(force=False)
        with pytest.raises(WharfError, match="invalid key string"):
            await facade.unlock("x")
        with pytest.raises(WharfError, match="invalid key provided") as wrong:
            await facade.unlock("SWMKEY-1-" + "A" * 43)
        assert wrong.value.kind is Kind.UNAUTHENTICATED
        await facade.unlock(keys[0])
        assert facade.status == "active/manager"
        assert facade.info()["Error"] == ""
        with pytest.raises(WharfError, match="swarm is not locked"):
            await facade.unlock(keys[0])

    async def rotate(facade: SwarmFacade) -> None:
        await facade.unlock(keys[0])
        cluster = facade.manager().state.cluster
        await facade.manager().cluster.update(cluster.version, cluster.spec, Rotations(unlock_key=True))
        keys.append(facade.manager().cluster.unlock_key())

    async def release(facade: SwarmFacade) -> None:
        with pytest.raises(WharfError, match="invalid key provided"):
            await facade.unlock(keys[0])
        await facade.unlock(keys[1])
        cluster = facade.manager().state.cluster
        spec = replace(cluster.spec, encryption_config=EncryptionConfig())
        await facade.manager().cluster.update(cluster.version, spec, Rotations())
        assert facade.manager().cluster.unlock_key() == ""

    async def unlocked(facade: SwarmFacade) -> None:
        assert facade.status == "active/manager"

    run(engine, make, unlock, rotate, release, unlocked)
    assert keys[0] != keys[1]


def test_nothing_secret_is_on_the_disk_in_clear(tmp_path: Path) -> None:
    engine, secrets = FakeEngine(tmp_path / "swarm"), []

    async def make(facade: SwarmFacade) -> None:
        await facade.init(LOCKING)
        await _secret(facade)
        manager = facade.manager()
        tokens = manager.cluster.inspect()["JoinTokens"]
        root = manager.keys.open(manager.state.cluster.sealed_root_key).decode()
        secrets.extend([*tokens.values(), manager.cluster.unlock_key(), root, "secret-text-12345", DATA])
        content = _content(tmp_path)
        assert content
        assert [text for text in secrets if text.encode() in content] == []
        assert b"PRIVATE KEY" not in content

    run(engine, make)
    content = _content(tmp_path)
    assert [text for text in secrets if text.encode() in content] == []
    assert b"PRIVATE KEY" not in content


def test_leave_gives_everything_back(tmp_path: Path) -> None:
    engine = FakeEngine(tmp_path / "swarm")

    async def leave(facade: SwarmFacade) -> None:
        with pytest.raises(WharfError, match="This node is not part of a swarm"):
            await facade.leave(force=True)
        await facade.init(INIT)
        with pytest.raises(WharfError, match="Removing the last manager erases all current state of the swarm"):
            await facade.leave(force=False)
        await facade.leave(force=True)
        assert facade.status == "inactive"
        with pytest.raises(WharfError, match="This node is not a swarm manager"):
            facade.manager()
        # Another one can be made at once.
        await facade.init(INIT)
        await facade.leave(force=True)

    run(engine, leave)
    assert (engine.left, list(tmp_path.iterdir())) == (2, [])


def test_a_leave_that_was_killed_is_finished_by_the_next_daemon(tmp_path: Path) -> None:
    engine = FakeEngine(tmp_path / "swarm")

    async def make(facade: SwarmFacade) -> None:
        await facade.init(INIT)
        (tmp_path / "swarm/leaving").touch()

    async def gone(facade: SwarmFacade) -> None:
        assert facade.info()["LocalNodeState"] == "inactive"

    run(engine, make, gone)
    assert (engine.left, list(tmp_path.iterdir())) == (1, [])


def test_an_init_that_was_killed_leaves_nothing(tmp_path: Path) -> None:
    engine = FakeEngine(tmp_path / "swarm")

    async def make(facade: SwarmFacade) -> None:
        await facade.init(INIT)

    async def again(facade: SwarmFacade) -> None:
        assert facade.status == "inactive"
        await facade.init(INIT)

    run(engine, make)
    (tmp_path / "swarm/node.json").unlink()
    run(engine, again)


def test_an_init_that_is_refused_leaves_nothing(tmp_path: Path) -> None:
    engine = FakeEngine(tmp_path / "swarm")

    async def refused(facade: SwarmFacade) -> None:
        with pytest.raises(WharfError, match="advertise address must be a non-zero IP address"):
            await facade.init(InitRequest(listen_addr="0.0.0.0", advertise_addr="nope"))
        assert facade.status == "inactive"

    run(engine, refused)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damaged", ["data.key", "node.json", "swarm.db"])
def test_a_swarm_that_cannot_start_leaves_the_daemon_alive(tmp_path: Path, damaged: str) -> None:
    engine = FakeEngine(tmp_path / "swarm")

    async def make(facade: SwarmFacade) -> None:
        await facade.init(INIT)

    async def failed(facade: SwarmFacade) -> None:
        info = facade.info()
        assert (info["LocalNodeState"], info["ControlAvailable"]) == ("error", False)
        assert info["Error"]
        with pytest.raises(WharfError, match="This node is not a swarm manager"):
            facade.manager()
        with pytest.raises(WharfError, match="Doing so may lose the consensus of your cluster"):
            await facade.leave(force=False)
        await facade.leave(force=True)
        assert facade.status == "inactive"

    run(engine, make)
    for path in (tmp_path / "swarm").glob(f"{damaged}*"):
        path.write_bytes(b"{damaged" * 1000)
    run(engine, failed)
    assert list(tmp_path.iterdir()) == []


def test_a_new_cluster_of_this_node_keeps_the_state(tmp_path: Path) -> None:
    engine = FakeEngine(tmp_path / "swarm")

    async def force(facade: SwarmFacade) -> None:
        node_id = await facade.init(INIT)
        await _secret(facade)
        with pytest.raises(WharfError, match="listen address must be an IP address"):
            await facade.init(replace(INIT, force_new_cluster=True, listen_addr="nope"))
        assert facade.status == "active/manager"
        request = replace(INIT, force_new_cluster=True, listen_addr="0.0.0.0:4000", advertise_addr="192.0.2.1:4001")
        assert await facade.init(request) == node_id
        assert facade.info()["RemoteManagers"] == [{"NodeID": node_id, "Addr": "192.0.2.1:4001"}]
        assert len(facade.manager().objects.secrets.list(Filters())) == 1

    run(engine, force)


class _Observed(FakeEngine):
    """``seen`` is called whenever a manager begins."""

    def __init__(self, directory: Path, seen: Callable[[], None]) -> None:
        super().__init__(directory)
        self.seen = seen

    def host(self) -> Host:
        host = super().host()

        async def describe() -> NodeDescription:
            self.seen()
            return await host.describe()

        return replace(host, describe=describe)


def test_a_node_is_part_of_the_swarm_while_its_manager_begins_again(tmp_path: Path) -> None:
    states: list[tuple[str, bool]] = []
    facades: list[SwarmFacade] = []

    def look() -> None:
        for facade in facades:
            with pytest.raises(WharfError, match=r"is being prepared") as refused:
                facade.manager()
            assert refused.value.kind is Kind.UNAVAILABLE
            info = facade.info()
            states.append((facade.status, info["ControlAvailable"]))

    async def force(facade: SwarmFacade) -> None:
        await facade.init(INIT)
        facades.append(facade)
        await facade.init(replace(INIT, force_new_cluster=True))
        facades.clear()
        assert facade.info()["Error"] == ""

    run(_Observed(tmp_path / "swarm", look), force)
    assert states == [("active/manager", True)]


class _Failing:
    """A part that fails at its first runs."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.runs = 0
        self.works = asyncio.Event()

    async def run(self) -> None:
        self.runs += 1
        if self.runs < 3:
            raise self.error
        self.works.set()
        await asyncio.Event().wait()


@pytest.mark.parametrize("error", [RuntimeError("broken"), WharfError(Kind.UNAVAILABLE, "no store")])
def test_a_part_that_fails_begins_again(tmp_path: Path, error: Exception) -> None:
    part = _Failing(error)
    engine = FakeEngine(tmp_path / "swarm", agent=part)

    async def works(facade: SwarmFacade) -> None:
        await facade.init(INIT)
        await part.works.wait()
        assert facade.status == "active/manager"

    run(engine, works)


def test_an_engine_that_changed_is_described_anew(tmp_path: Path) -> None:
    engine = FakeEngine(tmp_path / "swarm")

    async def make(facade: SwarmFacade) -> None:
        await facade.init(INIT)

    async def renamed(facade: SwarmFacade) -> None:
        assert facade.manager().objects.nodes.inspect("two")["Description"]["Hostname"] == "two"

    run(engine, make)
    engine.hostname = "two"
    run(engine, renamed)


def test_changes_are_events(tmp_path: Path) -> None:
    engine = FakeEngine(tmp_path / "swarm")

    async def change(facade: SwarmFacade) -> None:
        await facade.init(INIT)
        manager = facade.manager()
        await _secret(facade)
        node = manager.objects.nodes.get("one")
        await manager.objects.nodes.update(node.id, node.version, replace(node.spec, availability="drain"))
        await manager.objects.secrets.remove("password")
        while ("secret", "remove", {"name": "password"}, "swarm") not in engine.events:
            engine.published.clear()
            await engine.published.wait()

    run(engine, change)
    assert engine.events[0] == ("node", "create", {"name": "one"}, "swarm")
    assert engine.events[-3:] == [
        ("secret", "create", {"name": "password"}, "swarm"),
        ("node", "update", {"name": "one", "availability.old": "active", "availability.new": "drain"}, "swarm"),
        ("secret", "remove", {"name": "password"}, "swarm"),
    ]
