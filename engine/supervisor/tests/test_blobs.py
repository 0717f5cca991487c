"""The bytes of an open write, while the disk is slow."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.errors import WharfError
from engine.supervisor.blobs import IngestFile

PATIENCE = 60.0


def test_readers_come_and_go_while_the_disk_stalls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the event loop asks of an ingest waits for no write."""
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
        done.append(file.more())
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
def test_a_follower_hears_of_an_end(tmp_path: Path, ends: Callable[[IngestFile], None]) -> None:
    file = IngestFile(str(tmp_path / "data"), "sha256")
    file.append(b"first")
    follower = file.follow()
    assert follower.read(100) == b"first"
    ends(file)
    with pytest.raises(WharfError, match="came no further"):
        follower.read(100)
    follower.close()
    file.close()
