"""The routing mesh on this node: ports of services, which the host publishes and sends to backends on the ingress
network."""

import os
from collections.abc import Iterable, Mapping, Sequence

from engine.common.errors import Kind, WharfError, internal
from engine.proxy.forward import Listen
from server.networks.context import NetworkContext
from server.networks.model import Network
from server.networks.netlink import conntrack
from server.networks.nftables.mesh import MeshRule
from server.networks.overlay import records
from server.networks.overlay.model import MeshPort
from server.networks.ports import portmap
from server.networks.ports.allocator import PortRange
from server.networks.proxy_client import PortInUse

#: The key of the ports' document in the store.
DOCUMENT = "mesh"


class Mesh:
    """Ports that are published are bound, so that no other program gets them; the firewall translates them."""

    def __init__(self, context: NetworkContext) -> None:
        self._context = context
        # By owner (see ``_owner``): those that have their port.
        self._published: dict[str, MeshPort] = {}
        # An earlier change has failed in part.
        self._stale = False

    def load(self, ports: Sequence[MeshPort]) -> None:
        for port in ports:
            self._published[_owner(port)] = port
            for span in _ranges(port):
                if self._context.ports.conflict(span) is None:
                    self._context.ports.allocate(_owner(port), span)

    @property
    def bridge(self) -> Network | None:
        return next((network for network in self._context if network.overlay and network.ingress), None)

    def rules(self) -> list[MeshRule]:
        ingress = self.bridge
        if ingress is None:
            return []
        ports = sorted(self._published.values(), key=lambda port: (port.protocol, port.published))
        return [
            MeshRule(ingress.bridge, port.protocol, port.published, port.target, tuple(port.backends)) for port in ports
        ]

    def listens(self) -> Mapping[str, Sequence[Listen]]:
        return {owner: [self._listen(port)] for owner, port in self._published.items()}

    def _listen(self, port: MeshPort) -> Listen:
        """What the proxy relays (IPv6, ::1) it sends to the host's address on the ingress network, where the firewall
        chooses a backend. Without the firewall, it would reach itself."""
        ingress, config = self.bridge, self._context.config
        gateway = ingress.gateway(4) if ingress is not None else ""
        carry = bool(gateway) and config.userland_proxy and config.iptables
        host = _hosts()[-1]
        return Listen(port.protocol, host, port.published, gateway, port.published, both=host == "::", carry=carry)

    async def publish(self, ports: Sequence[MeshPort]) -> None:
        """As ``OverlayNetworks.publish``."""
        wanted = {_owner(port): port for port in ports}
        if wanted == self._published and not self._stale:
            return
        self._stale = True
        before = _backends(self._published.values())
        closed = [owner for owner in self._published if owner not in wanted]
        problems = []
        for owner, port in wanted.items():
            if owner not in self._published:
                try:
                    await self._bind(owner, port)
                except WharfError as error:
                    problems.append(error.message)
                    continue
            self._published[owner] = port
        for owner in closed:
            del self._published[owner]
        await self._context.run_in_thread(self._context.firewall.set_mesh, self.rules())
        for owner in closed:
            await self._release(owner)
        await self._store()
        if gone := before - _backends(self._published.values()):
            await self._context.run_in_thread(conntrack.flush_udp, gone)
        self._stale = False
        if problems:
            raise internal("\n".join(problems))

    async def _bind(self, owner: str, port: MeshPort) -> None:
        """:raises WharfError: INTERNAL: a container or another program has the port."""
        context = self._context
        try:
            for span in _ranges(port):
                context.ports.allocate(owner, span)
            await context.forwarder.publish(owner, [self._listen(port)])
        except PortInUse as error:
            context.ports.release(owner)
            sentence = portmap.in_use_sentence(port.protocol, error.host, error.port, error.message)
            raise WharfError(Kind.INTERNAL, sentence) from None
        except BaseException:
            context.ports.release(owner)
            raise

    async def _release(self, owner: str) -> None:
        await self._context.forwarder.release(owner)
        self._context.ports.release(owner)

    async def _store(self) -> None:
        store = self._context.store
        if self._published:
            await store.put_overlay(DOCUMENT, records.encode_ports(tuple(self._published.values())))
        else:
            await store.delete_overlay(DOCUMENT)


def _owner(port: MeshPort) -> str:
    return f"mesh {port.published}/{port.protocol}"


def _hosts() -> tuple[str, ...]:
    """The addresses at which ports are published."""
    return ("0.0.0.0", "::") if os.path.exists("/proc/net/if_inet6") else ("0.0.0.0",)


def _ranges(port: MeshPort) -> list[PortRange]:
    return [PortRange(port.protocol, host, port.published, port.published) for host in _hosts()]


def _backends(ports: Iterable[MeshPort]) -> set[str]:
    return {backend for port in ports for backend in port.backends}
