"""Whichever step of an operation fails, nothing of it remains: links, namespaces, addresses, ports, rules, records."""

import asyncio
import errno
import os
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from engine.common.errors import WharfError
from server.networks.context import NetworkContext
from server.networks.netlink.namespace_pool import Namespace, NamespacePool
from server.networks.netlink.tests.space import ask, link_names, until
from server.networks.tests.lan import HOST, lan, nft, scenario
from server.networks.tests.test_traffic import bindings, echoes
from server.networks.tests.world import World, configured, opened

pytestmark = pytest.mark.root


class FaultInjector:
    """Makes the n-th blocking step of the context fail, as a full disk or a busy kernel would; before or after its
    work."""

    def __init__(self, context: NetworkContext, *, after: bool) -> None:
        self._context, self._after = context, after
        self._plain = context.run_in_thread
        self._task = asyncio.current_task()
        self.left = -1

    async def work(self, function: Callable[..., Any], *arguments: Any) -> Any:
        if asyncio.current_task() is not self._task:
            return await self._plain(function, *arguments)  # background work is not part of the operation
        self.left -= 1
        if self.left == 0 and not self._after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        result = await self._plain(function, *arguments)
        if self.left == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return result

    def __enter__(self) -> "FaultInjector":
        type(self)._install(self._context, self.work)
        return self

    def __exit__(self, *_: object) -> None:
        type(self)._install(self._context, None)

    @staticmethod
    def _install(context: NetworkContext, work: Callable[..., Any] | None) -> None:
        # The class has slots: replace the method of the class.
        if work is None:
            NetworkContext.run_in_thread = _WORK  # type: ignore[method-assign]
        else:
            NetworkContext.run_in_thread = lambda _self, function, *arguments: work(function, *arguments)  # type: ignore[method-assign]


_WORK = NetworkContext.run_in_thread


def traces(world: World) -> dict[str, object]:
    """Everything that an operation may change, except the namespaces in the pool."""
    context = world.networks.context
    pool = context.pool
    assert until(lambda: len(pool._ready.get("", ())) == pool._size)
    ready = {space.veth for space in pool._ready[""]}
    paths = {space.path for space in pool._ready[""]}
    directory = f"{context.config.exec_root}/netns"
    return {
        "links": link_names() - ready,
        "namespaces": {f"{directory}/{name}" for name in os.listdir(directory)} - paths,
        "rules": "\n".join(sorted(line.strip(" \t,}") for line in context.firewall.dump().splitlines())),
        "ports": dict(context.ports.taken),
        "addresses": {network.name: [dict(pool.taken) for pool in network.pools] for network in context},
        "sandboxes": set(context.sandboxes),
        "networks": {network.name for network in context},
    }


async def every_step(world: World, verb: Callable[[], Awaitable[None]], *, after: bool) -> int:
    """Runs ``verb`` with its first step failing, then its second …; returns the number of its steps."""
    context = world.networks.context
    await context.wait_teardowns()
    before = await asyncio.to_thread(traces, world)
    for step in range(1, 40):
        with FaultInjector(context, after=after) as saboteur:
            saboteur.left = step
            try:
                await verb()
            except (OSError, WharfError):
                failed = True
            else:
                failed = False
        if saboteur.left > 0:
            assert not failed
            return step - 1
        if failed:
            await context.wait_teardowns()
            assert await asyncio.to_thread(traces, world) == before, f"step {step}"
        else:
            return step - 1  # a step whose failure is ignored
    raise AssertionError("the operation never ends")


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_failed_start(tmp_path: Path, after: bool) -> None:
    async def body(world: World, outside: str) -> None:
        await world.network("one")
        await world.network("two", EnableIPv6=True)
        container = await world.create(
            "web", network="one", endpoints={"one": {"Aliases": ["www"]}, "two": {}}, PortBindings=bindings("8080:80")
        )

        async def start() -> None:
            await world.start(container)

        assert await every_step(world, start, after=after) >= 3
        sandbox = world.networks.context.sandboxes[container.id]
        with echoes((sandbox.path, "web", 80)):
            assert ask(HOST, 8080, path=outside).startswith("web")

    scenario(tmp_path, body)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_failed_connect(tmp_path: Path, after: bool) -> None:
    async def body(world: World, outside: str) -> None:
        await world.network("one", Internal=True)
        await world.network("two")
        container, path = await world.run("web", network="one", PortBindings=bindings("8080:80"))
        settings = world.settings(container)["Networks"]

        async def connect() -> None:
            try:
                await world.networks.connect("two", "web", None)
            except BaseException:
                assert world.settings(container)["Networks"] == settings
                raise

        assert await every_step(world, connect, after=after) >= 4
        with echoes((path, "web", 80)):
            assert ask(HOST, 8080, path=outside).startswith("web")

    scenario(tmp_path, body)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_failed_network_create(tmp_path: Path, after: bool) -> None:
    async def body(world: World, outside: str) -> None:
        async def create() -> None:
            await world.network("net")

        assert await every_step(world, create, after=after) >= 2
        await world.networks.delete("net")

    scenario(tmp_path, body)


def test_a_start_with_a_failing_store(tmp_path: Path) -> None:
    async def body(world: World, outside: str) -> None:
        container = await world.create("web", PortBindings=bindings("8080:80"))
        context = world.networks.context
        before = await asyncio.to_thread(traces, world)

        async def refuse(*_: object) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        plain, context.store.put_sandbox = context.store.put_sandbox, refuse  # type: ignore[method-assign, assignment]
        try:
            with pytest.raises(OSError, match="Input/output"):
                await world.start(container)
        finally:
            context.store.put_sandbox = plain  # type: ignore[method-assign]
        assert await asyncio.to_thread(traces, world) == before
        await world.start(container)

    scenario(tmp_path, body)


def test_a_clean_exit_leaves_nothing(tmp_path: Path) -> None:
    with lan(tmp_path):
        before = link_names()

        async def live() -> None:
            async with opened(tmp_path) as world:
                await world.network("net", EnableIPv6=True)
                await world.run("one", network="net", PortBindings=bindings("8080:80"))
                await world.run("two", PortBindings=bindings("8081:80"))

        asyncio.run(live())
        # the kernel deletes a namespace's links asynchronously
        assert until(lambda: link_names() == before), link_names()
        assert nft("list ruleset\n") == ""
        assert not os.path.exists(tmp_path / "run" / "netns") or os.listdir(tmp_path / "run" / "netns") == []


def test_a_namespace_that_is_being_made_ends_with_the_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    making, make = threading.Event(), NamespacePool.make

    def slow(pool: NamespacePool, owner: str, *, veth: bool) -> Namespace:
        made = make(pool, owner, veth=veth)
        making.set()
        time.sleep(0.3)
        return made

    with lan(tmp_path):

        async def live() -> None:
            world = World(tmp_path, configured(tmp_path))
            await world.open()
            making.clear()
            _, path = await world.run("web")
            assert await asyncio.to_thread(making.wait, 30)
            for container in list(world.registry):
                await world.stop(container)
            await world.close()
            paths.append(path)

        paths: list[str] = []
        monkeypatch.setattr(NamespacePool, "make", slow)
        asyncio.run(live())
        assert not os.path.exists(os.path.dirname(paths[0]))


def test_an_exit_during_shutdown_is_left_to_the_next_daemon(tmp_path: Path) -> None:
    with lan(tmp_path):

        async def live() -> None:
            world = World(tmp_path, configured(tmp_path))
            await world.open()
            container, path = await world.run("web")
            closing = asyncio.ensure_future(world.networks.close())
            await asyncio.sleep(0)
            container.state.running = False
            await world.networks.stop(container)
            await closing
            world.database.close()
            assert not world.networks.context.tasks
            assert await asyncio.to_thread(os.path.exists, path)
            await world.open()
            await world.networks.context.wait_teardowns()
            assert until(lambda: not os.path.exists(path))
            await world.close()

        asyncio.run(live())
