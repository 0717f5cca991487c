"""``docker container prune``: removes what doesn't run."""

import datetime
import logging
import re
import time
from typing import Any

from api_models.filters import Filters
from engine.common.errors import WharfError, conflict, invalid
from server.containers.context import Room
from server.containers.inspect import sizes
from server.containers.remove import remove

log = logging.getLogger(__name__)

ACCEPTED = ("label", "label!", "until")


async def prune(room: Room, filters: Filters) -> dict[str, Any]:
    """Removes stopped containers that pass the filters; one that can't be removed is logged and stays.

    :raises WharfError: CONFLICT while another prune runs; INVALID_ARGUMENT for a bad filter.
    """
    if room.pruning:
        raise conflict("a prune operation is already running")
    filters.validate(ACCEPTED)
    until = until_ns(filters)
    room.pruning = True
    deleted: list[str] = []
    reclaimed = 0
    try:
        chosen = [
            container
            for container in room.registry
            if not (container.state.running or (until and container.created_ns > until))
            and filters.labelled(container.labels)
        ]
        taken = await sizes.of_all(room, chosen)
        for container in chosen:
            # It may have been started meanwhile.
            if container.state.running:
                continue
            try:
                await remove(room, container)
            except WharfError as error:
                log.warning("container=%s is not pruned: %s", container.id, error)
                continue
            deleted.append(container.id)
            reclaimed += taken[container.id][0]
    finally:
        room.pruning = False
    room.bus.publish("container", "prune", "", {"reclaimed": str(reclaimed)})
    return {"ContainersDeleted": deleted or None, "SpaceReclaimed": reclaimed}


_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(h|m|s|ms|us|µs|ns)")
_UNITS = {"h": 3600 * 10**9, "m": 60 * 10**9, "s": 10**9, "ms": 10**6, "us": 1000, "µs": 1000, "ns": 1}


def until_ns(filters: Filters, *, several: bool = False) -> int:
    """The ``until`` filter as nanoseconds since the epoch; 0 if it isn't there. Of ``several``, the earliest counts.

    A duration counts back from now; else seconds since the epoch, or a date and time.

    :raises WharfError: INVALID_ARGUMENT.
    """
    values = filters.get("until")
    if not values:
        return 0
    if len(values) > 1 and not several:
        raise invalid("more than one until filter specified")
    return min(_moment(text) for text in values)


def _moment(text: str) -> int:
    parts = _DURATION.findall(text)
    if parts and "".join(number + unit for number, unit in parts) == text:
        back = sum(int(float(number) * _UNITS[unit]) for number, unit in parts)
        return time.time_ns() - back
    if re.fullmatch(r"[0-9]+(\.[0-9]{1,9})?", text):
        whole, _, fraction = text.partition(".")
        return int(whole) * 10**9 + int(fraction.ljust(9, "0") or "0")
    return _date(text)


def _date(text: str) -> int:
    try:
        moment = datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise invalid(f'failed to parse value as time or duration: "{text}"') from None
    if moment.tzinfo is None:
        moment = moment.astimezone()
    return int(moment.timestamp()) * 10**9 + moment.microsecond * 1000
