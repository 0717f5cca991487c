"""``docker network connect`` and ``disconnect``, also while the container runs."""

import contextlib
import logging
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace

from api_models.network import EndpointSettings
from engine.common.errors import Kind, WharfError, invalid
from server.containers.model import Container
from server.networks import endpoints
from server.networks.bridges import announcement, devices, interfaces
from server.networks.context import NetworkContext
from server.networks.dns import hosts_file, names
from server.networks.model import HOST, NULL, Endpoint, Network, SandboxRecord
from server.networks.netlink import netns
from server.networks.netlink.namespace_pool import Namespace
from server.networks.sandboxes import attachments, elements, gateway, publish, sandbox, teardown

log = logging.getLogger(__name__)


async def connect(
    context: NetworkContext, key: str, network: Network | None, container: Container, settings: EndpointSettings
) -> None:
    """Connects a container to another network. ``network`` None: it can only be one of the swarm that is not on this
    node yet, with the name or id ``key``; a start attaches the container to it.

    :raises WharfError: with dockerd's sentence; nothing has changed then.
    """
    _check_there(container)
    record = context.sandboxes.get(container.id)
    running = record if container.state.running else None
    if network is not None:
        _check(context, network, container, settings, running)
    if running is not None:
        await _connect_running(context, key, network, container, settings, running)
    else:
        names_there = tuple(endpoints.dns_names(container, settings, network)) if network is not None else ()
        name = network.name if network is not None else key
        container.networking[name] = replace(settings, dns_names=names_there or None)
    await _save(context, container)


def _check(
    context: NetworkContext,
    network: Network,
    container: Container,
    settings: EndpointSettings,
    running: SandboxRecord | None,
) -> None:
    _check_modes(context, network, container)
    endpoints.check_endpoint(network, settings)
    if running is None:
        return
    # The endpoint may also be the engine's own, on a gateway.
    if running.endpoint(network.id) is not None or network.name in container.networking:
        if network.of_swarm:
            raise WharfError(Kind.CONFLICT, f"{container.name} is already attached to network {network.name}")
        raise WharfError(
            Kind.PERMISSION_DENIED,
            f"endpoint with name {container.name} already exists in network {network.name}",
        )


def _check_there(container: Container) -> None:
    if container.state.removing or container.state.dead:
        raise WharfError(
            Kind.CONFLICT, f"container {container.id} is marked for removal and cannot be connected or disconnected "
            "to the network"
        )  # fmt: skip


def _check_modes(context: NetworkContext, network: Network, container: Container) -> None:
    mode = container.host_config.network_mode
    if mode != "host" and network.driver == HOST:
        raise invalid("cannot connect container to host network - container must be created in host network mode")
    if mode.startswith("container:") or mode == "host":
        raise invalid(
            "container sharing network namespace with another container or host cannot be connected to any "
            "other network"
        )
    for name in container.networking:
        present = context.of(container.owner).by_name(name)
        if present is None or present is network:
            continue
        if NULL in (present.driver, network.driver):
            raise invalid(
                "container cannot be connected to multiple networks with one of the networks in private (none) mode"
            )


async def _connect_running(
    context: NetworkContext,
    key: str,
    network: Network | None,
    container: Container,
    settings: EndpointSettings,
    record: SandboxRecord,
) -> None:
    async with AsyncExitStack() as undo:
        assigned = await attachments.assign(context, container, network.id if network else key, settings, undo)
        if network is None:
            network = context.of(container.owner).get(key)
            _check(context, network, container, assigned, record)
        await devices.ensure_ready(context, network)
        container.networking[network.name] = settings
        undo.callback(container.networking.pop, network.name, None)
        if network.uses_plugins:
            undo.push_async_callback(context.store.put_sandbox, record)
        endpoint = await attachments.create(context, container, network, assigned, record)
        undo.push_async_callback(attachments.release, context, network, endpoint, record)
        if network.remote:
            undo.push_async_callback(context.remote.leave, record, [endpoint])
            await context.remote.join(container, record, endpoint)
        if sandbox.has_interface(context, endpoint):
            taken = {item.interface for item in record.endpoints}
            endpoint.interface = sandbox.free_interface(network, endpoint, taken)
        embedded = hosts_file.uses_embedded(context, record)
        record.endpoints.append(endpoint)
        undo.callback(lambda: record.endpoints.remove(endpoint))
        record.endpoints = endpoints.in_order(context.networks, record.endpoints)
        remote = attachments.on_plugins(context, record)
        added = await _add_gateway(context, container, record, undo)
        publish.open_routed(context, container, endpoint)
        moved = await _move_ports(context, container, record, undo)
        attached: list[Endpoint] = []
        undo.push_async_callback(context.run_in_thread, _detach, context, record, attached)
        if network.remote:
            # On failure, the plugin is told first, and its link returns to the host.
            undo.push_async_callback(context.remote.leave, record, [endpoint])
        for item in (endpoint, added):
            if item is not None:
                await context.run_in_thread(_attach, context, record, context.networks[item.network], item, attached)
        await context.run_in_thread(_routes, context, record)
        if moved is not None and moved not in (endpoint, added):
            await context.run_in_thread(elements.refresh, context, moved)
        if remote:
            await context.remote.program(container, record)
        await context.run_in_thread(
            hosts_file.change_hosts, container.hosts_path, [], hosts_file.own_lines(container, endpoint)
        )
        await attachments.translate(context, record)
        await names.register(context, container, record, undo)
        await _resolv_conf(context, container, record, before=embedded)
        record.pending = [item for item in record.pending if item is not endpoint]
        await context.store.put_sandbox(record)
        undo.pop_all()
    await _remove_surplus_gateway(context, record)
    teardown.publish_event(context, endpoint, "connect")
    announcement.repeat(context, record, network, endpoint)
    await hosts_file.update_linkers(context, container)


async def _add_gateway(
    context: NetworkContext, container: Container, record: SandboxRecord, undo: AsyncExitStack
) -> Endpoint | None:
    """Adds the implicit endpoint that the container needs now, ready to be attached; returns it."""
    added = await gateway.add(context, container, record, undo)
    if added is not None:
        taken = {item.interface for item in record.endpoints}
        added.interface = sandbox.free_interface(context.networks[added.network], added, taken)
    return added


async def _remove_surplus_gateway(context: NetworkContext, record: SandboxRecord) -> None:
    """Removes the implicit endpoint if another one leads out now; its ports have moved there."""
    surplus = gateway.surplus(context, record)
    if surplus is None:
        return
    try:
        record.endpoints.remove(surplus)
        await context.forwarder.release(surplus.id)
        await context.run_in_thread(_detach, context, record, [surplus])
        context.ports.release(surplus.id)
        endpoints.release(context.networks[surplus.network], surplus)
        await context.store.put_sandbox(record)
    except OSError as error:
        log.warning("container=%s the gateway's interface stays: %s", record.container, error)


async def disconnect(context: NetworkContext, network: Network, container: Container) -> None:
    """Disconnects a container from a network.

    :raises WharfError: it isn't connected, with dockerd's sentence.
    """
    _check_there(container)
    if network.driver == HOST and container.host_config.network_mode == "host":
        raise invalid("cannot disconnect container from host network - container was created in host network mode")
    record = context.sandboxes.get(container.id)
    endpoint = record.endpoint(network.id) if record else None
    if endpoint is None:
        await remove_settings(context, network.name, container)
        return
    assert record is not None
    await _disconnect_running(context, network, container, record, endpoint)
    container.networking.pop(network.name, None)
    await _save(context, container)


async def remove_settings(context: NetworkContext, name: str, container: Container) -> None:
    """Removes a network from a container's configuration; the container isn't connected to it now.

    :raises WharfError: INTERNAL: the network isn't in the configuration.
    """
    _check_there(container)
    if name not in container.networking:
        which = f"network {name}" if container.state.running else f"the network {name}"
        raise WharfError(Kind.INTERNAL, f"container {container.id} is not connected to {which}")
    del container.networking[name]
    await _save(context, container)


async def _disconnect_running(
    context: NetworkContext, network: Network, container: Container, record: SandboxRecord, endpoint: Endpoint
) -> None:
    embedded = hosts_file.uses_embedded(context, record)
    remote = attachments.on_plugins(context, record)
    if network.remote:
        await context.remote.check(network)
        record.pending.append(endpoint)
    record.endpoints.remove(endpoint)
    endpoint.dns_names = []
    if network.user_defined:
        await names.send_zone(context, network)
    await context.forwarder.release(endpoint.id)
    context.ports.release(endpoint.id)
    had_ports = bool(endpoint.publications or endpoint.ports)
    if network.remote:
        await context.store.put_sandbox(record)
        await context.remote.leave(record, [endpoint])
    await context.run_in_thread(_detach, context, record, [endpoint])
    await attachments.release(context, network, endpoint, record)
    await context.store.put_sandbox(record)
    async with AsyncExitStack() as undo:
        added = await _add_gateway(context, container, record, undo)
        # A plugin may have published the ports.
        if had_ports or network.remote:
            moved = await _move_ports(context, container, record, undo)
            if moved is not None and moved is not added:
                await context.run_in_thread(elements.refresh, context, moved)
        if added is not None:
            await context.run_in_thread(_attach, context, record, context.networks[added.network], added, [])
        undo.pop_all()
    try:
        await context.run_in_thread(_routes, context, record)
    except OSError as error:
        # The container has left the network, and an interface that it set down has no route; dockerd logs this, too.
        log.warning("container=%s has no default route: %s", record.container, error)
    if remote:
        await _program(context, container, record)
    await context.run_in_thread(
        hosts_file.change_hosts, container.hosts_path, hosts_file.own_lines(container, endpoint), []
    )
    if network.overlay:
        await context.overlays.translate(record)
    if record.mode == "own":
        await names.send_view(context, container, record)
    await _resolv_conf(context, container, record, before=embedded)
    await context.store.put_sandbox(record)
    await _remove_surplus_gateway(context, record)
    teardown.publish_event(context, endpoint, "disconnect")


async def _program(context: NetworkContext, container: Container, record: SandboxRecord) -> None:
    try:
        await context.remote.program(container, record)
    except WharfError as error:
        # The container has left the network; the reference logs this too.
        log.error("container=%s %s", record.container, error)


async def _move_ports(
    context: NetworkContext, container: Container, record: SandboxRecord, undo: AsyncExitStack
) -> Endpoint | None:
    """Publishes the ports on the endpoint that the traffic now leaves by; returns that endpoint if it has changed."""
    now = publish.publisher(context, record)
    holder = next((item for item in record.endpoints if publish.holds_host_ports(item)), None)
    if now is None or (holder is not None and holder is now):
        return None
    if holder is not None:
        await context.forwarder.release(holder.id)
        context.ports.release(holder.id)
        await context.run_in_thread(context.firewall.remove, holder.id)
        holder.publications, holder.listens, holder.ports = [], [], []
        publish.open_routed(context, container, holder)
        await context.run_in_thread(elements.refresh, context, holder)
    opened = now.publications
    await publish.publish(context, container, record, undo)
    return now if now.publications != opened or now.listens else None


def _attach(
    context: NetworkContext, record: SandboxRecord, network: Network, endpoint: Endpoint, attached: list[Endpoint]
) -> None:
    netlink = netns.open_netlink(record.path)
    with contextlib.closing(netlink):
        sandbox.attach_interface(context, Namespace(record.path, netlink), network, endpoint)
    attached.append(endpoint)


def _detach(context: NetworkContext, record: SandboxRecord, attached: Sequence[Endpoint]) -> None:
    for endpoint in attached:
        context.firewall.remove(endpoint.id)
        teardown.flush_udp(endpoint)
        if endpoint.remote is not None and context.networks[endpoint.network].remote:
            devices.discard_link(record.path, endpoint)
            continue
        netlink = netns.open_netlink(record.path)
        with contextlib.closing(netlink):
            interfaces.detach_interface(context.pool, netlink, endpoint.interface, endpoint.veth)


def _routes(context: NetworkContext, record: SandboxRecord) -> None:
    if record.mode != "own":
        return
    netlink = netns.open_netlink(record.path)
    with contextlib.closing(netlink):
        interfaces.set_default_routes(netlink, sandbox.default_routes(context, record.endpoints))


async def _resolv_conf(context: NetworkContext, container: Container, record: SandboxRecord, *, before: bool) -> None:
    now = hosts_file.uses_embedded(context, record)
    if now != before and record.mode == "own":
        ipv6 = any(endpoint.address6 for endpoint in record.endpoints)
        overrides = hosts_file.overrides(context, container)
        await context.run_in_thread(
            lambda: hosts_file.rewrite_resolv_conf(container.resolv_conf_path, overrides, embedded=now, ipv6=ipv6)
        )


async def _save(context: NetworkContext, container: Container) -> None:
    if context.save_container is not None:
        await context.save_container(container)
