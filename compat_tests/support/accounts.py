"""Attributes the bytes of a data root: to objects, exactly as in `docker system df`, or to the engine itself."""

from __future__ import annotations

import re
import stat
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from compat_tests.support.disk import data_roots, entries
from compat_tests.support.engines import Engine

#: Data of objects, by the path below the root; whether its size counts blocks (as containerd does for snapshots and
#: BuildKit for its cache) or bytes (blobs, logs, volumes).
OBJECT_FILES = {
    "blobs": (r"io\.containerd\.content\.v1\.content/(blobs/[^/]+/|ingest/[^/]+/data$|recipes/)", False),
    "snapshots": (r"io\.containerd\.snapshotter\.v1\.overlayfs/snapshots/\d+/fs(/|$)", True),
    "containers": (r"^containers/[^/]+/", False),
    "volumes": (r"^volumes/(@[^/]+/)?[^/]+/_data/", False),
    "build cache": (r"^build/(@[^/]+/)?(mounts|mirrors)/[^/]+/", True),
}
#: Data of the engine itself, and why no answer includes it.
ENGINE_FILES = {
    "the size of databases depends on SQLite and bbolt": r"\.db(-wal|-shm)?$",
    "the lock of each daemon that uses the root": r"(^|/)(wharfd\.lock|lock|uuid)$",
    "space reserved for the databases of a full disk": r"^(.*metadata/)?reserve$",
    "the start time and name of a write of stock containerd": r"/ingest/[^/]+/(ref|startedat|updatedat|total)$",
}


@dataclass(slots=True)
class Account:
    """Bytes by owner, and files without an owner."""

    owned: Counter[str] = field(default_factory=Counter)
    unowned: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        return sum(self.owned.values())


def on_disk(engine: Engine) -> Account:
    """Attribute every file of the data root."""
    account = Account()
    seen: set[tuple[int, int]] = set()
    for root in data_roots(engine):
        for path, found in entries(root):
            below, folder = path.removeprefix(f"{root}/"), stat.S_ISDIR(found.st_mode)
            owner = next((name for name, (pattern, _) in OBJECT_FILES.items() if re.search(pattern, below)), "")
            blocks = bool(owner) and OBJECT_FILES[owner][1]
            if owner and not (folder and not blocks) and (found.st_dev, found.st_ino) not in seen:
                seen.add((found.st_dev, found.st_ino))  # a file may have several names
                account.owned[owner] += found.st_blocks * 512 if blocks else found.st_size
            elif not owner and not folder and not any(re.search(each, below) for each in ENGINE_FILES.values()):
                account.unowned.append(path)
    return account


def reported_sizes(engine: Engine) -> dict[str, int]:
    """Return the sizes of `GET /system/df`, without those counted twice: the build cache also lists layers of
    images."""
    document: dict[str, Any] = engine.api.get("/system/df").json()
    return {
        "images": document["LayersSize"],
        "containers": sum(row.get("SizeRw", 0) for row in document["Containers"] or []),
        "volumes": sum(row["UsageData"]["Size"] for row in document["Volumes"] or []),
        "build cache": sum(row["Size"] for row in document["BuildCache"] or [] if not row["Shared"]),
    }
