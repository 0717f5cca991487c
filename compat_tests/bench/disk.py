"""The disk for both engines and the files of the measurements."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from compat_tests.support.host.traces import PREFIX

_SIZE = 40 << 30  # bytes, sparse


@contextlib.contextmanager
def own_disk() -> Iterator[None]:
    """Mount an ext4 with a journal, in a file, as the temporary directory during the block.

    Without a journal, ext4 does not reuse an inode for a minute or more after its deletion, and checks each deleted
    one for every file that is created (`recently_deleted` in fs/ext4/ialloc.c): the files removed by one round would
    slow the next one by a factor of ten.
    """
    before = tempfile.tempdir
    with tempfile.TemporaryDirectory(prefix=f"{PREFIX}{os.getpid()}-0-") as name:
        image, mounted = Path(name, "image"), Path(name, "d")
        with image.open("wb") as file:
            file.truncate(_SIZE)
        _run("mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", str(image))
        mounted.mkdir()
        device = _run("losetup", "--find", "--show", "--direct-io=on", str(image))
        try:
            _run("mount", "-o", "discard", device, str(mounted))
        finally:
            _run("losetup", "--detach", device)  # takes effect at the last unmount
        try:
            Path(name).chmod(0o711)
            mounted.chmod(0o711)
            tempfile.tempdir = str(mounted)
            yield
        finally:
            tempfile.tempdir = before
            _run("umount", str(mounted))


def _run(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=300).stdout.strip()
