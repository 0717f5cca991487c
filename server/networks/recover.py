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
from server.networks import endpoints, options, publish, repair, sandbox
from server.networks.bridges import attach, bridge, bridge_repair, ownership
from server.networks.context import Room
from server.networks.dns import hosts_file, names
from server.networks.model import BRIDGE, Network, SandboxRecord
from server.networks.netlink import netns
from server.networks.netlink.namespace_pool import mark
from server.networks.nftables.rules import Element
from server.networks.proxy_client import ViewRequest

log = logging.getLogger(__name__)


async def recover(room: Room, running: Sequence[Container], stored: Sequence[SandboxRecord]) -> None:
    """Takes running containers' networks over and removes everything else of this engine."""
    alive = {container.id: container for container in running}
    kept: list[SandboxRecord] = []
    gone: list[SandboxRecord] = []
    for record in stored:
        usable = record.container in alive and all(item.network in room.networks for item in record.endpoints)
        if usable and record.path and not await room.work(netns.exists, record.path):
            log.warning("container=%s its network namespace is gone", record.container)
            usable = False
        (kept if usable else gone).append(record)
    for record in kept:
        room.sandboxes[record.container] = record
        for endpoint in record.endpoints:
            endpoints.hold(room.networks[endpoint.network], endpoint)
            for listen in endpoint.listens:
                _hold_ports(room, endpoint.id, listen)
        await _agree(room, alive[record.container], record)
    for record in await room.work(_kernel, room, kept):
        await room.store.put_sandbox(record)
    listens = {endpoint.id: endpoint.listens for record in kept for endpoint in record.endpoints if endpoint.listens}
    views: dict[str, ViewRequest] = {}
    for record in kept:
        if hosts_file.uses_embedded(room, record):
            views[record.container] = await names.view_request(room, alive[record.container], record)
    zones = {network.id: names.zone_of(network) for network in room if network.user_defined and network.endpoints}
    ports = await room.forwarder.recover(listens, views, zones)
    for key, (udp, tcp) in ports.items():
        await room.work(names.redirect, room.sandboxes[key].path, udp, tcp)
    for record in gone:
        await room.store.delete_sandbox(record.container)
    room.pool.fill()


async def _agree(room: Room, container: Container, record: SandboxRecord) -> None:
    """Completes a connect or disconnect that was interrupted between its two records: the sandbox's record decides."""
    if record.mode != "own":
        return
    there = {room.networks[item.network].name: item for item in record.endpoints}
    if set(there) == set(container.networking):
        return
    for name in set(container.networking) - set(there):
        del container.networking[name]
    for name, endpoint in there.items():
        if name not in container.networking:
            container.networking[name] = EndpointSettings.parse(endpoint.settings)
    if room.save_container is not None:
        await room.save_container(container)


def _hold_ports(room: Room, owner: str, listen: Listen) -> None:
    hosts = ("0.0.0.0", "::") if listen.both else (listen.host,)
    for host in hosts:
        wanted = publish.port_range(listen, host)
        if room.ports.conflict(wanted) is None:
            room.ports.take(owner, wanted)


def _kernel(room: Room, kept: Sequence[SandboxRecord]) -> list[SandboxRecord]:
    """In a thread: links, namespaces, bridges and rules. Returns the changed records."""
    wanted: dict[str, list[Element]] = {}
    for record in kept:
        for endpoint in record.endpoints:
            found = sandbox.elements(endpoint)
            if found:
                wanted[endpoint.id] = found
    claimed = [network for network in room if network.driver == BRIDGE and network.bridge and _claimed(room, network)]
    # The rules first: until then, the rules of the last run apply to a container's traffic.
    room.firewall.start(wanted, [options.rules(network) for network in claimed])
    for network in room:
        if network.config_only or not (network.bridge or network.parent):
            continue
        try:
            attach.make_device(room, network)
        except Exception as error:
            # One unusable network must not prevent the daemon's start; a container's start on it will fail.
            log.error("network=%s cannot be set up: %s", network.name, error)
    changed = mend(room, kept)
    _sweep_namespaces(room, {record.path for record in kept})
    _sweep_links(room, {item.veth for record in kept for item in record.endpoints if item.veth})
    return changed


def _claimed(room: Room, network: Network) -> bool:
    """Whether the bridge is this engine's. Rules for another engine's would block its containers."""
    try:
        ownership.claim_bridge(room, network)
    except WharfError:
        return False  # the following code logs it: its device is not created
    return True


def mend(room: Room, records: Sequence[SandboxRecord]) -> list[SandboxRecord]:
    """In a thread: restores missing links of running containers from their records. Returns the changed records."""
    present = bridge_repair.host_links(room)
    changed = []
    for record in records:
        try:
            if repair.repair(room, record, present):
                changed.append(record)
        except (WharfError, OSError) as error:
            log.error("container=%s has lost a link that cannot be restored: %s", record.container, error)
    return changed


def _sweep_namespaces(room: Room, keep: set[str]) -> None:
    directory = f"{room.config.exec_root}/netns"
    for name in os.listdir(directory):
        path = f"{directory}/{name}"
        if path not in keep:
            with contextlib.suppress(OSError):
                netns.delete(path)


def _sweep_links(room: Room, keep: set[str]) -> None:
    ours = {network.bridge or network.parent for network in room}
    for link in room.host.links():
        if link.alias != mark(room.config.network_name) or link.name in keep or link.name in ours:
            continue
        log.info("removing link %s of an earlier run", link.name)
        try:
            bridge.remove(room.host, link.name, link.alias)
        except OSError as error:
            log.warning("cannot remove link %s: %s", link.name, error)
