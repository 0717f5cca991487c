"""Volumes in the API's form: list with filters, inspect, prune, disk usage."""

import logging
import time
from typing import Any

from api_models.filters import Filters
from engine.common.errors import WharfError, conflict, invalid
from engine.common.threads import run_in_thread
from server.access.owners import OWNER_LABEL
from server.volumes.base import ANONYMOUS_LABEL, Volume
from server.volumes.service import Volumes
from server.volumes.sizes import directory_size

log = logging.getLogger(__name__)

LIST_FILTERS = ("dangling", "name", "driver", "label")
PRUNE_FILTERS = ("label", "label!", "all")


def show(volumes: Volumes, volume: Volume) -> dict[str, Any]:
    """One volume in the API's form. ``volumes``: the caller's, who sees its own names."""
    return _shown(volume, volume.own_name, with_owner=volumes.caller.administrator)


def _shown(volume: Volume, name: str, *, with_owner: bool) -> dict[str, Any]:
    labels = volume.labels
    if with_owner and volume.owner:
        labels = {**labels, OWNER_LABEL: volume.owner} if labels else {OWNER_LABEL: volume.owner}
    shown: dict[str, Any] = {
        "CreatedAt": _timestamp(volume.created_ns),
        "Driver": volume.driver,
        "Labels": labels,
        "Mountpoint": volume.mountpoint,
        "Name": name,
        "Options": volume.options,
        "Scope": volume.scope,
    }
    if volume.status:
        shown["Status"] = volume.status
    return shown


def _timestamp(created_ns: int) -> str:
    """RFC 3339; Go's zero time if it is unknown."""
    if not created_ns:
        return "0001-01-01T00:00:00Z"
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(created_ns // 10**9))


def _check(filters: Filters) -> bool | None:
    """The value of ``dangling``; None: it is not given."""
    filters.validate(LIST_FILTERS)
    return filters.flag("dangling", default=False) if "dangling" in filters else None


async def listing(volumes: Volumes, filters: Filters) -> dict[str, Any]:
    """The response of ``GET /volumes``: the matching volumes, by name.

    :raises WharfError: INVALID_ARGUMENT for an unknown filter or value.
    """
    dangling = _check(filters)
    found, warnings = await volumes.find(filters.get("driver"))
    named = [(volume.own_name, volume) for volume in found]
    # One text is compared faster than a pair of texts.
    named.sort(key=lambda item: f"{item[0]}\0{item[1].owner}")
    await filters.search_ahead("name", [name for name, _ in named])
    with_owner = volumes.caller.administrator
    passing = [
        _shown(volume, name, with_owner=with_owner)
        for name, volume in named
        if filters.exact("driver", volume.driver)
        and filters.match("name", name)
        and filters.labels("label", volume.labels)
        and (dangling is None or dangling == (volumes.references(volume.name) == 0))
    ]
    return {"Volumes": passing, "Warnings": warnings or None}


async def prune(volumes: Volumes, filters: Filters) -> dict[str, Any]:
    """Removes unreferenced volumes: anonymous ones, or with ``all`` named ones too.

    Volumes with driver options stay, as in dockerd: their content is not on this disk.

    :raises WharfError: CONFLICT while another prune runs; INVALID_ARGUMENT.
    """
    owner = volumes.caller.owner
    if owner in volumes.pruning:
        raise conflict("a prune operation is already running")
    filters.validate(PRUNE_FILTERS)
    everything = _all(filters.get("all"))
    volumes.pruning.add(owner)
    try:
        deleted: list[str] = []
        reclaimed = 0
        for volume in sorted(volumes.all(), key=lambda volume: volume.created_ns):
            if volume.driver != "local" or volume.options or volumes.references(volume.name):
                continue
            if not filters.labelled(volume.labels):
                continue
            if not everything and ANONYMOUS_LABEL not in (volume.labels or {}):
                continue
            size = await run_in_thread(directory_size, volume.mountpoint)
            try:
                # An administrator prunes volumes of several owners, which may have the same name.
                await volumes.remove(volume.name if volumes.caller.administrator else volume.own_name)
            except WharfError as error:
                log.warning("volume %s is not pruned: %s", volume.name, error)
                continue
            deleted.append(volume.own_name)
            reclaimed += size
    finally:
        volumes.pruning.discard(owner)
    volumes.publish("prune", "", {"reclaimed": str(reclaimed)})
    return {"VolumesDeleted": deleted, "SpaceReclaimed": reclaimed}


def _all(values: tuple[str, ...]) -> bool:
    if not values:
        return False
    if len(values) > 1:
        raise invalid(f"invalid filter 'all=[{' '.join(values)}]': only one value is expected")
    if values[0].lower() not in ("1", "t", "true", "0", "f", "false"):
        raise invalid(f"invalid filter 'all': strconv.ParseBool: parsing \"{values[0]}\": invalid syntax")
    return values[0].lower() in ("1", "t", "true")


async def usage(volumes: Volumes) -> list[dict[str, Any]]:
    """The local volumes with their sizes, for ``docker system df``. Concurrent requests share a measurement."""
    found = [volume for volume in volumes.all() if volume.driver == "local" and not volume.options]
    sizes = await volumes.sizes.get({volume.mountpoint for volume in found})
    return [
        {
            **show(volumes, volume),
            "UsageData": {"RefCount": volumes.references(volume.name), "Size": sizes[volume.mountpoint] or 0},
        }
        for volume in found
    ]
