"""The files of an engine: its blobs, and differences from an earlier state."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from compat_tests.support.engines import Engine, Wharf
from compat_tests.support.polling import until


def data_roots(engine: Engine) -> list[Path]:
    """Return the directories of the engine's persistent data."""
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
        for root in data_roots(engine)
        for path, found in entries(root)
        if not stat.S_ISDIR(found.st_mode) and ".db" not in os.path.basename(path)
    }


def changed_files(engine: Engine, before: dict[str, int]) -> dict[str, int]:
    """Return the files that differ from before with their sizes now, -1 for a missing one."""
    now = files(engine)
    return {path: now.get(path, -1) for path in now.keys() | before.keys() if now.get(path) != before.get(path)}


def collect_garbage(engine: Engine) -> None:
    """Make containerd's collector run again: its scheduler drops a deletion event that arrives while a collection ends
    (``lastCollection.After``), and deleted content then stays until the next deletion."""
    if isinstance(engine, Wharf) and engine.containerd is not None:
        engine.ctr("leases", "create", "--id", "collect")
        engine.ctr("leases", "delete", "--sync", "collect")


def wait_for_files(engine: Engine, before: dict[str, int]) -> None:
    """Wait until the files are as before; fail with the difference."""
    if not until(lambda: not changed_files(engine, before), seconds=10):
        collect_garbage(engine)
        until(lambda: not changed_files(engine, before), seconds=50)
    assert not (changed := changed_files(engine, before)), changed


def check_blob_digests(engine: Engine) -> None:
    """Check every blob against its digest."""
    for path in content_store(engine).glob("blobs/sha256/*"):
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            continue  # collected meanwhile
        assert hashlib.sha256(data).hexdigest() == path.name


def baseline_files(engine: Engine) -> dict[str, int]:
    """Return the files after a first container has been run and removed, which creates one-time files."""
    engine.docker("run", "--rm", "--network", "none", "busybox", "true")

    assert until(lambda: not any("/data/containers/" in path for path in files(engine)), seconds=60)
    return files(engine)


def content_store(engine: Engine) -> Path:
    """Return the content store's directory."""
    root = engine.resources.root / "data"
    if isinstance(engine, Wharf) and engine.containerd is not None:
        root = engine.containerd.resources.root
    return next(root.rglob("io.containerd.content.v1.content"))


def blobs_in(engine: Engine) -> set[str]:
    """Return the hashes of all blobs."""
    return {path.name for path in content_store(engine).glob("blobs/sha256/*")}


def ingest_size(engine: Engine) -> int:
    """Return the bytes of partial writes, except of one that was just committed."""
    size = 0
    for folder in os.listdir(content_store(engine) / "ingest"):
        with contextlib.suppress(FileNotFoundError):
            size += os.stat(content_store(engine) / "ingest" / folder / "data").st_size
    return size
