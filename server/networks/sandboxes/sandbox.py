"""A container's network at its start: namespace, interfaces, ports, names and files.

Every step is entered on an exit stack; a failure leaves nothing.
"""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Sequence
from contextlib import AsyncExitStack

from api_models.network import EndpointSettings
from engine.common.errors import Kind, WharfError, not_found
from server.containers.neighbours import Sandbox
from server.containers.plan import ContainerPlan
from server.networks import endpoints, links, options
from server.networks.bridges import announcement, bridge_repair, devices, interfaces
from server.networks.context import NetworkContext
from server.networks.dns import hosts_file, names
from server.networks.model import Endpoint, Network, SandboxRecord, settings_for
from server.networks.netlink import netns
from server.networks.netlink.namespace_pool import Namespace
from server.networks.sandboxes import attachments, elements, gateway, publish, teardown

log = logging.getLogger(__name__)


async def start(context: NetworkContext, container: ContainerPlan) -> Sandbox:
    """Creates the sandbox of the container's mode.

    :raises WharfError: with dockerd's sentence; nothing remains.
    """
    pending = context.ending.get(container.id)
    if pending:
        await asyncio.wait([pending])
    mode = endpoints.mode_of(container)
    if mode == "container":
        return await _join(context, container)
    if container.id in context.sandboxes:
        await teardown.stop(context, container)
        await asyncio.wait([context.ending[container.id]])
    record = SandboxRecord(container.id, secrets.token_hex(32), mode)
    async with AsyncExitStack() as undo:
        if mode == "own":
            await _own(context, container, record, undo)
        else:
            await _plain(context, container, record, undo)
        files = await context.run_in_thread(hosts_file.write_all, hosts_file.build_plan(context, container, record))
        await context.store.put_sandbox(record)
        undo.push_async_callback(context.store.delete_sandbox, container.id)
        context.sandboxes[container.id] = record
        undo.callback(context.sandboxes.pop, container.id, None)
        await attachments.translate(context, record)
        undo.pop_all()
    context.last.pop(container.id, None)
    for endpoint in record.endpoints:
        teardown.publish_event(context, endpoint, "connect")
        announcement.repeat(context, record, context.networks[endpoint.network], endpoint)
    linked = links.legacy(context, container)
    await hosts_file.update_linkers(context, container)
    return Sandbox(
        netns_path=record.path or None,
        host=mode == "host",
        files=files,
        hostname=container.config.hostname,
        link_env=links.environment(context, container, linked),
    )


async def _join(context: NetworkContext, container: ContainerPlan) -> Sandbox:
    """Another container's network: its namespace, files and name."""
    key = container.host_config.network_mode.partition(":")[2]
    assert context.containers is not None
    others = context.containers.of(container.owner)
    other = others.get(key)
    if other.id == container.id:
        raise WharfError(Kind.INTERNAL, "cannot join own network")
    if not other.state.running:
        raise WharfError(Kind.CONFLICT, f"cannot join network of a non running container: {other.id}")
    if other.state.restarting:
        raise WharfError(
            Kind.CONFLICT,
            f"Container {other.id} is restarting, wait until the container is running",
        )
    record = context.sandboxes.get(other.id)
    seen = {container.id}
    while record is None and other.host_config.network_mode.startswith("container:"):
        if other.id in seen:
            raise WharfError(Kind.INTERNAL, "cannot join own network")
        seen.add(other.id)
        other = others.get(other.host_config.network_mode.partition(":")[2])
        record = context.sandboxes.get(other.id)
    host = record is not None and record.mode == "host"
    path = record.path if record else ""
    return Sandbox(
        netns_path=path or None,
        joins=other.id,
        of_process=None if path or host else other,
        host=host,
        files=hosts_file.paths(other),
        hostname=other.config.hostname,
    )


async def _plain(
    context: NetworkContext, container: ContainerPlan, record: SandboxRecord, undo: AsyncExitStack
) -> None:
    """The modes host and none: an endpoint to show, and for none a namespace with only a loopback."""
    for name in container.networking:
        network = context.of(container.owner).get(name)
        endpoint = endpoints.create(context, container, network, settings_for(container.networking, name))
        undo.callback(endpoints.release, network, endpoint)
        record.endpoints.append(endpoint)
    if record.mode == "none":
        userns = context.userns_of(container)
        undo.push_async_callback(context.run_in_thread, teardown.remove_all, context, record)
        await context.run_in_thread(_build, context, record, (), (), userns)


async def _own(context: NetworkContext, container: ContainerPlan, record: SandboxRecord, undo: AsyncExitStack) -> None:
    """A namespace on one or more networks."""
    # Plugins may know an endpoint before the record is stored at the end, so the record is stored before.
    known = context.of(container.owner)
    if any((network := known.find(name)) and network.uses_plugins for name in container.networking):
        undo.push_async_callback(context.store.delete_sandbox, container.id)
    for name, requested in container.networking.items():
        settings = await attachments.assign(context, container, name, requested, undo)
        network = known.find(name)
        if network is None:
            gone = f"network {name} not found"
            if container.started_before and name == endpoints.network_key(container):
                gone = f"could not find a network matching network mode {name}: {gone}"
            raise not_found(gone)
        endpoints.check_endpoint(network, settings)
        await devices.ensure_ready(context, network)
        endpoint = await _allocated(context, container, network, settings, record)
        undo.push_async_callback(attachments.release, context, network, endpoint, record)
        record.endpoints.append(endpoint)
    userns = context.userns_of(container)
    remote = attachments.on_plugins(context, record)
    if remote:
        await _join_plugins(context, container, record, undo, userns=userns)
    await gateway.add(context, container, record, undo)
    record.endpoints = endpoints.in_order(context.networks, record.endpoints)
    _name_interfaces(context, record)
    await publish.publish(context, container, record, undo)
    elements.open_links(context, container, record)
    pairs = [(context.networks[item.network], item) for item in record.endpoints]
    gateways = default_routes(context, record.endpoints)
    # Register the undo first: a cancelled caller doesn't learn what was created.
    undo.push_async_callback(context.run_in_thread, teardown.remove_all, context, record)
    if remote:
        # On failure, plugins are told before the namespace is deleted.
        undo.push_async_callback(context.remote.leave, record, record.endpoints)
    await context.run_in_thread(_build, context, record, pairs, gateways, userns)
    if remote:
        await context.remote.program(container, record)
    await names.register(context, container, record, undo)
    record.pending = []


async def _join_plugins(
    context: NetworkContext, container: ContainerPlan, record: SandboxRecord, undo: AsyncExitStack, *, userns: str
) -> None:
    """Creates the namespace, which plugins may enter, and joins their endpoints. Their answers decide by which network
    the traffic leaves, and so where ports are published."""
    undo.push_async_callback(context.run_in_thread, teardown.remove_all, context, record)
    await context.run_in_thread(_make_namespace, context, record, userns)
    await context.store.put_sandbox(record)
    undo.push_async_callback(context.remote.leave, record, record.endpoints)
    for endpoint in record.endpoints:
        if context.networks[endpoint.network].remote:
            await context.remote.join(container, record, endpoint)


async def _allocated(
    context: NetworkContext,
    container: ContainerPlan,
    network: Network,
    settings: EndpointSettings,
    record: SandboxRecord,
) -> Endpoint:
    try:
        return await attachments.create(context, container, network, settings, record)
    except WharfError:
        if not context.ending:
            raise
    # An address may belong to a container that has just stopped.
    await context.wait_teardowns()
    return await attachments.create(context, container, network, settings, record)


def _name_interfaces(context: NetworkContext, record: SandboxRecord) -> None:
    taken = {endpoint.interface for endpoint in record.endpoints if endpoint.interface}
    for endpoint in record.endpoints:
        if not endpoint.interface and has_interface(context, endpoint):
            endpoint.interface = free_interface(context.networks[endpoint.network], endpoint, taken)
            taken.add(endpoint.interface)


def has_interface(context: NetworkContext, endpoint: Endpoint) -> bool:
    """Whether the engine attaches an interface: a plugin may have made none, or made it in the namespace itself."""
    return endpoint.remote is None or not context.networks[endpoint.network].remote or bool(endpoint.remote.source)


def free_interface(network: Network, endpoint: Endpoint, taken: set[str]) -> str:
    """The first free name: the requested one, or the network's prefix and a number.

    :raises WharfError: the requested name is in use.
    """
    requested = (endpoint.settings.get("DriverOpts") or {}).get(options.ENDPOINT_IFNAME, "")
    if requested:
        if requested in taken:
            raise WharfError(Kind.INVALID_ARGUMENT, f'error renaming interface to "{requested}": file exists')
        return str(requested)
    prefix = network.option(options.PREFIX) or "eth"
    if network.remote and endpoint.remote is not None:
        prefix = endpoint.remote.prefix
    return next(f"{prefix}{number}" for number in range(1024) if f"{prefix}{number}" not in taken)


def _build(
    context: NetworkContext,
    record: SandboxRecord,
    pairs: Sequence[tuple[Network, Endpoint]],
    gateways: Sequence[interfaces.DefaultRoute],
    userns: str,
) -> None:
    """In a thread: creates a namespace with all its interfaces, and opens the firewall for them.

    ``userns``: the path of the user namespace that owns it; "": the host's.

    The record has what was created, also after a failure: :func:`teardown.remove_all` removes it.
    """
    if record.path:
        space = Namespace(record.path, netns.open_netlink(record.path))
    else:
        ready = any(network.bridged and endpoint.interface == "eth0" for network, endpoint in pairs)
        space = context.pool.take(userns) if ready else context.pool.make(userns, veth=False)
        record.path = space.path
    with contextlib.closing(space):
        for network, endpoint in pairs:
            attach_interface(context, space, network, endpoint)
        if gateways:
            interfaces.set_default_routes(space.netlink, gateways)


def _make_namespace(context: NetworkContext, record: SandboxRecord, userns: str) -> None:
    space = context.pool.make(userns, veth=False)
    record.path = space.path
    space.close()


def attach_interface(context: NetworkContext, space: Namespace, network: Network, endpoint: Endpoint) -> None:
    """In a thread: attaches one interface, and opens the firewall for it. Undoes itself on failure."""
    if not has_interface(context, endpoint):
        return
    opened = elements.of_endpoint(endpoint)
    context.firewall.check()
    if opened:
        context.firewall.add(endpoint.id, opened)
    try:
        _attach(context, space, network, endpoint)
    except BaseException:
        with contextlib.suppress(OSError):
            context.firewall.remove(endpoint.id)
        raise
    announcement.first(network, endpoint, space.path)


def _attach(context: NetworkContext, space: Namespace, network: Network, endpoint: Endpoint) -> None:
    spec = devices.interface_spec(network, endpoint)
    if network.remote:
        _attach_moved(context, space, network, endpoint, spec)
        return
    index = network.index
    try:
        endpoint.veth = interfaces.attach_interface(
            context.pool, space, devices.attacher(context, network, endpoint), spec
        )
    except OSError:
        # Another program may have deleted the bridge a moment ago.
        if not bridge_repair.restore(context, network) and network.index == index:
            raise
        index = network.index
        endpoint.veth = interfaces.attach_interface(
            context.pool, space, devices.attacher(context, network, endpoint), spec
        )
    if index != network.index and network.bridged:
        # It was deleted and restored, before it could know this link.
        bridge_repair.join(context, network, endpoint)


def _attach_moved(
    context: NetworkContext, space: Namespace, network: Network, endpoint: Endpoint, spec: interfaces.InterfaceSpec
) -> None:
    attacher = devices.attacher(context, network, endpoint)
    try:
        interfaces.attach_interface(context.pool, space, attacher, spec)
    except OSError as error:
        # The plugin's addresses and routes may be impossible.
        source = endpoint.remote.source if endpoint.remote else ""
        reason = f"failed to add interface {source} to sandbox: {(error.strerror or str(error)).lower()}"
        raise WharfError(Kind.INTERNAL, f"{reason} ({error.filename})" if error.filename else reason) from error


def default_routes(context: NetworkContext, present: Sequence[Endpoint]) -> list[interfaces.DefaultRoute]:
    """The default routes of a container with these endpoints."""
    first4, first6 = endpoints.default_gateways(context.networks, present)
    found = []
    for version, endpoint in ((4, first4), (6, first6)):
        if endpoint is None:
            continue
        network = context.networks[endpoint.network]
        hop = "" if network.routes_without_gateway else endpoint.default_hop(version) or ""
        found.append(interfaces.DefaultRoute(endpoint.interface, hop, version))
    return found
