"""What clients see of accounts."""

from collections.abc import Iterable
from typing import Protocol

from api_models.wharf import UsageRow
from engine.common import limits
from server.access.caller import Caller
from server.access.owners import user_of
from server.shares.store import Usage


class Accounts(Protocol):
    """``server.shares.accounting``."""

    async def usage(self, days: int, owner: str | None, most: int) -> list[Usage]: ...

    async def sums(self, days: int, owner: str | None) -> list[Usage]: ...


async def usage(accounting: Accounts, caller: Caller, days: int, *, containers: bool = False) -> list[UsageRow]:
    """What each user has used on each of the last ``days`` (UTC), today included; for a user the own rows, those of job
    sockets included. ``containers``: a row for each container instead.

    :raises WharfError: INVALID_ARGUMENT: more containers than ``USAGE_ROWS``.
    """
    owner = None if caller.administrator else caller.owner
    if containers:
        rows = await accounting.usage(days, owner, limits.USAGE_ROWS + 1)
        if len(rows) > limits.USAGE_ROWS:
            raise limits.exceeded("USAGE_ROWS", "the number of containers on these days")
    else:
        rows = await accounting.sums(days, owner)
    scope = caller.scope
    seen = [row for row in rows if scope is None or scope.covers(row.owner, {})]
    return list(map(_row, seen)) if containers else _by_user(seen)


def _by_user(rows: Iterable[Usage]) -> list[UsageRow]:
    """The users' own rows and those of their jobs, together."""
    found: dict[tuple[str, str], UsageRow] = {}
    for each in map(_row, rows):
        key = each.day, each.user
        before = found.get(key)
        found[key] = each if before is None else _sum(before, each)
    return list(found.values())


def _sum(one: UsageRow, other: UsageRow) -> UsageRow:
    return UsageRow(
        day=one.day,
        user=one.user,
        cpu_seconds=one.cpu_seconds + other.cpu_seconds,
        memory_gib_hours=one.memory_gib_hours + other.memory_gib_hours,
        gpu_hours=one.gpu_hours + other.gpu_hours,
        disk=one.disk + other.disk,
        bytes_in=one.bytes_in + other.bytes_in,
        bytes_out=one.bytes_out + other.bytes_out,
    )


def _row(row: Usage) -> UsageRow:
    return UsageRow(
        day=row.day,
        user=user_of(row.owner),
        cpu_seconds=round(row.cpu_seconds, 3),
        memory_gib_hours=round(row.memory_gib_hours, 6),
        gpu_hours=round(row.gpu_hours, 6),
        disk=row.disk_bytes,
        bytes_in=row.received_bytes,
        bytes_out=row.sent_bytes,
        container=row.container,
        container_name=row.name,
    )
