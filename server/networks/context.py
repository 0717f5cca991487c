"""The state that the operations of this package share: kernel interfaces of the engine's network and all records."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import RLock
from typing import Protocol, TypeVar, TypeVarTuple

from server.access.caller import Caller
from server.config.model import Config
from server.containers.model import Container
from server.containers.plan import ContainerPlan
from server.containers.registry import View as ContainerView
from server.events.publisher import EventPublisher
from server.networks.claims import Claims
from server.networks.ipam.allocator import DefaultPool
from server.networks.model import Network, SandboxRecord
from server.networks.netlink.namespace_pool import NamespacePool
from server.networks.netlink.rtnetlink import Netlink
from server.networks.nftables.firewall import Firewall
from server.networks.overlays import Overlays
from server.networks.ports.allocator import PortAllocator
from server.networks.proxy_client import Forwarder
from server.networks.remotes import RemoteNetworks
from server.networks.swarmnetworks import Attacher, SwarmNetworks
from server.networks.view import View

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")


async def _any_ports(owner: str) -> None:
    """The ports of owners on an engine without a policy."""


class Containers(Protocol):
    """The part of the containers' registry that networks use."""

    def by_id(self, id: str) -> Container | None: ...

    def of(self, owner: str) -> ContainerView: ...

    def seen_by(self, caller: Caller) -> ContainerView: ...


class Store(Protocol):
    """The storage of records; a call returns after the commit."""

    async def put(self, network: Network) -> None: ...

    async def delete(self, network: Network) -> None: ...

    async def put_sandbox(self, sandbox: SandboxRecord) -> None: ...

    async def delete_sandbox(self, container: str) -> None: ...

    async def put_overlay(self, key: str, document: bytes) -> None: ...

    async def delete_overlay(self, key: str) -> None: ...

    async def load_overlays(self) -> Mapping[str, bytes]: ...

    async def load(self) -> tuple[Sequence[Network], Sequence[SandboxRecord]]: ...


@dataclass(slots=True, eq=False)
class NetworkContext:
    """Shared by all operations. Records are accessed in the loop only."""

    config: Config
    pools: Sequence[DefaultPool]
    store: Store
    bus: EventPublisher
    host: Netlink
    pool: NamespacePool
    firewall: Firewall
    forwarder: Forwarder
    workers: ThreadPoolExecutor
    sweepers: ThreadPoolExecutor
    ports: PortAllocator = field(default_factory=PortAllocator)
    claims: Claims = field(default_factory=Claims)
    devices: RLock = field(default_factory=RLock)  # held while a network's device is created, restored or removed
    containers: Containers | None = None
    save_container: Callable[[Container], Coroutine[object, None, None]] | None = None
    #: The path of a container's user namespace, which owns its network namespace; "": the host's.
    userns_of: Callable[[ContainerPlan], str] = lambda container: ""
    #: The range of host ports that an owner's role has; None: any.
    own_ports: "Callable[[str], Coroutine[object, None, tuple[int, int] | None]]" = _any_ports
    load_remote: "Callable[[NetworkContext], RemoteNetworks] | None" = None
    #: Watches over IPsec from now on, when the engine's networks are watched.
    watch_encryption: Callable[[], None] = lambda: None
    load_overlays: "Callable[[NetworkContext], Overlays] | None" = None
    #: While this node is a manager of a swarm, and while it is part of one.
    swarm: SwarmNetworks | None = None
    attacher: Attacher | None = None
    #: The daemon stops: pending work is left to the next daemon's recovery.
    closed: bool = False
    #: The network by which traffic leaves that no other network leads out is created once.
    creating_gateway: asyncio.Lock = field(default_factory=asyncio.Lock)
    networks: dict[str, Network] = field(default_factory=dict)
    sandboxes: dict[str, SandboxRecord] = field(default_factory=dict)
    last: dict[str, SandboxRecord] = field(default_factory=dict)  # the last sandbox of a stopped container
    ending: dict[str, "asyncio.Task[None]"] = field(default_factory=dict)
    tasks: "set[asyncio.Task[None]]" = field(default_factory=set)
    announcing: "set[asyncio.Task[None]]" = field(default_factory=set)  # cancelled at the end
    # Name → owner → network.
    _names: dict[str, dict[str, Network]] = field(default_factory=dict)
    _remote: RemoteNetworks | None = None
    _overlays: Overlays | None = None

    @property
    def remote(self) -> RemoteNetworks:
        """The networks that use plugins. Loads the code at the first use."""
        if self._remote is None:
            assert self.load_remote is not None
            self._remote = self.load_remote(self)
        return self._remote

    @property
    def overlays(self) -> Overlays:
        """The networks of the swarm. Loads the code at the first use."""
        if self._overlays is None:
            assert self.load_overlays is not None
            self._overlays = self.load_overlays(self)
        return self._overlays

    def add(self, network: Network) -> None:
        self.networks[network.id] = network
        self._names.setdefault(network.name, {})[network.owner] = network

    def discard(self, network: Network) -> None:
        self.networks.pop(network.id, None)
        holders = self._names.get(network.name, {})
        if holders.get(network.owner) is network:
            del holders[network.owner]
        if not holders:
            self._names.pop(network.name, None)

    def by_name(self, name: str) -> Network | None:
        """A network of the administrators."""
        return self._names.get(name, {}).get("")

    def of(self, owner: str) -> View:
        """The networks that a container of this owner may be on."""
        return View(self.networks, self._names, Caller(owner, administrator=False))

    def seen_by(self, caller: Caller) -> View:
        """The networks that exist for a caller."""
        return View(self.networks, self._names, caller)

    def __iter__(self) -> Iterator[Network]:
        """The networks of all owners."""
        return iter(list(self.networks.values()))

    async def run_in_thread(self, function: Callable[[*_Ts], _T], *arguments: *_Ts) -> _T:
        """Runs a blocking function in one of the package's threads. A cancelled caller waits for its end: its changes
        must be known before they can be undone."""
        done = asyncio.get_running_loop().run_in_executor(self.workers, function, *arguments)
        try:
            return await asyncio.shield(done)
        except asyncio.CancelledError:
            await asyncio.wait([done])
            raise

    async def run_in_background(self, function: Callable[[*_Ts], _T], *arguments: *_Ts) -> _T:
        """As ``run_in_thread``, for background work, which must not delay a start."""
        return await asyncio.get_running_loop().run_in_executor(self.sweepers, function, *arguments)

    def spawn(self, work: Coroutine[object, None, None], name: str) -> "asyncio.Task[None]":
        task = asyncio.create_task(work, name=name)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    async def wait_teardowns(self) -> None:
        """Waits for every pending teardown."""
        while self.ending:
            await asyncio.wait(list(self.ending.values()))
