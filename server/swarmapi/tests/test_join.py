"""A join goes on after its request: by the facade of a node, with a real manager's port."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from api_models.swarm.cluster import InitRequest, JoinRequest
from engine.common import timeouts
from engine.common.errors import Kind, WharfError
from server.swarm.facade import SwarmFacade
from server.swarm.tests.hosts import INIT, FakeEngine
from server.swarmapi.tests.site import Site, run, until

JOIN_FILE = "joining-join.json"
IN_THE_BACKGROUND = r"^Timeout was reached before node joined\. .* will continue in the background\."


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.swarm.remote.join._LATER", 0.05)
    monkeypatch.setattr("server.swarm.remote.join._PAUSE", 0.05)


@asynccontextmanager
async def pending(site: Site, directory: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SwarmFacade]:
    """A node whose join is not done when its request ends, because the manager admits nobody."""

    async def refuse() -> None:
        raise WharfError(Kind.UNAVAILABLE, "the swarm has no leader")

    site.prepare = refuse
    facade = SwarmFacade(directory)
    await facade.start(FakeEngine(directory).host)
    try:
        monkeypatch.setitem(timeouts._SECONDS, "swarm.join", 0.0)
        with pytest.raises(WharfError, match=IN_THE_BACKGROUND) as late:
            await facade.join(request(site))
        assert late.value.kind is Kind.UNAVAILABLE
        assert (facade.local_state, facade.status, facade.info()["Error"]) == ("pending", "pending", "")
        yield facade
    finally:
        await facade.stop()


def request(site: Site) -> JoinRequest:
    return JoinRequest(
        listen_addr="192.0.2.1:2377",
        advertise_addr="192.0.2.1",
        remote_addrs=(site.addresses[0],),
        join_token=site.token(),
    )


def with_pending(
    directory: Path, monkeypatch: pytest.MonkeyPatch, scenario: Callable[[Site, SwarmFacade], Coroutine[Any, Any, None]]
) -> None:
    async def main(site: Site) -> None:
        async with pending(site, directory / "joining", monkeypatch) as facade:
            await scenario(site, facade)

    run(directory, main)


def test_a_join_goes_on_after_its_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(site: Site, facade: SwarmFacade) -> None:
        for again in (facade.init(INIT), facade.join(request(site))):
            with pytest.raises(WharfError, match="This node is already part of a swarm"):
                await again
        with pytest.raises(WharfError, match="Worker nodes can't be used to view or modify cluster state"):
            await facade.init(InitRequest(listen_addr="0.0.0.0:2377", force_new_cluster=True))
        site.prepare = None
        await until(lambda: facade.local_state == "active")
        assert (facade.status, facade.info()["Error"]) == ("active/worker", "")
        assert facade.info()["NodeID"] in {node.id for node in site.state.tables.nodes}

    with_pending(tmp_path, monkeypatch, scenario)


def test_a_join_goes_on_in_the_next_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(site: Site, facade: SwarmFacade) -> None:
        await facade.stop()
        # The manager is not up yet when the next daemon starts.
        listener = site.listeners[0]
        await listener.close()
        monkeypatch.setattr("server.swarm.remote.join._ATTEMPTS", 1)
        again = SwarmFacade(tmp_path / "joining")
        await again.start(FakeEngine(tmp_path / "joining").host)
        try:
            assert (again.local_state, again.info()["Error"]) == ("pending", "")
            await asyncio.sleep(0.2)
            assert again.local_state == "pending"
            site.prepare = None
            await listener.open(site.addresses[0])
            await until(lambda: again.local_state == "active")
        finally:
            await again.stop()
        # It is no join any more.
        assert not (tmp_path / JOIN_FILE).exists()

    with_pending(tmp_path, monkeypatch, scenario)


@pytest.mark.parametrize("ended", [False, True], ids=["goes on", "has ended"])
def test_a_join_does_not_go_on_after_leave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, ended: bool) -> None:
    async def scenario(site: Site, facade: SwarmFacade) -> None:
        if ended:
            site.prepare = None
            await until(lambda: facade.local_state == "active")
        await facade.leave(force=False)
        again = SwarmFacade(tmp_path / "joining")
        await again.start(FakeEngine(tmp_path / "joining").host)
        assert (again.local_state, again.info()["Error"]) == ("inactive", "")
        await again.stop()

    with_pending(tmp_path, monkeypatch, scenario)


def test_the_request_of_a_join_that_had_ended_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon was killed before it has removed it."""

    async def scenario(site: Site, facade: SwarmFacade) -> None:
        file = tmp_path / JOIN_FILE
        assert file.stat().st_mode & 0o777 == 0o600
        content = file.read_bytes()
        site.prepare = None
        await until(lambda: facade.local_state == "active")
        await facade.stop()
        file.write_bytes(content)
        again = SwarmFacade(tmp_path / "joining")
        await again.start(FakeEngine(tmp_path / "joining").host)
        assert (again.status, file.exists()) == ("active/worker", False)
        await again.stop()

    with_pending(tmp_path, monkeypatch, scenario)


def test_a_damaged_request_is_an_error_until_the_node_leaves(tmp_path: Path) -> None:
    async def scenario() -> None:
        (tmp_path / JOIN_FILE).write_bytes(b"{")
        facade = SwarmFacade(tmp_path / "joining")
        await facade.start(FakeEngine(tmp_path / "joining").host)
        await until(lambda: facade.local_state == "error")
        assert facade.info()["Error"]
        await facade.leave(force=False)
        assert (facade.local_state, (tmp_path / JOIN_FILE).exists()) == ("inactive", False)
        await facade.stop()

    asyncio.run(scenario())


def test_leave_ends_a_join(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(site: Site, facade: SwarmFacade) -> None:
        await facade.leave(force=False)
        assert (facade.local_state, facade.info()["Error"]) == ("inactive", "")
        site.prepare = None
        assert not [task for task in asyncio.all_tasks() if task.get_name() == "swarm-join"]
        assert not (tmp_path / "joining").exists()
        await facade.init(INIT)
        await facade.leave(force=True)
        assert len(site.state.tables.nodes) == 1

    with_pending(tmp_path, monkeypatch, scenario)


def test_a_join_that_fails_later_is_shown_until_the_node_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse() -> None:
        raise WharfError(Kind.RESOURCE_EXHAUSTED, "the swarm is full")

    async def scenario(site: Site, facade: SwarmFacade) -> None:
        site.prepare = refuse
        await until(lambda: facade.local_state == "error")
        assert (facade.status, facade.info()["Error"]) == ("error", "the swarm is full")
        with pytest.raises(WharfError, match="This node is not a swarm manager"):
            facade.manager()
        await facade.leave(force=False)
        assert (facade.status, facade.info()["Error"]) == ("inactive", "")

    with_pending(tmp_path, monkeypatch, scenario)


def test_a_join_that_fails_at_once_leaves_nothing(tmp_path: Path) -> None:
    async def scenario(site: Site) -> None:
        facade = SwarmFacade(tmp_path / "joining")
        await facade.start(FakeEngine(tmp_path / "joining").host)
        await site.listeners[0].close()
        with pytest.raises(WharfError, match="connection refused"):
            await facade.join(request(site))
        assert (facade.status, facade.info()["Error"]) == ("inactive", "")
        await facade.stop()

    run(tmp_path, scenario)
