"""Overviews of many images and containers: how many calls to containerd they take must not grow with their number."""

import asyncio
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from engine.api.tests.fake import FakeServer
from engine.api.types import SnapshotInfo
from engine.common.errors import Kind, WharfError
from server.images.store import KnownStore
from server.tests import samples
from server.tests.daemon import Daemon, serving

OVERVIEWS: tuple[tuple[str, dict[str, object]], ...] = (
    ("/info", {}),
    ("/containers/json", {"all": 1}),
    ("/containers/json", {"all": 1, "size": 1}),
    ("/images/json", {}),
    ("/images/json", {"all": 1, "manifests": 1, "shared-size": 1}),
    ("/images/json", {"manifests": 1, "identity": 1}),
    ("/images/json", {"filters": '{"label":["a"]}'}),
    ("/images/json", {"filters": '{"before":["app:0"]}'}),
    ("/containers/json", {"all": 1, "filters": '{"ancestor":["app:0"]}'}),
    ("/system/df", {}),
    ("/system/df", {"verbose": 1}),
)


@contextmanager
def counted(engine: FakeServer) -> Iterator[Counter[str]]:
    """Counts the calls to containerd by their names."""
    calls: Counter[str] = Counter()

    def listen(method: str) -> None:
        calls[method.rpartition(".")[2]] += 1

    engine.listeners.append(listen)
    try:
        yield calls
    finally:
        engine.listeners.remove(listen)


def settle(daemon: Daemon) -> None:
    """Lets background tasks handle the events so far."""

    async def turns() -> None:
        for _ in range(200):
            await asyncio.sleep(0)

    daemon.wait(turns())


def calls_of(daemon: Daemon, path: str, **query: object) -> Counter[str]:
    settle(daemon)
    with counted(daemon.engine) as calls:
        assert daemon.get(path, **query).status_code == 200
    return calls


def fill(daemon: Daemon, numbers: range) -> None:
    for number in numbers:
        daemon.load(f"app:{number}", files={"number": str(number).encode()}, config={"Labels": {"a": "b"}})
        index = samples.index(f"docker.io/library/two:{number}")
        answer = daemon.request("POST", "/images/load", content=index.archive, params={"platform": AMD64})
        assert b"Loaded image" in answer.content
        daemon.create(f"c{number}", Image=f"app:{number}")


AMD64 = '{"os":"linux","architecture":"amd64"}'


def test_calls_do_not_grow_with_the_number_of_images_and_containers(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the images lack a platform, so that their blobs must be looked up anew each time. There are more images
    than documents of images are cached."""
    monkeypatch.setattr("server.images.resolve._CACHE", 2)
    found: list[list[Counter[str]]] = []
    for numbers in (range(4), range(4, 16)):
        fill(daemon, numbers)
        for path, query in OVERVIEWS:
            calls_of(daemon, path, **query)  # reads the documents and measures the layers
        found.append([calls_of(daemon, path, **query) for path, query in OVERVIEWS])
    assert found[0] == found[1]
    assert max(sum(calls.values()) for calls in found[1]) <= 5


def test_after_a_removal_nothing_is_read_again(daemon: Daemon) -> None:
    """The blobs and snapshots that are left are listed, in one call each."""
    fill(daemon, range(8))
    calls_of(daemon, "/images/json", manifests=1)
    assert daemon.delete("/images/two:7").status_code == 200
    assert calls_of(daemon, "/images/json", manifests=1) == {"Content/List": 1, "Snapshots/List": 1}


def test_what_a_complete_list_costs(daemon: Daemon) -> None:
    for number in range(8):
        daemon.load(f"app:{number}", files={"number": str(number).encode()})
    first = calls_of(daemon, "/images/json", manifests=1)
    # The load has read the documents. The layer of each image is measured once, as it never changes.
    assert first == {"Content/List": 1, "Snapshots/List": 1, "Snapshots/Usage": 8}
    assert not calls_of(daemon, "/images/json", manifests=1)


def test_after_a_restart_documents_are_not_read_again(tmp_path: Path) -> None:
    """Only those of images that the last list has not shown; what was removed meanwhile is forgotten."""
    shown = {"manifests": 1, "shared-size": 1}
    with serving(tmp_path) as daemon:
        fill(daemon, range(6))
        before = daemon.get("/images/json", **shown).json()
    with serving(tmp_path, engine=daemon.engine) as daemon:
        calls = calls_of(daemon, "/images/json", **shown)
        assert calls == {"Content/List": 1, "Snapshots/List": 1, "Snapshots/Usage": 12}
        assert daemon.get("/images/json", **shown).json() == before
        assert daemon.delete("/images/two:5").status_code == 200
        daemon.load("app:6", config={"Labels": {"new": "yes"}})
    with serving(tmp_path, engine=daemon.engine) as daemon:
        calls = calls_of(daemon, "/images/json", **shown)
        assert calls == {"Content/List": 1, "Content/Read": 2, "Snapshots/List": 1, "Snapshots/Usage": 12}
        rows = daemon.get("/images/json", **shown).json()
        assert len(rows) == len(before)
        assert [row["Labels"] for row in rows if "app:6" in row["RepoTags"]] == [{"new": "yes"}]
        records = daemon.wait(KnownStore(daemon.database).load())
        assert records.keys() == {row["Id"] for row in rows}


def test_records_of_another_form_are_read_anew(tmp_path: Path) -> None:
    with serving(tmp_path) as daemon:
        fill(daemon, range(2))
        before = daemon.get("/images/json").json()

        def age(connection: sqlite3.Connection) -> None:
            connection.execute("UPDATE image_documents SET doc = '[0, 1]'")

        daemon.wait(daemon.database.write(age))
    with serving(tmp_path, engine=daemon.engine) as daemon:
        assert daemon.get("/images/json").json() == before
        assert len(daemon.wait(KnownStore(daemon.database).load())) == len(before)


def _available(daemon: Daemon) -> list[list[bool]]:
    rows = daemon.get("/images/json", manifests=1).json()
    return [[entry["Available"] for entry in row["Manifests"]] for row in rows]


@pytest.mark.parametrize("remove", ["content", "name"])
def test_what_another_client_removes(daemon: Daemon, remove: str) -> None:
    """The list shows it, although nothing was removed through this daemon."""
    daemon.load("app:1")
    assert _available(daemon) == [[True]]
    engine = daemon.services.engine

    async def by_another() -> None:
        if remove == "name":
            await engine.images.delete("docker.io/library/app:1", sync=True)
            return
        [config] = [info async for info in engine.content.walk() if "snapshot" in "".join(info.labels)]
        await engine.content.delete(config.digest)

    daemon.wait(by_another())
    settle(daemon)
    assert _available(daemon) == ([] if remove == "name" else [[False]])


def test_images_while_a_remote_snapshotter_is_absent(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    daemon.load("app:1")
    snapshots = daemon.services.engine.snapshots
    monkeypatch.setattr(snapshots, "snapshotter", "stargz")

    async def refuse(filters: Sequence[str] = ()) -> AsyncIterator[SnapshotInfo]:
        raise WharfError(Kind.UNAVAILABLE, "snapshotter stargz: no such file")
        yield

    monkeypatch.setattr(snapshots, "walk", refuse)
    assert [image["RepoTags"] for image in daemon.get("/images/json").json()] == [["app:1"]]


def test_a_failing_call_has_its_own_error(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    daemon.load("app:1")

    async def refuse(key: str) -> None:
        raise WharfError(Kind.UNAVAILABLE, f"no usage of {key[:6]}")

    monkeypatch.setattr(daemon.services.engine.snapshots, "usage", refuse)
    assert daemon.refusal("GET", "/images/json") == (503, "no usage of sha256")
