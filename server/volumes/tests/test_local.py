"""Local volumes: the directory, driver options mounted on use, references, copy-up."""

import asyncio
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from api_models.filters import Filters
from engine.common.errors import Kind, WharfError
from engine.common.files.copyup import copy_up
from engine.common.system import mounts
from server.volumes import query
from server.volumes.local import LocalDriver
from server.volumes.service import Volumes
from server.volumes.tests.stores import MemoryBus, MemoryStore


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path.resolve() / "volumes"
    mounts.unmount_under(str(tmp_path))


def make(root: Path) -> tuple[Volumes, MemoryStore, MemoryBus]:
    store, bus = MemoryStore(), MemoryBus()
    return Volumes(store, bus, LocalDriver(root)), store, bus


def test_create_refer_remove(root: Path) -> None:
    async def scenario() -> None:
        volumes, store, bus = make(root)
        volume = await volumes.create("data", labels={"a": "b"}, reference="c1")
        assert await asyncio.to_thread(os.path.isdir, volume.mountpoint)
        assert stat.S_IMODE((root / "data").stat().st_mode) == 0o701
        assert await volumes.create("data") is volume
        with pytest.raises(WharfError, match=r"^remove data: volume is in use - \[c1\]$") as caught:
            await volumes.remove("data")
        assert caught.value.kind is Kind.CONFLICT
        volumes.release("data", "c1")
        await volumes.remove("data")
        assert not (root / "data").exists()
        assert store.kept == {}
        assert bus.events == [("create", "data"), ("destroy", "data")]
        with pytest.raises(WharfError, match=r"^get data: no such volume$"):
            await volumes.remove("data")
        await volumes.remove("data", force=True)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("a", {}, "create a: volume name is too short, names should be at least two alphanumeric characters"),
        ("ab", {"odd": "1"}, 'create ab: invalid option: "odd"'),
        ("ab", {"type": "tmpfs"}, 'create ab: missing required option: "device"'),
        ("ab", {"o": "ro"}, 'create ab: missing required option: "device"'),
        ("ab", {"size": "1m"}, "create ab: quota size requested but no quota support"),
    ],
)
def test_refused(root: Path, name: str, options: dict[str, str], sentence: str) -> None:
    volumes, store, _ = make(root)
    with pytest.raises(WharfError) as caught:
        asyncio.run(volumes.create(name, options=options))
    assert (caught.value.kind, caught.value.message) == (Kind.INVALID_ARGUMENT, sentence)
    assert store.kept == {}


@pytest.mark.root
def test_mounted_for_the_first_user_until_the_last(root: Path) -> None:
    async def scenario() -> None:
        volumes, _, _ = make(root)
        await volumes.create("mem", options={"type": "tmpfs", "device": "tmpfs", "o": "size=1m,noexec"})
        path = await volumes.mount("mem", "c1:/x")
        info = mounts.mount_of(path)
        assert info is not None
        assert (info.mountpoint, info.fstype) == (path, "tmpfs")
        assert "noexec" in info.options
        assert await volumes.mount("mem", "c2:/x") == path
        assert await volumes.unmount("mem", "c1:/x")
        assert not await volumes.unmount("mem", "c1:/x")
        assert mounts.is_mountpoint(path)
        assert await volumes.unmount("mem", "c2:/x")
        assert not mounts.is_mountpoint(path)

    asyncio.run(scenario())


@pytest.mark.root
def test_mounts_left_by_a_crash_are_unmounted(root: Path, tmp_path: Path) -> None:
    async def scenario() -> None:
        volumes, store, bus = make(root)
        source = tmp_path / "source"
        source.mkdir()
        (source / "kept").write_text("x")
        await volumes.create("bound", options={"type": "none", "device": str(source), "o": "bind"})
        path = await volumes.mount("bound", "dead")
        again = Volumes(store, bus, LocalDriver(root))
        await again.load()
        await again.sweep()
        assert not mounts.is_mountpoint(path)
        # Removing a volume whose file system is still mounted deletes none of its files.
        await again.mount("bound", "c")
        await again.remove("bound", force=True)
        assert (source / "kept").read_text() == "x"

    asyncio.run(scenario())


@pytest.mark.root
def test_a_failed_mount_hides_passwords(root: Path) -> None:
    async def scenario() -> None:
        volumes, _, _ = make(root)
        await volumes.create("odd", options={"type": "nonsuchfs", "device": "dev", "o": "password=secret,x=1"})
        with pytest.raises(WharfError, match=r"^failed to mount local volume: mount dev:") as caught:
            await volumes.mount("odd", "c")
        assert "secret" not in caught.value.message
        assert await volumes.unmount("odd", "c") is False

    asyncio.run(scenario())


def test_list_and_prune(root: Path) -> None:
    async def scenario() -> None:
        volumes, _, _ = make(root)
        named = await volumes.create("named", labels={"x": "1"})
        anonymous = await volumes.create("")
        used = await volumes.create("", reference="c1")
        (Path(anonymous.mountpoint) / "file").write_bytes(b"12345")
        os.link(Path(anonymous.mountpoint) / "file", Path(anonymous.mountpoint) / "again")
        dangling = (await query.listing(volumes, Filters({"dangling": ("true",)})))["Volumes"]
        assert {volume["Name"] for volume in dangling} == {named.name, anonymous.name}
        labelled = (await query.listing(volumes, Filters({"label": ("x=1",)})))["Volumes"]
        assert [volume["Name"] for volume in labelled] == ["named"]
        assert (await query.listing(volumes, Filters({"name": ("nam",)})))["Volumes"][0]["Options"] is None
        report = await query.prune(volumes, Filters())
        assert report == {"VolumesDeleted": [anonymous.name], "SpaceReclaimed": 5}
        report = await query.prune(volumes, Filters({"all": ("1",)}))
        assert report["VolumesDeleted"] == ["named"]
        assert [volume.name for volume in volumes.all()] == [used.name]

    asyncio.run(scenario())


@pytest.mark.root
def test_copy_up_preserves_metadata(tmp_path: Path) -> None:
    image, volume, outside = tmp_path / "image", tmp_path / "volume", tmp_path / "outside"
    for directory in (image / "data" / "sub", volume, outside):
        directory.mkdir(parents=True)
    (outside / "secret").write_text("no")
    (image / "data").chmod(0o1777)
    (image / "data" / "sub" / "file").write_text("text")
    os.chown(image / "data" / "sub" / "file", 12, 34)
    (image / "data" / "sub" / "file").chmod(0o4755)
    os.utime(image / "data" / "sub" / "file", ns=(1, 2))
    os.link(image / "data" / "sub" / "file", image / "data" / "link")
    (image / "data" / "symlink").symlink_to("sub/file")
    os.mkfifo(image / "data" / "fifo")
    (image / "away").symlink_to(outside)
    assert copy_up(str(image), "/data", str(volume))
    info = (volume / "sub" / "file").stat()
    assert (info.st_uid, info.st_gid, stat.S_IMODE(info.st_mode), info.st_mtime_ns) == (12, 34, 0o4755, 2)
    assert (volume / "link").stat().st_ino == info.st_ino
    assert os.readlink(volume / "symlink") == "sub/file"
    assert stat.S_ISFIFO((volume / "fifo").stat().st_mode)
    assert stat.S_IMODE(volume.stat().st_mode) == 0o1777
    assert not copy_up(str(image), "/data", str(volume))
    empty = tmp_path / "empty"
    empty.mkdir()
    assert not copy_up(str(image), "/missing", str(empty))
    assert not copy_up(str(image), "/away", str(empty))
    assert list(empty.iterdir()) == []
