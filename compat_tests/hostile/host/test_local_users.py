"""An unprivileged user of the host can't read, enter or run anything below the data root and the exec root."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from compat_tests.support import engines
from compat_tests.support.engines import Engine, Wharf
from compat_tests.support.host.subids import FIRST, USER, subordinate_ids

UID = 54_321
DOCKERFILE = """FROM busybox
ARG PASSWORD
RUN echo $PASSWORD; cp /bin/busybox /suid; chmod 4755 /suid
"""
#: Tests access to each path as another user: read, list, write, run, connect.
_PROGRAM = """
import os, socket, stat, sys
paths = sys.stdin.buffer.read().split(b"\\0")
uid = int(sys.argv[1])
os.setgroups([]); os.setresgid(uid, uid, uid); os.setresuid(uid, uid, uid)
for path in paths:
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        continue  # not even its name can be confirmed
    can = ""
    if stat.S_ISSOCK(mode):
        try:
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(path)
            can = "c"
        except OSError:
            pass
    elif not stat.S_ISLNK(mode):
        can = "".join(l for l, m in (("r", os.R_OK), ("w", os.W_OK), ("x", os.X_OK)) if os.access(path, m))
        if stat.S_ISDIR(mode):
            can = can.replace("x", "")  # what is below is asked about by its name
    if can:
        sys.stdout.buffer.write(can.encode() + b" " + path + b"\\0")
"""


def everything(root: Path) -> list[bytes]:
    found = [os.fsencode(root)]
    for directory, below, files in os.walk(os.fsencode(root)):
        found += [os.path.join(directory, name) for name in (*below, *files)]
    return found


def open_to_others(root: Path) -> list[str]:
    """Return what another user can access below a root, as `rx /path`."""
    done = subprocess.run(
        [sys.executable, "-S", "-c", _PROGRAM, str(UID)],
        input=b"\0".join(everything(root)),
        capture_output=True,
        check=True,
        timeout=120,
    )
    return [os.fsdecode(line) for line in done.stdout.split(b"\0") if line]


def use(engine: Engine) -> str:
    """Create one of everything: a running container with a volume, logs, a build, an exec's files."""
    context = engine.resources.root / "context"
    context.mkdir(exist_ok=True)
    (context / "Dockerfile").write_text(DOCKERFILE)
    engine.docker("build", "-q", "-t", "open", "--build-arg", "PASSWORD=secret", str(context))
    shutil.rmtree(context)
    script = "cp /bin/busybox /v/suid; chmod 4755 /v/suid; touch /ready; exec sleep 1000"
    run = ("run", "-d", "-p", "127.0.0.1::80", "-v", "others:/v", "--mount", "type=tmpfs,target=/t", "open")
    name = engine.docker(*run, "sh", "-c", script).stdout.strip()
    engine.docker("exec", name, "sh", "-c", "until [ -e /ready ]; do sleep 0.1; done")
    return name


def use_and_leave(engine: Engine) -> str:
    """The same, with databases of builds and an image."""
    engine.docker("build", "-q", "-t", "open", "-", input=DOCKERFILE)
    return "open"


def check(engine: Wharf) -> None:
    name = use(engine)
    try:
        root = engine.resources.root
        found = open_to_others(root / "data") + open_to_others(root / "run")
        assert not found, "\n".join(found[:80])
        suid = [path for path in everything(root / "data") if path.endswith(b"/suid")]
        # In the volume and in the layer; a stock containerd has its layers in a root of its own.
        layers = any((root / "data").glob("**/io.containerd.snapshotter.v1.overlayfs/snapshots"))
        assert len(suid) >= 1 + layers
        for path in suid:
            assert os.stat(path).st_mode & stat.S_ISUID
            with pytest.raises(PermissionError):
                subprocess.run([path, "id"], user=UID, group=UID, extra_groups=[], check=False)
    finally:
        engine.docker("rm", "-f", "-v", name)
        engine.docker("volume", "rm", "-f", "others")
        engine.docker("rmi", "-f", "open")


def test_nothing_is_open_to_other_users(own_engine: Wharf) -> None:
    check(own_engine)


def test_with_remapped_ids() -> None:
    with subordinate_ids(), engines.wharf("others", "--userns-remap", USER) as engine:
        engine.load_busybox()
        check(engine)
        # Only the containers' root may pass through.
        root = engine.resources.root / "data" / f"{FIRST}.{FIRST}"
        for directory in (root.parent, root):
            found = directory.stat()
            assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (0, FIRST, 0o710)


def test_roots_of_an_earlier_version_are_closed() -> None:
    with engines.wharf("upgraded") as engine:
        engine.load_busybox()
        engine.docker("rmi", "-f", use_and_leave(engine))
        for root in (engine.resources.root / "data", engine.resources.root / "run"):
            for path in everything(root):
                if path.endswith((b".db", b".db-wal", b".db-shm")):
                    os.chmod(path, 0o644)
                elif os.path.isdir(path) and os.stat(path).st_mode & 0o077 and path.count(b"/") < 6:
                    os.chmod(path, 0o755)
        engine.restart()
        for path in everything(engine.resources.root / "data"):
            if path.endswith((b".db", b".db-wal", b".db-shm")):
                assert stat.S_IMODE(os.stat(path).st_mode) == 0o600, path
        check(engine)
