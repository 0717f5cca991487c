"""The files of an engine: whether blobs match their digests, and differences from an earlier state."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from compat_tests.support.engines import Engine, Wharf
from compat_tests.support.polling import until
from compat_tests.support.transfers import content


def roots(engine: Engine) -> list[Path]:
    found = [engine.resources.root / "data"]
    if isinstance(engine, Wharf) and engine.containerd is not None:
        found.append(engine.containerd.resources.root / "containerd-root")
    return found


def entries(root: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Yield everything below a directory, tolerating concurrent removal."""
    for folder, folders, names in os.walk(root):
        for name in (*folders, *names):
            path = os.path.join(folder, name)
            with contextlib.suppress(FileNotFoundError):
                yield path, os.lstat(path)


def files(engine: Engine) -> dict[str, int]:
    """Return every file of the data root with its size, except databases, whose size varies."""
    return {
        path: found.st_size
        for root in roots(engine)
        for path, found in entries(root)
        if not stat.S_ISDIR(found.st_mode) and ".db" not in os.path.basename(path)
    }


def differ(engine: Engine, before: dict[str, int]) -> dict[str, int]:
    now = files(engine)
    return {path: now.get(path, -1) for path in now.keys() | before.keys() if now.get(path) != before.get(path)}


def collect(engine: Engine) -> None:
    """Make containerd's collector run again: its scheduler drops a deletion event that arrives while a collection ends
    (``lastCollection.After``), and deleted content then stays until the next deletion."""
    if isinstance(engine, Wharf) and engine.containerd is not None:
        engine.containerd.ctr("leases", "create", "--id", "collect")
        engine.containerd.ctr("leases", "delete", "--sync", "collect")


def back_to(engine: Engine, before: dict[str, int]) -> None:
    """Wait until the files are as before; fail with the difference."""
    if not until(lambda: not differ(engine, before), seconds=10):
        collect(engine)
        until(lambda: not differ(engine, before), seconds=50)
    assert not (found := differ(engine, before)), found


def blobs_are_whole(engine: Engine) -> None:
    """Check every blob against its digest."""
    for path in content(engine).glob("blobs/sha256/*"):
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            continue  # collected meanwhile
        assert hashlib.sha256(data).hexdigest() == path.name


def as_it_is(engine: Engine) -> dict[str, int]:
    """Return the files after a first container has been run and removed, which creates one-time files."""
    engine.docker("run", "--rm", "--network", "none", "busybox", "true")

    def gone() -> bool:
        return not any("/data/containers/" in path for path in files(engine))

    assert until(gone, seconds=60)
    return files(engine)
