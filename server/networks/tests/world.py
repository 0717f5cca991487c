"""A networks service in the test's own network namespace, with containers that are only records.

A "container" here is its namespace: tests run servers and clients in it, so the traffic is real.
"""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from api_models.container import ContainerConfig, HostConfig
from api_models.network import EndpointSettings, NetworkCreateRequest
from server.config.model import Config
from server.containers.model import Container
from server.containers.neighbours import Sandbox
from server.containers.registry import Registry
from server.networks.model import Network
from server.networks.service import Networks
from server.networks.store import NetworkStore
from server.plugins.discovery import Plugins
from server.store.database import Database


class Events:
    """An event bus that records events."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, str]] = []

    def publish(
        self, kind: str, action: str, actor: str, attributes: Any, *, scope: str = "local", owner: str = ""
    ) -> None:
        self.seen.append((kind, action, attributes.get("name", "")))


class World:
    """One engine's networks, opened and closed any number of times with the same roots."""

    def __init__(self, root: Path, config: Config) -> None:
        self.root = root
        self.config = config
        self.registry = Registry()
        self.events = Events()
        self.saved: list[str] = []
        self.plugins = root / "plugins"

    async def open(self) -> None:
        await self.open_only()
        self.networks.bind(self.registry, self._save, lambda container: "")
        await self.networks.recover([item for item in self.registry if item.state.running])

    async def open_only(self) -> None:
        """The part of a start before the containers are known."""
        self.database = Database(self.root / "data" / "wharf.db")
        plugins = Plugins((self.plugins,), ())
        self.networks = Networks(self.config, NetworkStore(self.database), self.events, plugins=plugins)
        await self.networks.open()

    async def _save(self, container: Container) -> None:
        self.saved.append(container.name)

    async def close(self) -> None:
        await self.networks.close()
        self.database.close()

    async def kill(self) -> None:
        """As if the daemon were killed: sends nothing, removes nothing."""
        networks = self.networks
        for task in networks.context.announcing:
            task.cancel()
        await networks._restorer.close()
        networks.context.forwarder._closing = True
        connection = networks.context.forwarder._connection
        if connection is not None:
            connection.task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await connection.task
        networks.context.workers.shutdown()
        networks.context.sweepers.shutdown()
        for space in networks.context.pool._ready.get("", ()):
            space.close()
        networks.context.claims.close()
        networks.context.host.close()
        self.database.close()

    def container(self, name: str, *, network: str = "bridge", **host: Any) -> Container:
        """A record of a container that is not created yet. ``endpoints`` and ``config`` are removed from ``host``."""
        identity = secrets.token_hex(32)
        endpoints: dict[str, Any] = host.pop("endpoints", {})
        config: dict[str, Any] = host.pop("config", {})
        container = Container(
            id=identity,
            name=name,
            created_ns=1,
            config=ContainerConfig.parse({"Hostname": identity[:12], **config}),
            host_config=HostConfig.parse({"NetworkMode": network, **host}),
            networking={key: EndpointSettings.parse(value) for key, value in endpoints.items()},
            directory=str(self.root / "data" / "containers" / identity),
        )
        return container

    async def create(self, name: str, **options: Any) -> Container:
        container = self.container(name, **options)
        self.registry.reserve(name, container.id)
        try:
            await self.networks.check(container)
        except BaseException:
            self.registry.release(name)
            raise
        self.registry.add(container)
        return container

    async def start(self, container: Container) -> Sandbox:
        sandbox = await self.networks.start(container)
        container.state.running = True
        container.started_before = True
        return sandbox

    async def run(self, name: str, **options: Any) -> tuple[Container, str]:
        """A started container, and the path of its namespace."""
        container = await self.create(name, **options)
        sandbox = await self.start(container)
        return container, sandbox.netns_path or ""

    async def stop(self, container: Container) -> None:
        container.state.running = False
        await self.networks.stop(container)

    async def remove(self, container: Container) -> None:
        container.state.running = False
        await self.networks.remove(container)
        self.registry.remove(container)
        self.registry.release(container.name)

    async def network(self, name: str, **fields: Any) -> Network:
        return await self.networks.create(NetworkCreateRequest.parse({"Name": name, **fields}))

    def settings(self, container: Container) -> dict[str, Any]:
        """``NetworkSettings`` as inspect's answer has them."""
        return self.networks.settings(container).wire()

    def endpoint(self, container: Container, network: str = "bridge") -> dict[str, Any]:
        found: dict[str, Any] = self.settings(container)["Networks"][network]
        return found

    def address(self, container: Container, network: str = "bridge") -> str:
        return str(self.endpoint(container, network)["IPAddress"])


def configured(root: Path, **changes: Any) -> Config:
    return replace(
        Config(exec_root=root / "run", data_root=root / "data", bridge_name="wt0", bip="172.30.250.1/24"), **changes
    )


@contextlib.asynccontextmanager
async def opened(root: Path, **changes: Any) -> AsyncIterator[World]:
    """A running service; everything is stopped and closed at the end."""
    world = World(root, configured(root, **changes))
    try:
        await world.open()
        yield world
    finally:
        for container in tuple(world.registry):
            container.state.running = False
            await world.networks.stop(container)
        await world.close()


def names_of(items: Iterator[Container]) -> list[str]:
    return [item.name for item in items]
