"""After the daemon's start: makes the kernel, the proxy and the records consistent.

The network of a running container doesn't change, so its traffic never stops. What no record owns is removed:
namespaces, links and bridges carry the engine's mark, the table is rewritten.
"""

import contextlib
import logging
import os
from collections.abc import Sequence

from api_models.network import EndpointSettings
from engine.common.errors import WharfError
from engine.proxy.forward import Listen
from server.containers.model import Container
from server.networks import endpoints, options
from server.networks.bridges import bridge, bridge_repair, devices, ownership
from server.networks.context import NetworkContext
from server.networks.dns import hosts_file, names
from server.networks.dns.redirect import redirect
from server.networks.model import Network, SandboxRecord
from server.networks.netlink import netns
from server.networks.netlink.namespace_pool import mark
from server.networks.nftables.mesh import Element, MeshRule
from server.networks.proxy_client import ViewRequest
from server.networks.sandboxes import elements, publish, repair, teardown

log = logging.getLogger(__name__)


async def recover(context: NetworkContext, running: Sequence[Container], stored: Sequence[SandboxRecord]) -> None:
    """Takes running containers' networks over and removes everything else of this engine."""
    alive = {container.id: container for container in running}
    kept: list[SandboxRecord] = []
    gone: list[SandboxRecord] = []
    for record in stored:
        usable = record.container in alive and all(item.network in context.networks for item in record.endpoints)
        if usable and record.path and not await context.run_in_thread(netns.exists, record.path):
            log.warning("container=%s its network namespace is gone", record.container)
            usable = False
        (kept if usable else gone).append(record)
    for record in kept:
        context.sandboxes[record.container] = record
        for endpoint in record.endpoints:
            endpoints.reserve(context.networks[endpoint.network], endpoint)
            for listen in endpoint.listens:
                _allocate_ports(context, endpoint.id, listen)
        await _complete_interrupted(context, alive[record.container], record)
    # Plugins have to be told about their endpoints, so the namespaces stay until then.
    leaving = [record for record in gone if any(item.remote for item in (*record.endpoints, *record.pending))]
    overlays = context.overlays if any(network.overlay for network in context) else None
    mesh = overlays.mesh_rules() if overlays else ()
    for record in await context.run_in_thread(_kernel, context, kept, leaving, mesh):
        await context.store.put_sandbox(record)
    listens = {endpoint.id: endpoint.listens for record in kept for endpoint in record.endpoints if endpoint.listens}
    if overlays:
        listens.update((owner, list(items)) for owner, items in overlays.mesh_listens().items())
    views: dict[str, ViewRequest] = {}
    for record in kept:
        if hosts_file.uses_embedded(context, record):
            views[record.container] = await names.view_request(context, alive[record.container], record)
    zones = {
        network.id: names.zone_of(context, network) for network in context if network.user_defined and network.endpoints
    }
    ports = await context.forwarder.recover(listens, views, zones)
    for key, (udp, tcp) in ports.items():
        await context.run_in_thread(redirect, context.sandboxes[key].path, udp, tcp)
    for record in gone:
        if record in leaving:
            teardown.begin(context, record, at_start=True)
        else:
            await context.store.delete_sandbox(record.container)
    if overlays:
        await overlays.recover()
    if any(network.uses_plugins for network in context):
        await context.remote.recover(kept)
    context.pool.refill()


async def _complete_interrupted(context: NetworkContext, container: Container, record: SandboxRecord) -> None:
    """Completes a connect or disconnect that was interrupted between its two records: the sandbox's record decides."""
    if record.mode != "own":
        return
    there = {context.networks[item.network].name: item for item in record.endpoints if not item.implicit}
    if set(there) == set(container.networking):
        return
    for name in set(container.networking) - set(there):
        del container.networking[name]
    for name, endpoint in there.items():
        if name not in container.networking:
            container.networking[name] = EndpointSettings.parse(endpoint.settings)
    if context.save_container is not None:
        await context.save_container(container)


def _allocate_ports(context: NetworkContext, owner: str, listen: Listen) -> None:
    hosts = ("0.0.0.0", "::") if listen.both else (listen.host,)
    for host in hosts:
        ports = publish.port_range(listen, host)
        if context.ports.conflict(ports) is None:
            context.ports.allocate(owner, ports)


def _kernel(
    context: NetworkContext,
    kept: Sequence[SandboxRecord],
    leaving: Sequence[SandboxRecord],
    mesh: Sequence[MeshRule],
) -> list[SandboxRecord]:
    """In a thread: links, namespaces, bridges and rules, except those of ``leaving`` records. Returns the changed
    records."""
    kept_elements: dict[str, list[Element]] = {}
    for record in kept:
        for endpoint in record.endpoints:
            found = elements.of_endpoint(endpoint)
            if found:
                kept_elements[endpoint.id] = found
    claimed = [network for network in context if network.bridged and network.bridge and _claimed(context, network)]
    # The rules first: until then, the rules of the last run apply to a container's traffic.
    context.firewall.start(kept_elements, [options.rules(network) for network in claimed], mesh)
    for network in context:
        if network.config_only or not (network.bridge or network.parent):
            continue
        try:
            devices.make_device(context, network)
        except Exception as error:
            # One unusable network must not prevent the daemon's start; a container's start on it will fail.
            log.error("network=%s cannot be set up: %s", network.name, error)
    changed = restore_links(context, kept)
    stay = (*kept, *leaving)
    _sweep_namespaces(context, {record.path for record in stay})
    _sweep_links(context, {item.veth for record in stay for item in record.endpoints if item.veth})
    return changed


def _claimed(context: NetworkContext, network: Network) -> bool:
    """Whether the bridge is this engine's. Rules for another engine's would block its containers."""
    try:
        ownership.claim_bridge(context, network)
    except WharfError:
        return False  # the following code logs it: its device is not created
    return True


def restore_links(context: NetworkContext, records: Sequence[SandboxRecord]) -> list[SandboxRecord]:
    """In a thread: restores missing links of running containers from their records. Returns the changed records."""
    present = bridge_repair.host_links(context)
    changed = []
    for record in records:
        try:
            if repair.repair(context, record, present):
                changed.append(record)
        except (WharfError, OSError) as error:
            log.error("container=%s has lost a link that cannot be restored: %s", record.container, error)
    return changed


def _sweep_namespaces(context: NetworkContext, keep: set[str]) -> None:
    directory = f"{context.config.exec_root}/netns"
    for name in os.listdir(directory):
        path = f"{directory}/{name}"
        if path not in keep:
            with contextlib.suppress(OSError):
                netns.delete(path)


def _sweep_links(context: NetworkContext, keep: set[str]) -> None:
    own_devices = {network.bridge or network.parent for network in context}
    own_devices |= {network.vxlan for network in context if network.vxlan_local}
    for link in context.host.links():
        if link.alias != mark(context.config.network_name) or link.name in keep or link.name in own_devices:
            continue
        log.info("removing link %s of an earlier run", link.name)
        try:
            bridge.remove(context.host, link.name, link.alias)
        except OSError as error:
            log.warning("cannot remove link %s: %s", link.name, error)
