"""The networks service, which routes and containers call."""

import asyncio
import contextlib
import copy
import logging
from collections.abc import Callable, Coroutine, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

from api_models.container import NetworkSettings
from api_models.filters import Filters
from api_models.network import EndpointSettings, NetworkCreateRequest
from engine.common.errors import Kind, WharfError, invalid, not_found
from engine.common.system import private
from server.access.caller import EVERYONE, Caller
from server.config.check import parse_mark
from server.config.model import Config
from server.containers.model import Container
from server.containers.neighbours import Sandbox
from server.containers.plan import ContainerPlan
from server.containers.registry import View as ContainerView
from server.events.publisher import EventPublisher
from server.networks import confine, create, endpoints, links, loading, merged, predefined, query
from server.networks.bridges import devices, ownership
from server.networks.bridges.reconciler import Reconciler
from server.networks.context import Containers, NetworkContext, Store
from server.networks.dns import hosts_file, names
from server.networks.dns.redirect import redirect
from server.networks.ipam.allocator import default_pool
from server.networks.ipam.pools import subnets_in_use
from server.networks.model import DRIVERS, Network, SandboxRecord, settings_for
from server.networks.netlink import netns
from server.networks.netlink.namespace_pool import NamespacePool, mark
from server.networks.netlink.rtnetlink import Netlink
from server.networks.nftables import rules
from server.networks.nftables.firewall import Firewall
from server.networks.overlay.model import OverlayNetworks
from server.networks.proxy_client import Forwarder
from server.networks.sandboxes import connect, recover, sandbox, settings, teardown, unlink
from server.networks.swarmnetworks import SwarmNetworks
from server.networks.view import View
from server.plugins.discovery import Plugins

log = logging.getLogger(__name__)


def _policy(config: Config) -> rules.Policy:
    """The flags of the daemon that change the rules of all bridges."""
    mark = config.bridge_accept_fwmark
    return rules.Policy(
        mark=rules.mark_expression(*parse_mark(mark)) if mark else "", direct=config.allow_direct_routing
    )


class Networks:
    """All networks of the daemon.

    Order of calls: constructor, :meth:`open`, :meth:`bind`, :meth:`recover` once, then any, finally :meth:`close`.
    """

    _caller = EVERYONE

    def __init__(
        self, config: Config, store: Store, bus: EventPublisher, *, userns: str = "", plugins: Plugins | None = None
    ) -> None:
        """``userns``: the user namespace of most containers, for which network namespaces are made ahead; "": the
        host's.

        :raises WharfError: INVALID_ARGUMENT: an invalid address pool.
        """
        pools = [default_pool(pool.base, pool.size) for pool in config.default_address_pools]
        private.make_directory(config.exec_root, private.PASSABLE)
        self._directory = f"{config.exec_root}/netns"
        netns.prepare(self._directory)
        host = Netlink()
        workers = ThreadPoolExecutor(4, thread_name_prefix="network")
        sweepers = ThreadPoolExecutor(2, thread_name_prefix="network-sweep")
        alias, mtu = mark(config.network_name), config.mtu or 1500
        pool = NamespacePool(self._directory, host, sweepers, alias=alias, mtu=mtu, owner=userns)
        firewall = Firewall(
            config.network_name,
            enabled=config.iptables,
            marker="" if config.ip_forward_no_drop else f"{config.exec_root}/forwarding-enabled",
            policy=_policy(config),
        )
        forwarder = Forwarder(f"{config.exec_root}/proxy.sock", self._rewired)
        self.context = NetworkContext(config, pools, store, bus, host, pool, firewall, forwarder, workers, sweepers)
        self.context.load_remote = partial(loading.load_remote, plugins=plugins or Plugins())
        self.context.load_overlays = loading.load_overlays
        self._stored: Sequence[SandboxRecord] = ()
        self._recovered = False
        self._restorer = Reconciler(self.context)

    async def open(self) -> None:
        """Reads the records and creates the predefined networks.

        :raises WharfError: a flag can't be satisfied, or another engine manages the bridge.
        """
        await self.context.run_in_thread(ownership.claim_engine, self.context)
        found, self._stored = await self.context.store.load()
        for network in found:
            network.pools = network.make_pools()
            self.context.add(network)
        if any(network.overlay for network in found):
            await self.context.overlays.load()
        await predefined.ensure(self.context)

    @property
    def _swarm(self) -> SwarmNetworks | None:
        """The networks of the swarm, which only administrators manage."""
        return self.context.swarm if self._caller.administrator else None

    @property
    def overlay(self) -> OverlayNetworks:
        """The networks of the swarm on this node, for its agent."""
        return loading.overlays_of(self.context)

    def seen_by(self, caller: Caller) -> "Networks":
        """The same service for one caller."""
        bound = copy.copy(self)
        bound._caller = caller
        return bound

    @property
    def _view(self) -> View:
        return self.context.seen_by(self._caller)

    @property
    def visible(self) -> View:
        """The networks that exist for the caller."""
        return self._view

    async def ensure_bridge(self) -> None:
        """A user expects the network ``bridge`` before any container uses it."""
        if not self._caller.administrator:
            await predefined.ensure_bridge(self.context, self._caller.owner)

    @property
    def _containers(self) -> ContainerView:
        assert self.context.containers is not None
        return self.context.containers.seen_by(self._caller)

    def bind(
        self,
        containers: Containers,
        save: Callable[[Container], Coroutine[Any, Any, None]],
        userns_of: Callable[[ContainerPlan], str],
    ) -> None:
        """Sets the registry of containers, the function that stores a changed one, and the function that returns the
        path of a container's user namespace ("": the host's)."""
        self.context.containers, self.context.save_container = containers, save
        self.context.userns_of = userns_of

    async def recover(self, running: Sequence[Container]) -> None:
        """At start, once: running containers keep their network, the rest of an earlier run is removed."""
        await recover.recover(self.context, running, self._stored)
        self._stored = ()
        self._recovered = True
        self._restorer.start()

    def links(self, container: Container) -> list[str]:
        """The devices of the host that carry a container's traffic; [] if it shares another's network."""
        record = self.context.sandboxes.get(container.id)
        return [] if record is None else [endpoint.veth for endpoint in record.endpoints if endpoint.veth]

    def interfaces(self, container: Container) -> list[tuple[str, str]]:
        """The interfaces that a running container has of its own: the name there, and the device of the host that
        carries its traffic, "" if there is none (macvlan, ipvlan, plugins). [] if it uses the network of the host or of
        another container."""
        record = self.context.sandboxes.get(container.id)
        if record is None or record.mode != "own":
            return []
        return [(endpoint.interface, endpoint.veth) for endpoint in record.endpoints]

    async def close(self) -> None:
        """At the end of the daemon. Running containers keep everything; if none runs, everything is removed. A start
        that failed before it knew the running containers removes nothing."""
        context = self.context
        context.closed = True
        for task in context.announcing:
            task.cancel()
        await self._restorer.close()
        await context.wait_teardowns()
        busy = not self._recovered or any(record.mode == "own" for record in context.sandboxes.values())
        await context.forwarder.close(end=not busy)
        await asyncio.to_thread(self._close, busy)

    def _close(self, busy: bool) -> None:  # noqa: FBT001
        context = self.context
        context.pool.close()
        if not busy:
            context.firewall.stop()
            for network in context:
                if ownership.owns_bridge(context, network) and not devices.is_adopted(context, network):
                    with contextlib.suppress(OSError):
                        devices.remove_links(context, network)
        context.workers.shutdown()
        # It may just make a namespace for the pool, which is deleted then.
        context.sweepers.shutdown()
        # Also after a failed start: the mount stays while a namespace is left.
        netns.unprepare(self._directory)
        context.claims.close()
        context.host.close()

    # called by containers

    async def check(self, container: ContainerPlan) -> None:
        """At create: checks modes, names and addresses. Completes ``container.networking``.

        :raises WharfError: as dockerd at create.
        """
        if endpoints.uses_default_bridge(container):
            await predefined.ensure_bridge(self.context, container.owner)
        endpoints.normalize(self.context, container)
        known = self.context.of(container.owner)
        found = [network for name in container.networking if (network := known.find(name))]
        endpoints.check_combination(found, container.host_config.network_mode)
        problems = []
        for network in found:
            try:
                endpoints.check_endpoint(network, settings_for(container.networking, network.name))
            except WharfError as error:
                if error.kind is not Kind.INVALID_ARGUMENT:
                    raise
                problems.append(f"invalid config for network {network.name}: {error.message}")
        if problems:
            raise invalid(endpoints.join_sentences(problems))
        links.check(self.context, container)
        if container.host_config.network_mode.startswith("container:"):
            self._check_joined(container)

    def _check_joined(self, container: ContainerPlan) -> None:
        key = container.host_config.network_mode.partition(":")[2]
        assert self.context.containers is not None
        other = self.context.containers.of(container.owner).find(key)
        if other is None:
            return  # the start will fail, like dockerd's
        # It also shares the other container's name.
        container.config = replace(container.config, hostname=other.config.hostname, domainname=other.config.domainname)

    async def start(self, container: ContainerPlan) -> Sandbox:
        """At start: see ``sandbox.start``."""
        return await sandbox.start(self.context, container)

    async def stop(self, container: ContainerPlan) -> None:
        """After the exit: releases everything, in the background. Does nothing if there is no sandbox."""
        await teardown.stop(self.context, container)

    async def remove(self, container: ContainerPlan) -> None:
        """When the container's record is removed."""
        await teardown.stop(self.context, container)
        self.context.last.pop(container.id, None)

    async def rename(self, container: Container, old: str) -> None:
        """Renames it on all networks. ``old`` without slash."""
        record = self.context.sandboxes.get(container.id)
        if record is None:
            return
        for endpoint in record.endpoints:
            if endpoint.implicit:
                continue
            network = self.context.networks[endpoint.network]
            endpoint.name = container.name
            chosen = settings_for(container.networking, network.name)
            endpoint.dns_names = endpoints.dns_names(container, chosen, network)
        await names.send_zones(self.context, record)
        await self.context.store.put_sandbox(record)

    def settings(self, container: Container) -> NetworkSettings:
        """inspect's ``NetworkSettings``."""
        return settings.settings(self.context, container)

    def is_attached(self, container_id: str, network_id: str) -> bool:
        """Whether a container is on a network, or joins it now."""
        network = self.context.networks.get(network_id)
        return network is not None and container_id in network.endpoints

    def link_names(self, clients: Iterable[Container]) -> dict[str, list[str]]:
        """The names that the legacy links of ``clients`` give to containers (``/client/alias``, by container's id)."""
        return links.names(self.context, clients)

    def links_of(self, container: Container) -> list[str] | None:
        """``HostConfig.Links`` in inspect: those of the default bridge, ``/target:/container/alias``."""
        return links.shown(self.context, container)

    def linked(self, key: str, containers: ContainerView) -> Container:
        """The target of the link ``client/alias``.

        :raises WharfError: NOT_FOUND.
        """
        return links.find(self.context, key, containers)[1]

    async def remove_link(self, key: str, containers: ContainerView) -> None:
        """``docker rm --link /client/alias``: removes the link, not the containers.

        :raises WharfError: NOT_FOUND; INTERNAL for a container's own name.
        """
        await unlink.remove_link(self.context, key, containers)

    # called by routes

    def get(self, key: str) -> Network:
        """A network by its key.

        :raises WharfError: NOT_FOUND, INVALID (an ambiguous prefix).
        """
        return self._view.get(key)

    async def inspect(self, key: str, *, scope: str = "", verbose: bool = False) -> dict[str, Any]:
        """See ``merged.inspect``."""
        return await merged.inspect(self.context, self._view, self._swarm, key, scope=scope, verbose=verbose)

    async def listing(self, filters: Filters, *, containers: bool) -> list[dict[str, Any]]:
        """See ``merged.listing``."""
        await self.ensure_bridge()
        return await merged.listing(self.context, self._view, self._swarm, filters, containers=containers)

    async def create(self, request: NetworkCreateRequest) -> Network:
        """Creates a network.

        :raises WharfError: with dockerd's sentence.
        """
        if self._caller.role is not None:
            if removals := devices.removals(self.context):
                # The routes of removed networks are in use no more.
                await asyncio.wait(removals)
            in_use = await self.context.run_in_thread(subnets_in_use, self.context.host)
            confine.check(self._caller.role, request, in_use)
        if (swarm := self._swarm) is not None:
            if merged.of_swarm(request):
                return await merged.create_in(self.context, swarm, request)
            merged.check_name(swarm, request.name)
        return await create.create(self.context, request, self._caller.owner)

    def drivers(self) -> list[str]:
        """The engine's own drivers, and those of plugins that networks have."""
        return sorted(DRIVERS.union(network.driver for network in self.context))

    async def delete(self, key: str) -> None:
        """See ``merged.remove``."""
        await merged.remove(self.context, self._view, self._swarm, key)

    async def remove_owned(self) -> list[str]:
        """Removes all networks of the caller's owner; returns a sentence for each that is left. For users only: the
        administrators keep theirs."""
        return await query.remove_owned(self.context, self._caller.owner) if self._caller.owner else []

    async def connect(self, key: str, container: str, endpoint: EndpointSettings | None) -> None:
        """Connects a container.

        :raises WharfError: with dockerd's sentence.
        """
        target = self._containers.get(container)
        await self.ensure_bridge()
        async with target.lock:
            network = self._view.find(key)
            if network is None:
                key = self._name_in_swarm(key, target)
            elif not self.context.of(target.owner).sees(network):
                raise WharfError(
                    Kind.PERMISSION_DENIED, f"network {network.name} and container {target.name} have different owners"
                )
            await connect.connect(self.context, key, network, target, endpoint or EndpointSettings())

    def _name_in_swarm(self, key: str, target: Container) -> str:
        """The name of a network of the swarm that is not on this node; ``key`` on a worker, which does not know.

        :raises WharfError: NOT_FOUND: there is none, or the container has an owner, who can't use it.
        """
        known = self._swarm.find(key) if self._swarm is not None else None
        if self.context.attacher is None or target.owner or (known is None and self._swarm is not None):
            raise not_found(f"network {key} not found")
        return key if known is None else known.name

    async def disconnect(self, key: str, container: str, *, force: bool = False) -> None:
        """Disconnects a container.

        :raises WharfError: with dockerd's sentence.
        """
        target = self._containers.find(container)
        if target is None:
            if force:
                self._view.get(key)
                raise not_found(f"endpoint {container} not found")
            target = self._containers.get(container)
        async with target.lock:
            if self._view.find(key) is None and (force or not target.state.running):
                await connect.remove_settings(self.context, key, target)  # the network was removed
            else:
                await connect.disconnect(self.context, self._view.get(key), target)

    async def prune(self, filters: Filters) -> list[str]:
        """Removes unused networks; returns their names."""
        return await merged.prune(self.context, self._view, self._swarm, filters)

    def host_gateway(self, owner: str = "") -> str:
        """The first address of ``host-gateway`` for an owner's containers, "" without a default bridge."""
        return next(iter(hosts_file.host_gateways(self.context, owner)), "")

    async def _rewired(self, container: str, udp: int, tcp: int) -> None:
        record = self.context.sandboxes.get(container)
        if record is not None:
            await self.context.run_in_thread(redirect, record.path, udp, tcp)

    async def restore(self) -> None:
        """On reload: restores devices, links and rules that other programs removed."""
        await self._restorer.check([network for network in self.context if network.bridged and network.ready])
        for network in self.context:
            if network.parent or (network.bridge and not network.ready):
                try:
                    await self.context.run_in_thread(devices.make_device, self.context, network)
                except (WharfError, OSError) as error:
                    log.error("network=%s cannot be restored: %s", network.name, error)
        for record in await self.context.run_in_thread(
            recover.restore_links, self.context, list(self.context.sandboxes.values())
        ):
            await self.context.store.put_sandbox(record)
