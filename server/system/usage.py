"""Sums of the disk usage (``GET /system/df``, API 1.52), from the rows of each kind of object.

``TotalCount`` and ``TotalSize`` are of all objects, ``ActiveCount`` is of those in use, ``Reclaimable`` is the size
that a prune of the others would release. As in dockerd, a sum of 0 is omitted.
"""

from collections.abc import Mapping, Sequence
from typing import Any

Rows = Sequence[Mapping[str, Any]]
Sums = dict[str, Any]

_ACTIVE = frozenset(("running", "paused", "restarting"))


def _sums(rows: Rows, *, active: int, size: int, reclaimable: int) -> Sums:
    found = {"ActiveCount": active, "Reclaimable": reclaimable, "TotalCount": len(rows), "TotalSize": size}
    return {name: value for name, value in found.items() if value}


def of_images(rows: Rows, layers_size: int) -> Sums:
    """``layers_size``: the size of all content, of which several images may share parts."""
    unused = [row for row in rows if row["Containers"] == 0 and -1 not in (row["Size"], row["SharedSize"])]
    return _sums(
        rows,
        active=sum(row["Containers"] > 0 for row in rows),
        size=layers_size,
        reclaimable=sum(row["Size"] - row["SharedSize"] for row in unused),
    )


def of_containers(rows: Rows) -> Sums:
    active = [row for row in rows if row["State"] in _ACTIVE]
    total = sum(row.get("SizeRw", 0) for row in rows)
    return _sums(rows, active=len(active), size=total, reclaimable=total - sum(row.get("SizeRw", 0) for row in active))


def of_volumes(rows: Rows) -> Sums:
    """A volume of unknown size (-1) counts as one in use."""
    known = [row["UsageData"] for row in rows if row["UsageData"]["Size"] != -1]
    unused = [usage for usage in known if usage["RefCount"] == 0]
    return _sums(
        rows,
        active=len(rows) - len(unused),
        size=sum(usage["Size"] for usage in known),
        reclaimable=sum(usage["Size"] for usage in unused),
    )


def of_build_cache(rows: Rows) -> Sums:
    """A record that an image shares is not released by a prune."""
    return _sums(
        rows,
        active=sum(row["InUse"] for row in rows),
        size=sum(row["Size"] for row in rows),
        reclaimable=sum(row["Size"] for row in rows if not row["InUse"] and not row["Shared"]),
    )
