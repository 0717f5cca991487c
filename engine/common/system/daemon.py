"""Starts a detached Python process of this project that outlives this process: own session, reaped by init."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from engine.common.system.run import DEFAULT_ENV

#: Forks once and exits in the parent, so that init reaps the daemon.
_LAUNCH = (
    "import os,sys\n"
    "if os.fork(): os._exit(0)\n"
    "os.setsid()\n"
    "import runpy\n"
    "sys.argv[:] = sys.argv[1:]\n"
    "runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)\n"
)


def start(module: str, *, stdin: int, arguments: Sequence[str] = (), env: Mapping[str, str] | None = None) -> None:
    """Runs ``python -m module`` detached. Blocks for about ten milliseconds: call it in a thread.

    :param stdin: the only fd that it inherits besides stderr.
    :raises OSError: it can't be started.
    """
    root = str(Path(__file__).resolve().parents[3])
    # Programs that end an engine find its processes by such a variable (MARK in deploy/engine.sh).
    own = {name: value for name, value in os.environ.items() if name.startswith("WHARF_")}
    environment = {**DEFAULT_ENV, **own, "PYTHONPATH": root, "PYTHONDONTWRITEBYTECODE": "1", **(env or {})}
    # -S: no site-packages; the module must need the standard library only.
    argv = [sys.executable, "-S", "-c", _LAUNCH, module, *arguments]
    null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    try:
        pid = os.posix_spawn(
            sys.executable,
            argv,
            environment,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, stdin, 0),
                (os.POSIX_SPAWN_DUP2, null, 1),
            ],
        )
    finally:
        os.close(null)
    _, status = os.waitpid(pid, 0)
    if status:
        raise OSError(0, f"python -m {module} did not start (status {status})")
