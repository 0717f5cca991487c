"""systemd as a container's first process: on a terminal, it closes and reopens the console during its boot."""

from __future__ import annotations

import contextlib
import io
import shutil
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from compat_tests.support.containers import container
from compat_tests.support.engines import Engine
from compat_tests.support.images import docker_archive
from compat_tests.support.patience import FACTOR

SYSTEMD = Path("/usr/lib/systemd/systemd")
EXECUTOR = Path("/usr/lib/systemd/systemd-executor")
TAG = "wharf-test/systemd:1"
BOOT = 20.0 * FACTOR

pytestmark = [
    pytest.mark.core,
    pytest.mark.skipif(not SYSTEMD.exists() or shutil.which("ldd") is None, reason="needs systemd's files and ldd"),
]


def root_file_system() -> bytes:
    """Return the host's systemd with its libraries, and its targets without their services."""
    names = (shutil.which(name) for name in ("busybox", "systemctl"))
    programs = [path for path in (SYSTEMD, EXECUTOR, *(Path(name) for name in names if name)) if path.exists()]
    done = subprocess.run(["ldd", *map(str, programs)], capture_output=True, text=True, check=False, timeout=60)
    words = {word for line in done.stdout.splitlines() if not line.endswith(":") for word in line.split()}
    files = {*programs, *(Path(word) for word in words if word.startswith("/"))}
    files |= {path for path in Path("/usr/lib/systemd/system").glob("*.target") if not path.is_symlink()}
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:

        def node(name: str, kind: bytes, target: str = "") -> None:
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.linkname = kind, 0o755, target
            archive.addfile(info)

        for name in ("bin", "sbin", "lib", "lib64"):
            node(f"usr/{name}", tarfile.DIRTYPE)
            node(name, tarfile.SYMTYPE, f"usr/{name}")
        for name in ("etc", "run", "tmp", "var", "proc", "sys", "dev"):
            node(name, tarfile.DIRTYPE)
        for path in sorted(files):
            name = str(path) if path.is_relative_to("/usr") else f"/usr{path}"
            info = tarfile.TarInfo(name.lstrip("/"))
            content = path.read_bytes()
            info.size, info.mode = len(content), path.stat().st_mode & 0o777
            archive.addfile(info, io.BytesIO(content))
        node("usr/lib/systemd/system/default.target", tarfile.SYMTYPE, "multi-user.target")
        for name, text in (("etc/passwd", b"root:x:0:0::/root:/bin/sh\n"), ("etc/machine-id", b"uninitialized\n")):
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(text), 0o644
            archive.addfile(info, io.BytesIO(text))
    return data.getvalue()


@contextlib.contextmanager
def booted(engine: Engine, **config: Any) -> Iterator[str]:
    """Run systemd until it has reached its target; yield the container.

    systemd refuses cgroup v1 without SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE (in a container, its arguments replace the
    kernel command line).
    """
    engine.docker("load", input=docker_archive(TAG, [root_file_system()]))
    command = [str(SYSTEMD), "SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1", "systemd.show_status=1"]
    host = {"Privileged": True, "CgroupnsMode": "private", "Tmpfs": {"/run": "", "/tmp": ""}}
    config = {"Image": TAG, "HostConfig": host, "Cmd": command, "Env": ["container=docker"], **config}
    active = ("systemctl", "is-active", "multi-user.target")
    try:
        with container(engine, **config) as box:
            end = time.monotonic() + BOOT
            while engine.docker("exec", box, *active, check=False).stdout.strip() != "active":
                shown = engine.docker("logs", box).output
                state = engine.api.get(f"/containers/{box}/json").json()["State"]
                if not state["Running"] and "cgroup" in shown:
                    pytest.skip(f"systemd does not run with this host's cgroups: {shown[-200:]!r}")
                assert state["Running"], shown
                assert time.monotonic() < end, shown
                time.sleep(0.2)
            if Path("/sys/fs/cgroup/cgroup.controllers").exists():
                # Its control group is the root of the namespace, where it can make others and move itself.
                own = engine.docker("exec", box, "busybox", "cat", "/proc/1/cgroup").stdout
                assert own == "0::/init.scope\n"
            yield box
    finally:
        engine.docker("rmi", "-f", TAG, check=False)


def test_systemd_reaches_its_targets_on_a_terminal(engine: Engine) -> None:
    with booted(engine, Tty=True) as box:
        assert "Reached target" in engine.docker("logs", box).stdout


def test_systemd_reaches_its_targets_without_a_terminal(engine: Engine) -> None:
    """Without a terminal there is no console, so systemd shows nothing."""
    with booted(engine, Tty=False) as box:
        assert engine.docker("exec", box, "busybox", "test", "-e", "/dev/console", check=False).status == 1
