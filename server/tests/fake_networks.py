"""The network service without a kernel: records are real, what reaches for links and rules is absent."""

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar, cast

from server.config.model import Config
from server.containers.model import Container
from server.events.publisher import EventPublisher
from server.networks.context import NetworkContext, Store
from server.networks.ipam.allocator import default_pool
from server.networks.loading import load_remote
from server.networks.model import BRIDGE, HOST, NULL, Network, PoolConfig, SandboxRecord
from server.networks.netlink.namespace_pool import NamespacePool
from server.networks.netlink.rtnetlink import Netlink
from server.networks.nftables.firewall import Firewall
from server.networks.overlay.model import Keyring, MeshPort, OverlayNetworks, Peer, ServiceAddresses, SwarmNetwork
from server.networks.proxy_client import Forwarder
from server.networks.service import Networks
from server.plugins.discovery import Plugins

T = TypeVar("T")


def _absent(kind: type[T]) -> T:
    """A part that no test reaches; one that does fails with an AttributeError."""
    return cast(T, None)


class NoRoutes:
    """A host without routes."""

    def routes(self, family: int) -> Sequence[object]:
        return ()


class NoNetworks:
    """A store that keeps nothing."""

    async def put(self, network: Network) -> None:
        return

    async def delete(self, network: Network) -> None:
        return

    async def put_sandbox(self, sandbox: SandboxRecord) -> None:
        return

    async def delete_sandbox(self, container: str) -> None:
        return

    async def put_overlay(self, key: str, document: bytes) -> None:
        return

    async def delete_overlay(self, key: str) -> None:
        return

    async def load_overlays(self) -> Mapping[str, bytes]:
        return {}

    async def load(self) -> tuple[Sequence[Network], Sequence[SandboxRecord]]:
        return (), ()


class NoOverlays:
    """The networks of a swarm on a node that makes none."""

    def realized(self) -> Collection[str]:
        return ()

    async def realize(self, network: SwarmNetwork) -> None:
        return

    async def discard(self, network_id: str) -> None:
        return

    async def connect(self, network_id: str, peers: Sequence[Peer]) -> None:
        return

    async def can_encrypt(self) -> bool:
        return False

    async def encrypt(self, keys: Keyring) -> None:
        return

    async def balance(self, network_id: str, services: Sequence[ServiceAddresses]) -> None:
        return

    async def publish(self, ports: Sequence[MeshPort]) -> None:
        return

    async def close_swarm(self) -> None:
        return


class FakeNetworks(Networks):
    """The predefined networks, with fixed ids; containers may be made on them, but not started.

    A subclass, so that mypy holds it to the service's interface; the constructor makes no netlink socket and no thread.
    """

    def __init__(self, config: Config, bus: EventPublisher) -> None:
        store: Store = NoNetworks()
        pools = [default_pool(pool.base, pool.size) for pool in config.default_address_pools]
        self.context = NetworkContext(
            config,
            pools,
            store,
            bus,
            host=cast(Netlink, NoRoutes()),
            pool=_absent(NamespacePool),
            firewall=_absent(Firewall),
            forwarder=_absent(Forwarder),
            workers=ThreadPoolExecutor(1, thread_name_prefix="network"),
            sweepers=_absent(ThreadPoolExecutor),
        )
        self.context.load_remote = partial(load_remote, plugins=Plugins((), ()))
        subnet = PoolConfig(subnet="172.17.0.0/16", gateway="172.17.0.1")
        for number, (name, driver) in enumerate((("bridge", BRIDGE), ("host", HOST), ("none", NULL))):
            network = Network(f"{number}{'0' * 63}", name, driver, 1_600_000_000_000_000_000, predefined=True)
            if driver == BRIDGE:
                network.ipam = [subnet]
                network.pools = network.make_pools()
            self.context.add(network)

    @property
    def overlay(self) -> OverlayNetworks:
        return NoOverlays()

    async def recover(self, running: Sequence[Container]) -> None:
        return

    async def close(self) -> None:
        self.context.workers.shutdown()
