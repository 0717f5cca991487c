"""Functions with the file permissions of a user of the host."""

import os
import threading
from functools import partial
from pathlib import Path

import pytest

from engine.common.system import linux
from engine.common.system.credentials import Credentials, run_as

pytestmark = pytest.mark.root

USER = Credentials(12345, 23456, (34567,))


def identity() -> dict[str, str]:
    with open("/proc/thread-self/status") as file:
        return {name: value.strip() for name, _, value in (line.partition(":") for line in file)}


def test_ids_and_capabilities() -> None:
    before = identity()
    found = run_as(USER, identity)
    assert found["Uid"].split()[3] == "12345"
    assert found["Gid"].split()[3] == "23456"
    assert found["Groups"].split() == ["34567"]
    assert int(found["CapEff"], 16) == 0
    assert found["Name"]
    for key in ("Uid", "Gid", "Groups", "CapEff"):
        assert identity()[key] == before[key], "other threads keep theirs"
    assert threading.active_count() < 50


def test_the_kernel_decides(tmp_path: Path) -> None:
    for part in (tmp_path, *list(tmp_path.parents)[:3]):
        part.chmod(0o755)
    secret = tmp_path / "secret"
    secret.mkdir(mode=0o700)
    (secret / "file").touch()
    with pytest.raises(PermissionError):
        run_as(USER, partial(os.open, secret / "file", os.O_PATH))
    with pytest.raises(PermissionError):
        run_as(USER, partial(os.mkdir, tmp_path / "new"))
    os.chown(secret, 0, 34567)
    secret.chmod(0o770)
    os.close(run_as(USER, partial(os.open, secret / "file", os.O_PATH)))
    run_as(USER, partial(os.mkdir, secret / "new"))
    info = (secret / "new").stat()
    assert (info.st_uid, info.st_gid) == (12345, 23456)


def test_magic_links_lead_nowhere(tmp_path: Path) -> None:
    """The kernel allows the thread to follow them: they lead to the descriptors of its own process."""
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        path = f"/proc/self/fd/{fd}"
        with pytest.raises(OSError, match="symbolic links"):
            run_as(USER, partial(linux.openat2, linux.AT_FDCWD, path, os.O_PATH, 0, linux.RESOLVE_NO_MAGICLINKS))
    finally:
        os.close(fd)
