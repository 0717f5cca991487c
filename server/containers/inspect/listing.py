"""``docker ps``: the rows, which are cached until a container changes, and the filters."""

import asyncio
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from api_models.container import PortBinding
from api_models.filters import Filters
from api_models.network import EndpointSettings
from api_models.times import human
from engine.common import limits
from engine.common.errors import Kind, WharfError, internal, invalid, not_found
from server.access.owners import OWNER_LABEL
from server.containers.context import ContainerContext
from server.containers.model import Container
from server.containers.mounts import mounts
from server.containers.neighbours import Images
from server.containers.registry import View

ACCEPTED = (
    *("ancestor", "before", "exited", "id", "isolation", "label", "name", "status", "health", "since"),
    *("volume", "network", "is-task", "publish", "expose"),
)
_STATES = ("paused", "restarting", "removing", "running", "dead", "created", "exited")
#: After this many rows, other requests get their turn.
_TURN = 64
_HEALTH = ("starting", "healthy", "unhealthy", "none")


async def listing(
    context: ContainerContext,
    containers: View,
    filters: Filters,
    *,
    everything: bool = False,
    limit: int = 0,
    size: bool = False,
) -> list[dict[str, Any]]:
    """The rows of ``GET /containers/json`` for those of ``containers`` that match, at the newest API version, the
    newest container first; the caller may change them. ``everything``: also stopped containers. ``limit``: the number
    of rows, 0: all.

    :raises WharfError: INVALID_ARGUMENT: a bad filter; NOT_FOUND: the container of ``before`` or ``since``.
    """
    # Owners are shown to administrators, on an engine with a policy.
    owners = containers.caller.administrator and context.shares is not None
    filters.validate((*ACCEPTED, "owner") if owners else ACCEPTED)
    selected = await _select(context, containers, filters, everything=everything, limit=limit)
    answer = []
    layer_sizes = await context.sizes.get_all(selected) if size else {}
    link_names = context.networks.link_names(containers)  # not cached in the rows: they change with other containers
    images = await _image_names(context, selected)
    for number, container in enumerate(selected):
        if number % _TURN == _TURN - 1:
            await asyncio.sleep(0)
        row = _copy(row_of(context, container))
        row["Names"] = [*row["Names"], *link_names.get(container.id, ())]
        row["State"], row["Status"] = container.state.status, status(container) + _queued(context, container)
        row["Health"] = _health(container)
        row["Image"] = images[container.id]
        if owners and container.owner:
            row["Labels"] = {**row["Labels"], OWNER_LABEL: container.owner}
        if size:
            rw, total = layer_sizes[container.id]
            if rw:
                row["SizeRw"] = rw
            if total:
                row["SizeRootFs"] = total
        answer.append(row)
    return answer


def _copy(row: dict[str, Any]) -> dict[str, Any]:
    """A copy of the row and of the objects in it that the API version of a client changes."""
    networks = {name: dict(endpoint) for name, endpoint in row["NetworkSettings"]["Networks"].items()}
    return {**row, "HostConfig": dict(row["HostConfig"]), "NetworkSettings": {"Networks": networks}}


def row_of(context: ContainerContext, container: Container) -> dict[str, Any]:
    """The cached part of the row: the fields that change only with the container's record or network."""
    if container.row is not None:
        return container.row
    config, host = container.config, container.host_config
    settings = context.networks.settings(container)
    summary: dict[str, Any] = {"NetworkMode": host.network_mode}
    if host.annotations:
        summary["Annotations"] = dict(host.annotations)
    row: dict[str, Any] = {
        "Id": container.id,
        "Names": ["/" + container.name],
        "Image": config.image,
        "ImageID": container.image_id,
        "Command": _command(container),
        "Created": container.created_ns // 10**9,
        "Ports": _ports(settings.ports or {}),
        "Labels": dict(container.labels),
        "State": "",
        "Status": "",
        "HostConfig": summary,
        "NetworkSettings": {
            "Networks": {name: _endpoint(endpoint) for name, endpoint in (settings.networks or {}).items()}
        },
        "Mounts": mounts.describe(container),
    }
    if container.image_manifest is not None:
        row["ImageManifestDescriptor"] = container.image_manifest
    container.row = row
    return row


def _command(container: Container) -> str:
    words = [f"'{word}'" if " " in word else word for word in container.args]
    return " ".join([container.path, *words])


def _endpoint(full: EndpointSettings) -> dict[str, Any]:
    """The endpoint as the list shows it. ``full``: the endpoint of inspect, which has more values."""
    ipam = full.ipam_config and replace(full.ipam_config, link_local_ips=None)
    return replace(full, ipam_config=ipam, links=None, aliases=None, driver_opts=None, dns_names=None).wire()


def _ports(bindings: Mapping[str, Sequence[PortBinding] | None]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for port, hosts in bindings.items():
        number, _, protocol = port.partition("/")
        for host in hosts or (None,):
            row: dict[str, Any] = {}
            if host is not None and host.host_ip:
                row["IP"] = host.host_ip
            row["PrivatePort"] = int(number)
            if host is not None and host.host_port:
                row["PublicPort"] = int(host.host_port)
            row["Type"] = protocol or "tcp"
            rows.append(row)
    return rows


def status(container: Container) -> str:
    """The ``STATUS`` column."""
    state, now = container.state, time.time_ns()
    if state.running:
        if state.paused:
            return f"Up {human(now - state.started_ns)} (Paused)"
        if state.restarting:
            return f"Restarting ({state.exit_code}) {human(now - state.finished_ns)} ago"
        suffix = ""
        if state.health is not None:
            health = state.health.status
            suffix = f" (health: {health})" if health == "starting" else f" ({health})"
        return f"Up {human(now - state.started_ns)}{suffix}"
    if state.removing:
        return "Removal In Progress"
    if state.dead:
        return "Dead"
    if state.started_ns == 0:
        return "Created"
    if state.finished_ns == 0:
        return ""
    return f"Exited ({state.exit_code}) {human(now - state.finished_ns)} ago"


def _queued(context: ContainerContext, container: Container) -> str:
    """The end of the status of a container that waits for GPUs."""
    place = context.gpus.place(container) if context.gpus is not None else None
    return f" (waiting for a GPU, place {place[0]} of {place[1]})" if place is not None else ""


def _health(container: Container) -> dict[str, Any]:
    health = container.state.health
    if health is None:
        return {"Status": "none", "FailingStreak": 0}
    return {"Status": health.status, "FailingStreak": health.failing_streak}


async def _image_names(context: ContainerContext, containers: Sequence[Container]) -> dict[str, str]:
    """By container id: the reference of the create request; the image's id if the reference names another image now."""
    ids: dict[tuple[str, str], str | None] = {}  # by owner and reference
    names: dict[str, str] = {}
    for container in containers:
        reference, image_id = container.config.image, container.image_id
        if reference and reference != image_id:
            key = container.owner, reference
            if key not in ids:
                ids[key] = await context.images.of(container.owner).find_id(reference)
            reference = reference if ids[key] == image_id else image_id
        names[container.id] = reference
    return names


@dataclass(slots=True)
class _ParsedFilters:
    """The filters with parsed values. ``ancestors``: ids of images, None: no such filter. ``publish``, ``expose``:
    ports such as ``80/tcp``."""

    filters: Filters
    exited: set[int]
    task: bool | None
    ancestors: set[str] | None
    publish: set[str]
    expose: set[str]


async def _select(
    context: ContainerContext, containers: View, filters: Filters, *, everything: bool, limit: int
) -> list[Container]:
    parsed, everything = await _parse(context.images.seen_by(containers.caller), filters, everything=everything)
    names = [container.name for container in containers]
    await filters.search_ahead("name", (form for name in names for form in (name, f"/{name}")))
    before = _container_of(containers, filters, "before")
    since = _container_of(containers, filters, "since")
    selected: list[Container] = []
    passed = before is None
    for container in sorted(containers, key=lambda each: each.created_ns, reverse=True):
        if not passed:
            passed = container is before
            continue
        if container is since or (limit > 0 and len(selected) == limit):
            break
        if not container.state.running and not everything and limit <= 0:
            continue
        if _matches(context, container, parsed):
            selected.append(container)
    return selected


def _container_of(containers: View, filters: Filters, key: str) -> Container | None:
    """The container that the filter ``key`` (``before`` or ``since``) names; None: no such filter."""
    found = None
    for value in filters.get(key):
        found = containers.by_id(value) or containers.by_name(value)
        if found is None:
            raise not_found(f"No such container: {value}")
    return found


async def _parse(images: Images, filters: Filters, *, everything: bool) -> tuple[_ParsedFilters, bool]:
    """The parsed filters, and whether stopped containers are listed: the filter ``status`` implies it."""
    exited: set[int] = set()
    for value in filters.get("exited"):
        if not re.fullmatch(r"[+-]?[0-9]{1,18}", value):
            raise invalid(f"invalid filter 'exited={value}': strconv.Atoi: parsing \"{value}\": invalid syntax")
        exited.add(int(value))
    for value in filters.get("status"):
        if value not in _STATES:
            raise invalid(f"invalid filter 'status={value}'")
        everything = True
    for value in filters.get("health"):
        if value not in _HEALTH:
            raise invalid(f"unrecognized filter value for health: {value}")
    task = filters.flag("is-task", default=False) if "is-task" in filters else None
    ancestors: set[str] | None = None
    if "ancestor" in filters:
        ancestors = set()
        for value in filters.get("ancestor"):
            ancestors |= await _ancestors(images, value)
    publish, expose = _port_set("publish", filters), _port_set("expose", filters)
    return _ParsedFilters(filters, exited, task, ancestors, publish, expose), everything


async def _ancestors(images: Images, reference: str) -> set[str]:
    """The ids of the image and of the images that were built on it; an empty set for an unknown image."""
    try:
        image = await images.resolve(reference)
    except WharfError as error:
        if error.kind in (Kind.NOT_FOUND, Kind.INVALID_ARGUMENT):
            return set()
        raise
    return {image.id, *(await images.children(image.id))}


def _port_set(key: str, filters: Filters) -> set[str]:
    found: set[str] = set()
    for value in filters.get(key):
        if ":" in value:
            raise internal(f"filter for '{key}' should not contain ':': {value}")
        ports, _, protocol = value.partition("/")
        first, dash, last = ports.partition("-")
        try:
            if not ports:
                raise ValueError("Empty string specified for ports.")
            low = _port(first)
            high = _port(last) if dash else low
            if high < low:
                raise ValueError(f"Invalid range specified for the Port: {ports}")
        except ValueError as error:
            raise internal(f"error while looking up for {key} {value}: {error}") from None
        if len(found) + high - low > limits.FILTER_PORTS:
            raise limits.exceeded("FILTER_PORTS", f"the filter '{key}'")
        found |= {f"{port}/{protocol or 'tcp'}" for port in range(low, high + 1)}
    return found


def _port(text: str) -> int:
    """:raises ValueError: not a port number, in the words of Go's strconv."""
    if not (text.isascii() and text.isdecimal()):
        raise ValueError(f'strconv.ParseUint: parsing "{text}": invalid syntax')
    if int(text) > 65535:
        raise ValueError(f'strconv.ParseUint: parsing "{text}": value out of range')
    return int(text)


def _matches(context: ContainerContext, container: Container, parsed: _ParsedFilters) -> bool:
    filters, state = parsed.filters, container.state
    if not (filters.match("name", "/" + container.name) or filters.match("name", container.name)):
        return False
    if "id" in filters and not any(container.id.startswith(value) for value in filters.get("id")):
        return False
    if parsed.task is not None and parsed.task != container.managed:
        return False
    if not filters.labels("label", container.labels):
        return False
    if "owner" in filters and not filters.exact("owner", container.owner):
        return False
    if not filters.match("isolation", container.host_config.isolation):
        return False
    if parsed.exited and (state.running or not state.started_ns or state.exit_code not in parsed.exited):
        return False
    if not filters.match("status", state.status):
        return False
    if not filters.exact("health", state.health.status if state.health is not None else "none"):
        return False
    if "volume" in filters and not _has_volume(container, filters.get("volume")):
        return False
    if parsed.ancestors is not None and container.image_id not in parsed.ancestors:
        return False
    if "network" in filters and not _on_network(context, container, filters.get("network")):
        return False
    return not (parsed.publish or parsed.expose) or _has_port(context, container, parsed)


def _has_volume(container: Container, values: Sequence[str]) -> bool:
    return any(
        value == point.destination or value == (point.own_name or point.source)
        for point in container.mounts.values()
        for value in values
    )


def _on_network(context: ContainerContext, container: Container, values: Sequence[str]) -> bool:
    networks = row_of(context, container)["NetworkSettings"]["Networks"]
    return any(
        value in networks or any(value and endpoint["NetworkID"].startswith(value) for endpoint in networks.values())
        for value in values
    )


def _has_port(context: ContainerContext, container: Container, parsed: _ParsedFilters) -> bool:
    for port in row_of(context, container)["Ports"]:
        if f"{port.get('PublicPort', 0)}/{port['Type']}" in parsed.publish:
            return True
        if f"{port['PrivatePort']}/{port['Type']}" in parsed.expose:
            return True
    return False
