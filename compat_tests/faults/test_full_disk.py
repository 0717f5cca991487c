"""A container fills the disk of the data root; exits, stops and removals still work."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from compat_tests.support import engines
from compat_tests.support.engines import Wharf
from compat_tests.support.host.filesystems import free_space
from compat_tests.support.polling import until

BLOCK = 4096
# It uses every block that becomes free.
FILL = "while :; do dd if=/dev/zero bs=4k >>/f 2>/dev/null; done"


@pytest.fixture
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Wharf, Path]]:
    """An engine with its data root on a small ext4, and the mount point."""
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("needs mkfs.ext4")
    folder = tmp_path_factory.mktemp("ext4")
    image, mounted = folder / "image", folder / "data"
    mounted.mkdir()
    with image.open("wb") as file:
        file.truncate(96 << 20)
    # Blocks smaller than a page, as mkfs chooses for small disks: a mapped page needs several blocks.
    make = ["mkfs.ext4", "-q", "-m", "0", "-b", "1024", str(image)]
    subprocess.run(make, check=True, capture_output=True, timeout=120)
    subprocess.run(["mount", "-o", "loop", str(image), str(mounted)], check=True, capture_output=True, timeout=120)
    with contextlib.ExitStack() as stack:
        stack.callback(subprocess.run, ["umount", str(mounted)], check=True, capture_output=True, timeout=120)
        engine = stack.enter_context(engines.wharf("full", "--data-root", str(mounted / "root")))
        engine.load_busybox()
        yield engine, mounted


def status(engine: Wharf, name: str) -> str:
    return engine.docker("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", name).stdout.strip()


def test_removals_work_on_a_full_disk(small: tuple[Wharf, Path]) -> None:
    engine, mounted = small

    def run(name: str, *arguments: str) -> None:
        engine.docker("run", "-d", "--name", name, "--network", "none", *arguments)

    run("stopped", "busybox", "sleep", "1000")
    run("killed", "busybox", "sleep", "1000")
    run("ends", "-v", "signals:/s", "busybox", "sh", "-c", "until [ -e /s/go ]; do sleep 0.1; done; exit 137")
    script = "until [ -e /s/go ]; do sleep 0.2; done"
    run("again", "--restart", "always", "-v", "signals:/s:ro", "busybox", "sh", "-c", script)
    engine.docker("network", "create", "--internal", "before")
    engine.docker("volume", "create", "before")
    engine.docker("tag", "busybox", "other:1")
    run("filler", "busybox", "sh", "-c", FILL)
    assert until(lambda: free_space(mounted) < BLOCK)

    # Changes of metadata only.
    engine.docker("network", "create", "--internal", "meanwhile")
    engine.docker("rename", "killed", "renamed")
    # An operation that can't succeed reports the reason.
    refused = engine.docker("commit", "stopped", "copy:1", check=False)
    assert refused.status == 1
    assert "no space left on device" in refused.stderr
    # Exits, stops and removals.
    engine.docker("stop", "-t", "1", "stopped")
    engine.docker("kill", "renamed")
    assert status(engine, "stopped") == "exited 137"
    assert status(engine, "renamed") == "exited 137"
    engine.docker("network", "rm", "before", "meanwhile")
    engine.docker("volume", "rm", "before")
    engine.docker("rmi", "other:1")
    volume = Path(engine.docker("volume", "inspect", "-f", "{{.Mountpoint}}", "signals").stdout.strip())
    (volume / "go").symlink_to("/bin/sh")  # uses an inode and no block
    assert until(lambda: status(engine, "ends") == "exited 137")
    engine.docker("rm", "stopped")
    # The daemon is killed and restarted while the disk is full; it knows how the exited containers exited.
    engine.daemon.stop(signal_number=signal.SIGKILL)
    engine.start()
    assert status(engine, "ends") == "exited 137"
    assert status(engine, "renamed") == "exited 137"

    (volume / "go").unlink()  # early: the delay of restarts doubles
    engine.docker("rm", "-f", "filler")
    assert until(lambda: free_space(mounted) > 20 << 20)
    assert until(lambda: status(engine, "again") == "running 0")
    engine.docker("run", "--rm", "--network", "none", "busybox", "true")
    engine.docker("rm", "-f", "renamed", "ends", "again")
    engine.docker("volume", "rm", "signals")
    log = engine.daemon.log.read_text(errors="replace")
    assert "OperationalError" not in log
    assert "Traceback" not in log
