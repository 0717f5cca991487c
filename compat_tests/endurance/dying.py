"""``python -m compat_tests.endurance.dying``: wharfd as ``python -m server`` starts it. It is killed at a
chosen step, or its supervisor is, if that is one that it has started again.

A step is a call of the engine, of a shim, of the kernel's mounts, network or firewall, a write of the database (each
before and after), or a change of the file system (before). The folder that ``STEPS`` names holds the file ``die`` with
"wharfd" or "supervisor" and a number, or a part of a step's name: that one kills itself (SIGKILL) at its so-manieth
step from then on, or at the first of that name, and calls the file ``died`` before. Without it nothing is counted.
``passed`` gets the names of the steps that were counted. ``lock`` is locked (flock) meanwhile.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from engine.shim import zygote

#: Names the folder, in the environment.
STEPS = "WHARF_TEST_STEPS"
FILES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.chown", "shutil.rmtree")
#: Calls of the engine that change nothing, by the beginning of their last word.
LOOKS = ("Get", "List", "Stat", "Info", "Usage", "Version", "Wait", "Metrics", "Walk", "Status", "Read", "Check")

DIE, DIED, PASSED = "die", "died", "passed"


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """While nothing is counted by another process."""
    fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


class Steps:
    """Counts in this process alone: what it forks is another."""

    def __init__(self, who: str) -> None:
        self._who, self._folder = who, Path(os.environ[STEPS])
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._inside = False

    def step(self, name: str) -> None:
        with self._lock:
            if self._inside or os.getpid() != self._pid:
                return
            self._inside = True
            try:
                with locked(self._folder):
                    self._count(name)
            finally:
                self._inside = False

    def _count(self, name: str) -> None:
        try:
            who, _, wanted = (self._folder / DIE).read_text().partition(" ")
        except FileNotFoundError:
            return
        if who != self._who:
            return
        with (self._folder / PASSED).open("a") as file:
            file.write(f"{name}\n")
        if wanted == "1" or (not wanted.isdigit() and wanted in name):
            (self._folder / DIE).rename(self._folder / DIED)
            os.kill(self._pid, signal.SIGKILL)
            signal.pause()
        if wanted.isdigit():
            (self._folder / DIE).write_text(f"{who} {int(wanted) - 1}")

    def around(self, owner: Any, name: str, label: Callable[..., str]) -> None:
        """Makes a function, or a method, of ``owner`` two steps."""
        function = getattr(owner, name)

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            what = label(*args)
            self.step(f"before {what}")
            result = function(*args, **kwargs)
            self.step(f"after {what}")
            return result

        setattr(owner, name, wrapper)

    def around_async(self, owner: Any, name: str, label: Callable[..., str]) -> None:
        """As ``around``, of a coroutine. What has no label is no step."""
        function = getattr(owner, name)

        @functools.wraps(function)
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            what = label(*args)
            if not what:
                return await function(*args, **kwargs)
            self.step(f"before {what}")
            result = await function(*args, **kwargs)
            self.step(f"after {what}")
            return result

        setattr(owner, name, wrapper)

    def heard(self, event: str, args: tuple[Any, ...]) -> None:
        """An audit event of Python's."""
        if event in FILES and args:
            self.step(f"{event} {args[0]}")


def watch(steps: Steps) -> None:
    """Makes steps of what changes anything outside of this process."""
    from engine.api.rpc import Connection
    from engine.common.system import linux
    from server.networks.netlink.rtnetlink import Netlink
    from server.networks.nftables.firewall import Firewall
    from server.store.database import Database

    def method(_self: object, name: str, *_: object) -> str:
        return "" if name.rpartition("/")[2].startswith(LOOKS) else name

    steps.around_async(Connection, "call", method)
    steps.around_async(Database, "write", lambda *_: "write")
    steps.around(Netlink, "run", lambda *_: "netlink")
    steps.around(Firewall, "_apply", lambda *_: "rules")
    steps.around(linux, "mount", lambda _source, target, *_: f"mount {target}")
    steps.around(linux, "umount", lambda target, *_: f"umount {target}")
    sys.addaudithook(steps.heard)


def watch_supervisor(steps: Steps) -> None:
    """The same of a supervisor."""
    from engine.common.system import linux
    from engine.supervisor.shims import ShimClient
    from engine.supervisor.store.database import Database

    steps.around_async(ShimClient, "call", lambda _self, operation, *_: f"shim {operation}")
    steps.around_async(Database, "write", lambda *_: "write")
    steps.around(linux, "mount", lambda _source, target, *_: f"mount {target}")
    steps.around(linux, "umount", lambda target, *_: f"umount {target}")
    sys.addaudithook(steps.heard)


def supervisor() -> int:
    from engine.supervisor import __main__

    serve = __main__.serve

    def watched(**options: Any) -> int:
        # The zygote is forked by then; what is imported here is imported anyway.
        start = zygote.start

        def started(**more: int) -> zygote.Handle:
            handle = start(**more)
            watch_supervisor(Steps("supervisor"))
            return handle

        zygote.start = started
        return serve(**options)

    __main__.serve = watched
    return __main__.main(sys.argv[2:])


def _spawn_alike() -> None:
    """A supervisor that wharfd starts again is one that dies."""
    spawn = os.posix_spawn

    def other(path: str, argv: list[str], env: Mapping[str, str], **more: Any) -> int:
        if "engine.supervisor" in argv:
            argv = [*argv[:2], "compat_tests.endurance.dying", "supervisor", *argv[3:]]
        return spawn(path, argv, env, **more)

    os.posix_spawn = other  # type: ignore[assignment]


def main() -> int:
    if sys.argv[1:2] == ["supervisor"]:
        return supervisor()
    handle = zygote.start()
    try:
        from server.boot import boot

        _spawn_alike()
        watch(Steps("wharfd"))
        return boot(sys.argv[1:], handle)
    finally:
        handle.close()


if __name__ == "__main__":
    sys.exit(main())
