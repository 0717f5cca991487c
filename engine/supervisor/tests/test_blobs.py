"""The bytes of an open write on a slow disk."""

import asyncio
import gc
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

import pytest

from engine.common.errors import WharfError
from engine.supervisor.blobs import IngestFile
from engine.supervisor.call import Call
from engine.supervisor.ingest import Ingest, Record

PATIENCE = 60.0


def test_the_loop_does_not_wait_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop's calls to an ingest don't wait for a write."""
    file = IngestFile(str(tmp_path / "data"), "sha256")
    file.append(b"first")
    stalled, go_on = threading.Event(), threading.Event()
    pwrite = os.pwrite

    def slow(fd: int, data: memoryview, offset: int) -> int:
        stalled.set()
        go_on.wait()
        return pwrite(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", slow)
    done: list[object] = []

    def asked() -> None:
        follower = file.follow()
        os.close(file.writable())
        done.append(follower.read(100))
        done.append(file.unhashed())
        follower.stop()
        follower.close()

    writing = threading.Thread(target=file.append, args=(b"second",))
    asking = threading.Thread(target=asked, daemon=True)
    writing.start()
    try:
        assert stalled.wait(PATIENCE)
        asking.start()
        asking.join(PATIENCE)
        assert not asking.is_alive()
    finally:
        go_on.set()
        writing.join()
    assert done == [b"first", False]
    assert file.offset == len(b"firstsecond")
    file.close()


@pytest.mark.parametrize("ends", [IngestFile.truncate, IngestFile.close])
def test_a_follower_is_notified_of_the_end(tmp_path: Path, ends: Callable[[IngestFile], None]) -> None:
    file = IngestFile(str(tmp_path / "data"), "sha256")
    file.append(b"first")
    follower = file.follow()
    assert follower.read(100) == b"first"
    ends(file)
    with pytest.raises(WharfError, match="was ended or restarted"):
        follower.read(100)
    follower.close()
    file.close()


def test_acknowledged_bytes_are_written_before_close(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that writes it may not have started when the write is closed."""
    path = tmp_path / "data"
    append = IngestFile.append

    def late(self: IngestFile, data: bytes | memoryview) -> None:
        time.sleep(0.2)
        append(self, data)

    monkeypatch.setattr(IngestFile, "append", late)
    closed: list[Ingest] = []

    class Store:
        async def commit(self, ingest: Ingest, digest: str, labels: Mapping[str, str]) -> None:
            raise AssertionError

        def sync(self, fd: int) -> None:
            raise AssertionError

        def closed(self, ingest: Ingest) -> None:
            closed.append(ingest)

    async def scenario() -> None:
        file = IngestFile(str(path), "sha256")
        ingest = Ingest(Store(), cast(Call, None), "a", Record("a", 8, "", 0), file)
        await ingest.write(0, b"half")
        await ingest.close()
        await asyncio.sleep(0)
        assert path.read_bytes() == b"half"
        assert closed == [ingest]

    asyncio.run(scenario())


def test_a_file_that_can_not_be_made_complains_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    ignored: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", ignored.append)
    with pytest.raises(FileExistsError):
        IngestFile(str(tmp_path / "file" / "data"), "sha256")
    gc.collect()
    assert ignored == []
