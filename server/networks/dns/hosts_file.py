"""The network's files of a container: ``/etc/hosts``, ``/etc/hostname``, ``/etc/resolv.conf``.

They are in the container's directory and are mounted separately, so they are changed in place.
"""

import contextlib
import hashlib
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.common.system import private
from server.containers.plan import ContainerPlan
from server.networks import endpoints, links
from server.networks.context import NetworkContext
from server.networks.dns import files
from server.networks.model import Endpoint, SandboxRecord

#: The paths inside the container.
_FILES = ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf")


@dataclass(frozen=True, slots=True)
class Plan:
    """The input of :func:`write_all`."""

    paths: Mapping[str, str]
    hosts: tuple[tuple[str, str], ...]
    hostname: str
    resolv_conf: files.Overrides
    mode: str
    embedded: bool
    ipv6: bool
    # The container has disabled IPv6: its hosts file has no IPv6 addresses.
    without_ipv6: bool


def paths(container: ContainerPlan) -> dict[str, str]:
    """Path inside → path on the host."""
    return dict(zip(_FILES, (container.hosts_path, container.hostname_path, container.resolv_conf_path), strict=True))


def build_plan(context: NetworkContext, container: ContainerPlan, record: SandboxRecord) -> Plan:
    """Reads the records (in the loop); :func:`write_all` writes the files in a thread."""
    record.hosts = [*_extra_hosts(context, container), *_links(context, container, record)]
    shown = [endpoint for endpoint in record.endpoints if not context.networks[endpoint.network].ingress]
    own = [line for endpoint in shown for line in own_lines(container, endpoint)]
    return Plan(
        paths(container),
        (*record.hosts, *own),
        container.config.hostname,
        overrides(context, container),
        record.mode,
        embedded=uses_embedded(context, record),
        ipv6=any(endpoint.address6 for endpoint in record.endpoints),
        without_ipv6=endpoints.without_ipv6(container),
    )


def uses_embedded(context: NetworkContext, record: SandboxRecord) -> bool:
    """Whether the container uses the embedded name server: it is on a user network."""
    return record.mode == "own" and any(
        context.networks[endpoint.network].user_defined for endpoint in record.endpoints
    )


def own_lines(container: ContainerPlan, endpoint: Endpoint) -> list[tuple[str, str]]:
    """The container's own lines of ``/etc/hosts`` for one network; none for the engine's own endpoint."""
    if endpoint.implicit:
        return []
    name = container.config.hostname
    if container.config.domainname:
        name = f"{name}.{container.config.domainname} {name}"
    elif "." in name:
        name = f"{name} {name.partition('.')[0]}"
    return [(address, name) for address in (endpoint.ip4, endpoint.ip6) if address]


def _extra_hosts(context: NetworkContext, container: ContainerPlan) -> list[tuple[str, str]]:
    found = []
    for text in container.host_config.extra_hosts or ():
        cut = min((index for index in (text.find(":"), text.find("=")) if index > 0), default=-1)
        name, address = text[:cut], text[cut + 1 :].strip("[]")
        if address == "host-gateway":
            found += [(gateway, name) for gateway in host_gateways(context, container.owner)]
        else:
            found.append((address, name))
    return found


def host_gateways(context: NetworkContext, owner: str = "") -> list[str]:
    """The addresses of ``host-gateway``: the daemon's setting, or the host's on the owner's default bridge."""
    if context.config.host_gateway_ips:
        return list(context.config.host_gateway_ips)
    network = context.of(owner).by_name("bridge")
    if network is None:
        return []
    return [gateway for gateway in (network.gateway(4), network.gateway(6)) if gateway]


def _links(context: NetworkContext, container: ContainerPlan, record: SandboxRecord) -> list[tuple[str, str]]:
    found = []
    for other, alias in links.legacy(context, container):
        server = context.sandboxes.get(other.id)
        for endpoint in record.endpoints if server else ():
            there = server.endpoint(endpoint.network) if server else None
            if there is not None:
                words = dict.fromkeys((alias, other.config.hostname, other.name))
                found += [(address, " ".join(words)) for address in (there.ip4, there.ip6) if address]
    return found


def overrides(context: NetworkContext, container: ContainerPlan) -> files.Overrides:
    """The DNS settings of the container, else of the daemon."""
    host, config = container.host_config, context.config

    def chosen(own: Sequence[str] | None, daemon: Sequence[str]) -> tuple[str, ...] | None:
        return tuple(own or daemon) or None

    return files.Overrides(
        chosen(host.dns, config.dns),
        chosen(host.dns_search, config.dns_search),
        chosen(host.dns_options, config.dns_opts),
    )


def write_all(plan: Plan) -> dict[str, str]:
    """In a thread: writes the three files; returns path inside → path on the host."""
    host_network = plan.mode == "host"
    private.make_directory(os.path.dirname(plan.paths["/etc/hosts"]), 0o710)
    files.write(plan.paths["/etc/hostname"], (plan.hostname or socket.gethostname()) + "\n")
    if host_network:
        text = _read("/etc/hosts")
        if text and not text.endswith("\n"):
            text += "\n"
        text += "".join(f"{address}\t{names}\n" for address, names in plan.hosts)
    else:
        text = files.hosts(plan.hosts, ipv6=not plan.without_ipv6)
    files.write(plan.paths["/etc/hosts"], text)
    host = files.host_resolv_conf()
    if plan.embedded:
        text, _ = files.embedded(host, plan.resolv_conf)
    else:
        text = files.from_host(host, plan.resolv_conf, host_network=host_network, ipv6=plan.ipv6)
    _write_unless_edited(plan.paths["/etc/resolv.conf"], text)
    return dict(plan.paths)


def upstreams(chosen: files.Overrides) -> list[tuple[str, bool]]:
    """In a thread: the name servers behind the embedded one; the flag: queried from the host's namespace."""
    return files.embedded(files.host_resolv_conf(), chosen)[1]


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def _write_unless_edited(path: str, text: str) -> None:
    """Keeps a resolv.conf that a process in the container has edited, also over a restart."""
    mark = f"{path}.hash"
    present, known = _read(path), _read(mark)
    if present and known and known != _digest(present):
        return
    files.write(path, text)
    files.write(mark, _digest(text))


def _digest(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode(), usedforsecurity=False).hexdigest()


def change_hosts(path: str, remove: Sequence[tuple[str, str]], add: Sequence[tuple[str, str]]) -> None:
    """In a thread: removes single lines of ``/etc/hosts`` and adds others; keeps the rest."""
    gone = {f"{address}\t{names}" for address, names in remove}
    with contextlib.suppress(FileNotFoundError):
        lines = [line for line in _read(path).splitlines() if line not in gone]
        lines += [f"{address}\t{names}" for address, names in add]
        files.write(path, "".join(f"{line}\n" for line in lines))


def rewrite_resolv_conf(path: str, chosen: files.Overrides, *, embedded: bool, ipv6: bool) -> None:
    """In a thread: after the container joined its first user network, or left the last one."""
    host = files.host_resolv_conf()
    text = files.embedded(host, chosen)[0] if embedded else files.from_host(host, chosen, ipv6=ipv6)
    _write_unless_edited(path, text)


async def update_linkers(context: NetworkContext, container: ContainerPlan) -> None:
    """Updates the hosts files of running containers that link to this one on the default bridge."""
    record = context.sandboxes.get(container.id)
    bridge = context.of(container.owner).by_name("bridge")
    if record is None or bridge is None or context.containers is None or record.endpoint(bridge.id) is None:
        return
    for other in list(context.sandboxes.values()):
        client = context.containers.by_id(other.container)
        if client is None or client is container or not client.host_config.links:
            continue
        linked = links.legacy(context, client)
        if not any(target is container for target, _ in linked):
            continue
        await update_links(context, client, other)


async def update_links(context: NetworkContext, client: ContainerPlan, record: SandboxRecord) -> None:
    """Updates the hosts file of a running container after its links, or the servers' addresses, have changed."""
    before = record.hosts
    after = [*_extra_hosts(context, client), *_links(context, client, record)]
    if after == before:
        return
    record.hosts = after
    stale = [line for line in before if line not in after]
    fresh = [line for line in after if line not in before]
    await context.run_in_thread(change_hosts, client.hosts_path, stale, fresh)
    await context.store.put_sandbox(record)
