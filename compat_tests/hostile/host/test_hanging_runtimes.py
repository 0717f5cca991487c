"""Runtimes that hang while they create a container or start an exec, because a file that they read is a FIFO, or by
themselves. The deadline's error names the runtime, and no process is left."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from compat_tests.support.engines import Engine, wharf
from compat_tests.support.host.traces import cgroups_named
from compat_tests.support.patience import FACTOR
from compat_tests.support.polling import until

DEADLINE = 4 + FACTOR
# An argument that identifies the process on this host.
SLEEP = f"{86400 + os.getpid()}"
HANGS = f"""#!/bin/sh
for word in "$@"; do
  case $word in create) sleep {SLEEP} & sleep {SLEEP}; exit 1;; esac
done
exec runc "$@"
"""


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """An engine with a short deadline for runtimes, and one runtime that hangs."""
    program = tmp_path_factory.mktemp("runtime") / "hangs"
    program.write_text(HANGS)
    program.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
        own = f"runtime.create={DEADLINE},runtime.exec={DEADLINE}"
        patch.setenv("WHARF_TIMEOUTS", ",".join(filter(None, [os.environ.get("WHARF_TIMEOUTS", ""), own])))
        engine = stack.enter_context(wharf("impatient", "--add-runtime", f"hangs={program}"))
        engine.load_busybox()
        yield engine


def members(engine: Engine) -> list[int]:
    """Return the processes in the cgroups of the engine's containers, and those of the hanging runtime."""
    found = set()
    for cgroup in cgroups_named(engine.resources.cgroup):
        with contextlib.suppress(OSError):
            found |= {int(line) for line in (cgroup / "cgroup.procs").read_text().split()}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if SLEEP.encode() in path.read_bytes().split(b"\0"):
                found.add(int(path.parent.name))
    return sorted(found)


def test_a_create_that_hangs(impatient: Engine) -> None:
    done = impatient.docker("run", "--name", "hung", "--runtime", "hangs", "busybox", "true", check=False)
    assert done.status == 125
    assert f"OCI runtime create failed: runtime.create: not done after {DEADLINE:g} s" in done.stderr
    assert members(impatient) == []
    assert impatient.docker("rm", "-f", "hung").stdout == "hung\n"


def test_a_fifo_that_is_mounted_over_a_file_of_the_runtimes(impatient: Engine, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    bind = f"{tmp_path}/fifo:/etc/passwd"
    done = impatient.docker("run", "--name", "fifo", "-v", bind, "busybox", "true", check=False)
    assert done.status == 125
    assert "runtime.create: not done after" in done.stderr
    assert until(lambda: not members(impatient)), members(impatient)
    assert impatient.docker("rm", "-f", "fifo").stdout == "fifo\n"


def test_a_fifo_of_the_containers_own(impatient: Engine) -> None:
    script = "rm /etc/passwd; mkfifo /etc/passwd; echo made; exec sleep 1000"
    impatient.docker("run", "-d", "--name", "own", "busybox", "sh", "-c", script)
    try:
        assert until(lambda: impatient.docker("logs", "own").stdout == "made\n")
        (init,) = members(impatient)
        done = impatient.docker("exec", "own", "true", check=False)
        assert done.status != 0
        assert "OCI runtime exec failed: runtime.exec: not done after" in done.stdout + done.stderr
        assert until(lambda: members(impatient) == [init])
        done = impatient.docker("exec", "-u", "root", "own", "true", check=False)
        assert "unable to find user root: read /etc/passwd: not a regular file" in done.stderr
    finally:
        assert impatient.docker("rm", "-f", "own").stdout == "own\n"
