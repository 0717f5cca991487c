"""The owner of a container's null device."""

import os
import subprocess

import pytest

from engine.shim.kernel import devices

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes a device")]


@pytest.mark.parametrize(
    ("make", "owner"),
    [
        ("mknod /mnt/dev/null c 1 3 && chown 1000:1000 /mnt/dev/null", (0, 0)),
        # Another device, a file, a link: not what a runtime passes.
        ("mknod /mnt/dev/null c 1 5 && chown 1000:1000 /mnt/dev/null", (1000, 1000)),
        ("touch /mnt/dev/null && chown 1000:1000 /mnt/dev/null", (1000, 1000)),
        ("mknod /mnt/dev/other c 1 3 && chown 1000:1000 /mnt/dev/other && ln -s other /mnt/dev/null", (1000, 1000)),
    ],
)
def test_the_null_device_is_returned_to_root(make: str, owner: tuple[int, int]) -> None:
    script = f"mount -t tmpfs tmpfs /mnt && mkdir /mnt/dev && {make} && mount --bind /mnt/dev /dev && echo made; read x"
    process = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "made\n"
        devices.return_null(process.pid)
        found = os.stat(f"/proc/{process.pid}/root/dev/null")
        assert (found.st_uid, found.st_gid) == owner
    finally:
        process.communicate("\n", timeout=60)
    devices.return_null(process.pid)  # a process that has exited is no error
