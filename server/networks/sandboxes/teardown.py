"""The end of a container's network, in the background: the kernel removes links slowly.

The container's addresses and ports stay allocated until everything is removed.
"""

import logging

from server.containers.plan import ContainerPlan
from server.networks.context import NetworkContext
from server.networks.dns import names
from server.networks.model import Endpoint, SandboxRecord
from server.networks.netlink import conntrack, netns
from server.networks.sandboxes import attachments

log = logging.getLogger(__name__)


async def stop(context: NetworkContext, container: ContainerPlan) -> None:
    """Takes the container off its networks. Returns at once; its next start waits for the teardown.

    While the daemon stops, the sandbox's record stays: the next daemon finds that its container has exited.
    """
    if context.closed:
        return
    record = context.sandboxes.pop(container.id, None)
    if record is None:
        return
    context.last[container.id] = record
    for endpoint in record.endpoints:
        publish_event(context, endpoint, "disconnect")
    begin(context, record)


def begin(context: NetworkContext, record: SandboxRecord, *, at_start: bool = False) -> None:
    """Starts the teardown of a record that no running container has. The next start of its container waits for it.

    ``at_start``: the daemon starts, and plugins may start at the same time.
    """
    key = record.container
    work = _take_down_at_start(context, record) if at_start else _take_down(context, record)
    task = context.spawn(work, f"network teardown {key[:12]}")
    context.ending[key] = task
    task.add_done_callback(lambda _: context.ending.pop(key, None))


async def _take_down_at_start(context: NetworkContext, record: SandboxRecord) -> None:
    known = (context.networks.get(endpoint.network) for endpoint in (*record.endpoints, *record.pending))
    await context.remote.wait_for([network for network in known if network is not None])
    await _take_down(context, record)


async def _take_down(context: NetworkContext, record: SandboxRecord) -> None:
    try:
        await take_down(context, record)
    except Exception:
        log.exception("container=%s network teardown failed", record.container)
        for endpoint in record.endpoints:
            # It keeps its addresses, as its link may still exist, but doesn't prevent the removal of a network.
            network = context.networks.get(endpoint.network)
            if network is not None and network.endpoints.get(endpoint.container) is endpoint:
                del network.endpoints[endpoint.container]


async def take_down(context: NetworkContext, record: SandboxRecord) -> None:
    """Removes everything of a sandbox; missing parts are fine. Releases addresses and ports last."""
    await names.unregister(context, record)
    for endpoint in record.endpoints:
        if endpoint.listens:
            await context.forwarder.release(endpoint.id)
    known = [*record.endpoints, *record.pending]
    if any(endpoint.remote is not None for endpoint in known):
        await context.remote.leave(record, known)
    await context.run_in_background(remove_all, context, record)
    for endpoint in known:
        context.ports.release(endpoint.id)
        network = context.networks.get(endpoint.network)
        if network is not None:
            await attachments.release(context, network, endpoint, record)
    await context.store.delete_sandbox(record.container)


def remove_all(context: NetworkContext, record: SandboxRecord) -> None:
    """In a thread: removes the namespace, the links and the rules; missing ones are fine."""
    if record.path:
        netns.delete(record.path)
    for endpoint in record.endpoints:
        context.firewall.remove(endpoint.id)
        flush_udp(endpoint)
        if endpoint.veth:
            try:
                context.pool.delete_link(endpoint.veth)
            except OSError as error:
                log.warning("container=%s link %s: %s", record.container, endpoint.veth, error)


def flush_udp(endpoint: Endpoint) -> None:
    """Deletes the flows of published UDP ports: their clients would still send to the old address."""
    if any(item.protocol == "udp" for item in endpoint.publications):
        try:
            conntrack.flush_udp({ip for ip in (endpoint.ip4, endpoint.ip6) if ip})
        except OSError as error:
            log.warning("endpoint=%s flows of UDP ports stay: %s", endpoint.id, error)


def publish_event(context: NetworkContext, endpoint: Endpoint, action: str) -> None:
    """A build step is not a container of a user: publishes no events for it, nor for an implicit endpoint."""
    if endpoint.implicit:
        return
    network = context.networks.get(endpoint.network)
    known = context.containers is None or context.containers.by_id(endpoint.container) is not None
    if network is not None and known:
        context.bus.publish(
            "network",
            action,
            network.id,
            {"container": endpoint.container, "name": network.name, "type": network.driver},
            owner=network.owner,
        )
