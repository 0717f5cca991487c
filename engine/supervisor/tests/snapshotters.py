"""The test suite that every snapshotter must pass. A test joins by inheriting ``SnapshotterSuite``."""

import os
import stat
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from engine.api.client import Engine
from engine.api.types import Mount, SnapshotKind
from engine.common.errors import Kind, WharfError
from engine.common.files.mount_thread import MountThread

T = TypeVar("T")


@asynccontextmanager
async def refused(kind: Kind) -> AsyncIterator[None]:
    with pytest.raises(WharfError) as caught:
        yield
    assert caught.value.kind is kind, caught.value


async def mounted(mounts: Sequence[Mount], work: Callable[[Path], T]) -> T:
    """Calls ``work`` with the path of the mounted snapshot, in a private mount namespace."""
    async with MountThread("test") as thread:
        target = await thread.mount(mounts)
        return await thread.run(work, Path(target))


def build(root: Path) -> None:
    """Creates one file of each kind that a layer may contain."""
    (root / "dir").mkdir(mode=0o751)
    (root / "dir/file").write_bytes(b"first")
    os.chown(root / "dir/file", 12, 34)
    os.chmod(root / "dir/file", 0o4755)
    os.link(root / "dir/file", root / "dir/hard")
    os.symlink("file", root / "dir/soft")
    os.setxattr(root / "dir/file", "trusted.wharf", b"value")
    os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mkfifo(root / "fifo", 0o600)
    with open(root / "holes", "wb") as file:
        file.truncate(8 << 20)
        file.seek(4 << 20)
        file.write(b"island")
    os.utime(root / "dir/file", ns=(1_600_000_000_123_456_789, 1_500_000_000_987_654_321))
    os.utime(root / "dir", ns=(1, 1_400_000_000_000_000_001))


def look(root: Path) -> dict[str, object]:
    """The files that ``build`` created, as seen in a mount."""
    found: dict[str, object] = {}
    for path in sorted(root.rglob("*")):
        seen = path.lstat()
        name = str(path.relative_to(root))
        what: list[object] = [oct(seen.st_mode), seen.st_uid, seen.st_gid, seen.st_rdev]
        if not stat.S_ISDIR(seen.st_mode):
            what.append(seen.st_nlink)
        if stat.S_ISREG(seen.st_mode):
            what += [path.read_bytes(), seen.st_mtime_ns if name == "dir/file" else 0]
        if stat.S_ISLNK(seen.st_mode):
            what.append(os.readlink(path))
        found[name] = what
    found["xattr"] = os.getxattr(root / "dir/file", "trusted.wharf")
    return found


class SnapshotterSuite:
    """Every test gets a client with its own namespace."""

    async def test_changes_are_visible_in_children(self, engine: Engine) -> None:
        shots = engine.snapshots
        await mounted(await shots.prepare("k1", ""), build)
        await shots.commit("base", "k1", {"a": "b"})
        seen = await mounted(await shots.view("v1", "base"), look)
        assert len(seen) == 8
        above = await shots.prepare("k2", "base")
        assert await mounted(above, look) == seen

        def change(root: Path) -> None:
            (root / "dir/file").write_bytes(b"second")
            (root / "null").unlink()
            (root / "new").write_bytes(b"new")

        await mounted(above, change)
        await shots.commit("top", "k2")
        assert await mounted(await shots.mounts("v1"), look) == seen
        names = await mounted(await shots.view("v2", "top"), lambda root: sorted(os.listdir(root)))
        assert names == ["dir", "fifo", "holes", "new"]
        top = await mounted(await shots.mounts("v2"), lambda root: (root / "dir/file").read_bytes())
        assert top == b"second"
        info = await shots.stat("base")
        assert (info.kind, info.parent, dict(info.labels)) == (SnapshotKind.COMMITTED, "", {"a": "b"})
        assert (await shots.stat("top")).parent == "base"

    async def test_a_view_is_read_only(self, engine: Engine) -> None:
        await mounted(await engine.snapshots.prepare("k", ""), build)
        await engine.snapshots.commit("base", "k")

        def write(root: Path) -> None:
            with pytest.raises(OSError, match="Read-only"):
                (root / "x").write_bytes(b"")

        await mounted(await engine.snapshots.view("v", "base"), write)

    async def test_states_are_enforced(self, engine: Engine) -> None:
        shots = engine.snapshots
        await shots.prepare("k", "")
        async with refused(Kind.ALREADY_EXISTS):
            await shots.prepare("k", "")
        async with refused(Kind.INVALID_ARGUMENT):
            await shots.prepare("k2", "k")
        async with refused(Kind.NOT_FOUND):
            await shots.prepare("k2", "nothing")
        await shots.commit("base", "k")
        async with refused(Kind.NOT_FOUND):
            await shots.mounts("k")
        async with refused(Kind.NOT_FOUND):
            await shots.commit("other", "k")
        await shots.prepare("k", "base")
        async with refused(Kind.ALREADY_EXISTS):
            await shots.commit("base", "k")
        async with refused(Kind.FAILED_PRECONDITION):
            await shots.remove("base")
        await shots.remove("k")
        await shots.remove("base")
        async with refused(Kind.NOT_FOUND):
            await shots.stat("base")
        assert [info async for info in shots.walk()] == []

    async def test_labels_and_filters(self, engine: Engine) -> None:
        shots = engine.snapshots
        await shots.prepare("k1", "", {"a": "1"})
        await shots.commit("base", "k1", {"a": "2"})
        await shots.prepare("k2", "base", {"a": "3"})
        await shots.view("k3", "base")
        await shots.update_labels("k2", {"b": "4", "a": None})
        assert dict((await shots.stat("k2")).labels) == {"b": "4"}
        assert {info.name async for info in shots.walk(["kind==active", "kind==view"])} == {"k2", "k3"}
        assert {info.name async for info in shots.walk(["parent==base,labels.b==4"])} == {"k2"}

    async def test_usage_excludes_parents(self, engine: Engine) -> None:
        shots = engine.snapshots
        megabyte = os.urandom(1 << 20)
        await mounted(await shots.prepare("k1", ""), lambda root: (root / "one").write_bytes(megabyte))
        await shots.commit("base", "k1")
        await mounted(await shots.prepare("k2", "base"), lambda root: (root / "two").write_bytes(megabyte * 2))
        assert 1 << 20 <= (await shots.usage("base")).size < 3 << 19
        assert 2 << 20 <= (await shots.usage("k2")).size < 5 << 19
        assert await shots.usage("base") == await shots.usage("base")

    async def test_many_layers(self, engine: Engine) -> None:
        shots = engine.snapshots
        parent = ""
        for number in range(30):
            mounts = await shots.prepare(f"k{number}", parent)
            await mounted(mounts, lambda root, number=number: (root / f"f{number}").touch())  # type: ignore[misc]
            parent = f"layer{number}"
            await shots.commit(parent, f"k{number}")
        names = await mounted(await shots.view("all", parent), os.listdir)
        assert sorted(names) == sorted(f"f{number}" for number in range(30))
