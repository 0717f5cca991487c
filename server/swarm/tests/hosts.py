"""An engine for a swarm: it records events and what leaves, and has one network interface."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from api_models.swarm.cluster import InitRequest
from api_models.swarm.node import NodeDescription
from server.containers.logs.format import Query
from server.swarm.agent.dispatcher import Dispatcher
from server.swarm.facade import SwarmFacade
from server.swarm.host import Host, Listening, ManagerSide, Part, SwarmOptions
from server.swarm.interfaces import Interface, Interfaces
from server.swarm.membership import Membership
from server.swarm.model.objects import Cluster, Object, Task
from server.swarm.remote.identity import Identity

INIT = InitRequest(listen_addr="0.0.0.0:2377", advertise_addr="192.0.2.1")


class _Idle:
    async def run(self) -> None:
        await asyncio.get_running_loop().create_future()


class _Port:
    async def close(self) -> None:
        return


@dataclass(slots=True)
class FakeEngine:
    directory: Path
    events: list[tuple[str, str, Mapping[str, str], str]] = field(default_factory=list)
    #: How often the swarm's containers and networks were removed.
    left: int = 0
    agent: Part | None = None
    hostname: str = "one"
    published: asyncio.Event = field(default_factory=asyncio.Event)

    def publish(
        self,
        kind: str,
        action: str,
        actor: str,
        attributes: Mapping[str, str],
        *,
        scope: str = "local",
        owner: str = "",
    ) -> object:
        self.events.append((kind, action, dict(attributes), scope))
        self.published.set()
        return None

    def host(self) -> Host:
        async def describe() -> NodeDescription:
            return NodeDescription(hostname=self.hostname)

        async def interfaces() -> Interfaces:
            return Interfaces([Interface("eth0", "", True, [ip_address("192.0.2.1")])])

        async def leave() -> None:
            self.left += 1

        async def initial(cluster: Cluster) -> Sequence[Object]:
            return ()

        def agent(dispatcher: Dispatcher, identity: Identity) -> Part:
            return self.agent or _Idle()

        async def manager_port(manager: ManagerSide) -> Listening:
            return _Port()

        async def node_port(
            membership: Membership, identity: Identity, dispatcher: Dispatcher, is_manager: Callable[[str], bool]
        ) -> Listening:
            return _Port()

        async def no_log(task: Task, query: Query) -> AsyncIterator[bytes]:
            yield b""

        return Host(
            directory=self.directory,
            runtime=self.directory.parent / "runtime",
            options=SwarmOptions(),
            engine_id="engine",
            events=self,
            describe=describe,
            interfaces=interfaces,
            initial=initial,
            agent=agent,
            manage=lambda state: None,
            manager_port=manager_port,
            node_port=node_port,
            local_network=lambda key: None,
            task_log=no_log,
            leave=leave,
        )


Scenario = Callable[[SwarmFacade], Coroutine[Any, Any, None]]


def run(engine: FakeEngine, *scenarios: Scenario) -> None:
    """Runs each scenario with a daemon of its own, one after the other, over the same directory."""

    async def one(scenario: Scenario) -> None:
        facade = SwarmFacade(engine.directory)
        await facade.start(engine.host)
        try:
            async with asyncio.timeout(30):
                await scenario(facade)
        finally:
            await facade.stop()

    for scenario in scenarios:
        asyncio.run(one(scenario))
