"""The networks of the swarm on this node; the contracts are in ``model`` and in ``server/networks/overlays``."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from engine.common.errors import Kind, WharfError, conflict, internal, not_found
from engine.proxy.forward import Listen
from server.networks import checks, create, query
from server.networks.bridges import devices, vxlan
from server.networks.context import NetworkContext
from server.networks.dns import names as zones
from server.networks.model import Network, SandboxRecord
from server.networks.netlink.announce import announce
from server.networks.nftables.mesh import MeshRule
from server.networks.overlay import mesh, names, records, translations
from server.networks.overlay.mesh import Mesh
from server.networks.overlay.model import NO_ESP, Keyring, MeshPort, Peer, ServiceAddresses, SwarmNetwork
from server.networks.overlay.record import place, record, request
from server.networks.overlay.translations import Balanced, Translation
from server.networks.sandboxes import connect, gateway

if TYPE_CHECKING:
    from server.networks.overlay.encryption import Encryption

log = logging.getLogger(__name__)

#: The prefix of the keys under which addresses on other nodes are stored.
_PEERS = "peers "


class SwarmOverlays:
    """Implements :class:`model.OverlayNetworks` and :class:`server.networks.overlays.Overlays`."""

    def __init__(self, context: NetworkContext) -> None:
        self._context = context
        self._mesh = Mesh(context)
        self._services: dict[str, Sequence[ServiceAddresses]] = {}
        #: Networks whose last change has failed in part.
        self._stale: set[str] = set()
        #: Networks of which not all addresses on other nodes are known to the kernel.
        self._disconnected: set[str] = set()
        #: The services of each namespace, and what it has of them, by its path. None: it is not known.
        self._written: dict[str, tuple[tuple[ServiceAddresses, ...] | None, Mapping[str, Balanced] | None]] = {}
        self._encryption: Encryption | None = None
        # One change at a time: the last one decides what a namespace has.
        self._lock = asyncio.Lock()

    # networks

    def realized(self) -> Collection[str]:
        return [network.id for network in self._context if network.of_swarm]

    async def realize(self, network: SwarmNetwork) -> None:
        context = self._context
        async with self._lock:
            if (present := context.networks.get(network.id)) is not None:
                await self._place(present, network)
                return
            if (former := context.by_name(network.name)) is not None:
                if not former.of_swarm:
                    raise checks.exists(network.name)
                # Names are unique in the swarm, so the swarm has removed the former network.
                await query.wait_detached(context, former)
                await self._discard(former)
            if network.node_local:
                await create.create_node_local(context, network.id, request(network))
                return
            if network.encrypted and not await self.can_encrypt():
                raise WharfError(Kind.NOT_IMPLEMENTED, f"network {network.name} can't be encrypted: {NO_ESP}")
            made = record(network)
            async with AsyncExitStack() as undo:
                context.add(made)
                undo.callback(context.discard, made)
                undo.push_async_callback(context.run_in_thread, devices.remove_device, context, made)
                await context.run_in_thread(devices.make_device, context, made)
                await context.store.put(made)
                undo.pop_all()
        context.bus.publish("network", "create", made.id, {"name": made.name, "type": made.driver})

    async def _place(self, present: Network, network: SwarmNetwork) -> None:
        """Changes what depends on the other nodes. A failure is repeated by the next call."""
        context = self._context
        before = (present.vxlan_local, present.vxlan_port, present.node_address)
        place(present, network)
        if before == (present.vxlan_local, present.vxlan_port, present.node_address) and present.ready:
            return
        await context.store.put(present)
        present.ready, mac = False, present.mac
        await context.run_in_thread(devices.make_device, context, present)
        if present.encrypted:
            await self._associate()
        if present.ingress and mac != present.mac:
            addresses = devices.bridge_addresses(present)
            with contextlib.suppress(OSError):
                await context.run_in_thread(announce, "/proc/thread-self/ns/net", present.bridge, addresses)

    async def discard(self, network_id: str) -> None:
        async with self._lock:
            network = self._context.networks.get(network_id)
            if network is not None:
                await self._discard(network)

    async def _discard(self, network: Network) -> None:
        if query.used(self._context, network):
            raise conflict(f"network {network.name} has active endpoints")
        await query.remove(self._context, network)
        self._services.pop(network.id, None)
        self._stale.discard(network.id)
        self._disconnected.discard(network.id)
        await self._context.store.delete_overlay(network.id)
        await self._context.store.delete_overlay(_PEERS + network.id)
        if network.encrypted:
            await self._associate()

    async def close_swarm(self) -> None:
        context = self._context
        await self.publish(())
        for network in [network for network in context if network.of_swarm]:
            await self._disconnect_all(network)
            await query.wait_detached(context, network)
            await self.discard(network.id)
        await context.wait_teardowns()
        await gateway.discard(context)

    async def _disconnect_all(self, network: Network) -> None:
        """Disconnects the containers that users have attached. Those of tasks were removed."""
        for key in list(network.endpoints):
            container = self._context.containers.by_id(key) if self._context.containers else None
            if container is not None:
                async with container.lock:
                    if key in network.endpoints and key in self._context.sandboxes:
                        await connect.disconnect(self._context, network, container)

    # encryption

    async def can_encrypt(self) -> bool:
        from server.networks.netlink import xfrm  # only a swarm needs it

        return await self._context.run_in_background(xfrm.supported)

    async def encrypt(self, keys: Keyring) -> None:
        async with self._lock:
            if self._loaded_encryption().replace(keys):
                await self._associate()

    def _loaded_encryption(self) -> "Encryption":
        if self._encryption is None:
            from server.networks.overlay.encryption import Encryption  # no swarm without encrypted networks loads it

            self._encryption = Encryption(self._context)
            self._context.watch_encryption()
        return self._encryption

    async def restore_encryption(self) -> None:
        async with self._lock:
            if await self._context.run_in_thread(self._loaded_encryption().restore):
                log.warning("IPsec of encrypted networks was removed by another program: restored")

    async def _associate(self) -> None:
        """Makes the security associations those of the encrypted networks' peers."""
        await self._context.run_in_thread(self._loaded_encryption().apply)

    # services

    async def connect(self, network_id: str, peers: Sequence[Peer]) -> None:
        context = self._context
        async with self._lock:
            network = context.networks.get(network_id)
            if network is None:
                raise not_found(f"network {network_id} not found")
            local = network.vxlan_local
            wanted = {peer.address: peer.node for peer in peers if peer.node != local}
            former, repeated = network.peers, network_id in self._disconnected
            if wanted == former and not repeated:
                return
            self._disconnected.add(network_id)
            network.peers = wanted
            await context.store.put_overlay(_PEERS + network_id, records.encode_peers(wanted))
            if network.encrypted:
                await self._associate()
            if repeated:
                await context.run_in_thread(devices.make_device, context, network)
            elif network.vxlan_local:
                await context.run_in_thread(vxlan.change, context, network, former, wanted)
            self._disconnected.discard(network_id)

    async def balance(self, network_id: str, services: Sequence[ServiceAddresses]) -> None:
        context = self._context
        services = tuple(services)
        async with self._lock:
            network = context.networks.get(network_id)
            if network is None:
                raise not_found(f"network {network_id} not found")
            former = self._services.get(network_id, ())
            if services == former and network_id not in self._stale:
                return
            self._stale.add(network_id)
            self._services[network_id] = services
            await context.store.put_overlay(network_id, records.encode_services(services))
            await zones.send_zone(context, network)
            attached = [context.sandboxes[key] for key in network.endpoints if key in context.sandboxes]
            await self._write(attached, _addresses(former) - _addresses(services))
            self._stale.discard(network_id)

    async def publish(self, ports: Sequence[MeshPort]) -> None:
        async with self._lock:
            await self._mesh.publish(ports)

    # what the other operations on networks need

    async def load(self) -> None:
        for key, document in (await self._context.store.load_overlays()).items():
            try:
                if key == mesh.DOCUMENT:
                    self._mesh.load(records.decode_ports(document))
                elif key.startswith(_PEERS):
                    if (network := self._context.networks.get(key.removeprefix(_PEERS))) is not None:
                        network.peers = records.decode_peers(document)
                else:
                    self._services[key] = records.decode_services(document)
            except (ValueError, KeyError, TypeError):
                log.exception("network=%s the record of its services cannot be read and is ignored", key)
        if any(network.encrypted for network in self._context):
            self._loaded_encryption()

    def names(self, network: Network) -> tuple[Mapping[str, Sequence[str]], Mapping[str, str]]:
        return names.names(network.name, self._services.get(network.id, ()))

    def mesh_rules(self) -> Sequence[MeshRule]:
        return self._mesh.rules()

    def mesh_listens(self) -> Mapping[str, Sequence[Listen]]:
        return self._mesh.listens()

    async def translate(self, sandbox: SandboxRecord) -> None:
        async with self._lock:
            await self._write([sandbox], ())

    async def recover(self) -> None:
        async with self._lock:
            try:
                await self._write(self._context.sandboxes.values(), ())
            except WharfError as error:
                log.error("virtual addresses can't be translated: %s", error.message)

    async def _write(self, sandboxes: Iterable[SandboxRecord], gone: Collection[str]) -> None:
        """Changes the rules in the namespaces where services have changed.

        :raises WharfError: INTERNAL: the kernel refused in one of them.
        """
        changed = []
        for sandbox in sandboxes:
            if sandbox.mode != "own" or not sandbox.path:
                continue
            services, (former, written) = tuple(self._visible(sandbox)), self._written.get(sandbox.path, ((), None))
            if services != former:
                changed.append(Translation(sandbox.path, sandbox.container, services, written))
        if not changed:
            return
        # Until it is known what a namespace has, also if this call is cancelled, the next one writes all of it.
        self._written |= {each.path: (None, None) for each in changed}
        begin = time.monotonic()
        now, failed = await self._context.run_in_background(translations.write, changed, gone)
        log.debug("%d namespaces changed in %.1f ms", len(changed), (time.monotonic() - begin) * 1000)
        self._written |= {each.path: (each.services, now[each.path]) for each in changed if each.path in now}
        paths = {sandbox.path for sandbox in self._context.sandboxes.values()} | now.keys() | failed.keys()
        self._written = {path: written for path, written in self._written.items() if path in paths}
        if failed:
            raise internal("; ".join(f"{path}: {error}" for path, error in failed.items()))

    def _visible(self, sandbox: SandboxRecord) -> Iterable[ServiceAddresses]:
        """The services on the container's networks."""
        for endpoint in sandbox.endpoints:
            yield from self._services.get(endpoint.network, ())


def _addresses(services: Iterable[ServiceAddresses]) -> set[str]:
    return {backend.address for service in services for backend in service.backends}
