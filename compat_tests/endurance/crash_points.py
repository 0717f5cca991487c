"""``python -m compat_tests.endurance.crash_points``: runs wharfd like ``python -m server``, and kills it, or the
supervisor that it has restarted, at a chosen step.

A step is a call of the engine or of a shim, a change of the kernel's mounts, network or firewall, a database write
(each before and after), or a change of the file system (before). The directory in ``STEPS`` has the file ``die`` with
"wharfd" or "supervisor" and a number, or a part of a step's name. That process kills itself (SIGKILL) at this step,
counted from then on, or at the first step of that name, and renames the file to ``died`` before. Without the file
nothing is counted. The names of counted steps are appended to ``passed``. ``lock`` is locked (flock) meanwhile.
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

#: The environment variable with the directory.
STEPS = "WHARF_TEST_STEPS"
FILES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.chown", "shutil.rmtree")
#: Prefixes of the method names of engine calls that change nothing.
LOOKS = ("Get", "List", "Stat", "Info", "Usage", "Version", "Wait", "Metrics", "Walk", "Status", "Read", "Check")

DIE, DIED, PASSED = "die", "died", "passed"


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock out the counting of other processes."""
    fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


class Steps:
    """Counts in this process only, not in forked ones."""

    def __init__(self, process: str) -> None:
        self._process, self._folder = process, Path(os.environ[STEPS])
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
            process, _, step = (self._folder / DIE).read_text().partition(" ")
        except FileNotFoundError:
            return
        if process != self._process:
            return
        with (self._folder / PASSED).open("a") as file:
            file.write(f"{name}\n")
        if step == "1" or (not step.isdigit() and step in name):
            (self._folder / DIE).rename(self._folder / DIED)
            os.kill(self._pid, signal.SIGKILL)
            signal.pause()
        if step.isdigit():
            (self._folder / DIE).write_text(f"{process} {int(step) - 1}")

    def around(self, owner: Any, name: str, label: Callable[..., str]) -> None:
        """Make a function, or a method, of ``owner`` two steps."""
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
        """As ``around``, for a coroutine. A call without a label is no step."""
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

    def on_audit_event(self, event: str, args: tuple[Any, ...]) -> None:
        """Handle an audit event of Python."""
        if event in FILES and args:
            self.step(f"{event} {args[0]}")


def watch(steps: Steps) -> None:
    """Make every change outside of this process a step."""
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
    sys.addaudithook(steps.on_audit_event)


def watch_supervisor(steps: Steps) -> None:
    """The same for a supervisor."""
    from engine.common.system import linux
    from engine.supervisor.shims import ShimClient
    from engine.supervisor.store.database import Database

    steps.around_async(ShimClient, "call", lambda _self, operation, *_: f"shim {operation}")
    steps.around_async(Database, "write", lambda *_: "write")
    steps.around(linux, "mount", lambda _source, target, *_: f"mount {target}")
    steps.around(linux, "umount", lambda target, *_: f"umount {target}")
    sys.addaudithook(steps.on_audit_event)


def supervisor() -> int:
    from engine.supervisor import __main__

    serve = __main__.serve

    def watched(**options: Any) -> int:
        # The zygote is forked by then, so these imports don't affect it.
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
    """Make wharfd restart its supervisor as one that dies."""
    spawn = os.posix_spawn

    def other(path: str, argv: list[str], env: Mapping[str, str], **more: Any) -> int:
        if "engine.supervisor" in argv:
            argv = [*argv[:2], "compat_tests.endurance.crash_points", "supervisor", *argv[3:]]
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
