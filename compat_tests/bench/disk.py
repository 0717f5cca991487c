"""The disk that both engines and the files of the measurements are on."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from compat_tests.support.traces import PREFIX

_SIZE = 40 << 30  # bytes, of which only those that are used exist


@contextlib.contextmanager
def own_disk() -> Iterator[None]:
    """An ext4 with a journal, in a file, is the temporary directory meanwhile.

    Without a journal, ext4 takes no inode again for a minute or more after its deletion and looks at each of them
    in turn for every file that is created (`recently_deleted` in fs/ext4/ialloc.c): what the round before removed
    would decide the time of this one, by a factor of ten.
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
            _run("losetup", "--detach", device)  # takes effect once it is mounted nowhere
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
