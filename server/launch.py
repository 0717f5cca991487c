"""Starts the processes below wharfd, in an order that saves memory.

1. The zygote, forked while this process is small (:mod:`server.__main__`): shims are forks of it and share its pages.
2. The supervisor, forked from this process after the modules that both use are imported and before the first thread,
   so that both daemons share those pages. It has a session of its own and survives a wharfd that is killed.

A supervisor that already serves on its socket is reused (after a crash of wharfd), unless wharfd was upgraded since
(then its modules are gone from the disk) or has other options for it: then it is replaced. A supervisor that dies under
a running wharfd is restarted as a fresh process, because this one has threads then.
"""

import contextlib
import logging
import os
import resource
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path

from engine.common import timeouts
from engine.common.system import installation, private, rootlock
from engine.shim import zygote
from engine.shim.immortal import immortalize
from server.config import Config

log = logging.getLogger(__name__)


# After a shorter life than this many seconds, a supervisor is restarted with a delay, which doubles.
_STABLE = 30.0
_PAUSE = 0.1
_LOOK = 0.05  # seconds between two checks for a socket that does not exist yet
# The most restarts of a supervisor that is killed while it starts.
_STARTS = 3


class StartError(Exception):
    """The supervisor can't be started."""


def _peer(address: Path) -> int | None:
    """Return the pid of the process that listens on the socket, or ``None``."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(timeouts.seconds("engine.connect"))
        try:
            probe.connect(str(address))
            credentials = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        except OSError:
            return None
    pid: int = struct.unpack("iII", credentials)[0]
    return pid


class Supervisor:
    """The embedded supervisor, as wharfd manages it. Created and launched before the event loop."""

    def __init__(self, config: Config) -> None:
        self.root = config.data_root / "containerd"
        self.state = config.exec_root / "containerd"
        self.address = self.state / "containerd.sock"
        # The identity of the installation that the supervisor was started from.
        self._origin = self.state / "installation"
        self.pid = 0
        # The present limit, which containers inherit: wharfd raises its own later.
        self._nofile = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        level = "debug" if config.debug else config.log_level
        self._log_level = level if level in ("debug", "info", "warning", "error") else "info"
        self._proxies = config.proxy_snapshotters
        self._drop_blobs = config.drops_blobs
        self._started_here = False
        self._pidfd = -1
        # The pipe on which a forked supervisor reports that it serves.
        self._ready = -1
        self._zygote: zygote.Handle | None = None
        self._ending = False
        #: Deaths since :meth:`watch` started.
        self.deaths = 0

    def _find_running(self) -> int | None:
        """Return the pid of a serving supervisor, or ``None``.

        A supervisor that an earlier wharfd was starting holds the lock but has no socket yet: wait for it, and kill it
        if it does not serve in time.
        """
        lock, deadline = str(self.root / "lock"), time.monotonic() + timeouts.seconds("supervisor.start")
        waits = False
        while (found := _peer(self.address)) is None and (owner := rootlock.owner(lock)) is not None:
            if not waits:
                waits = True
                log.info("a supervisor (process %d) is starting or ending; waiting for it", owner)
            if time.monotonic() > deadline:
                self._take_over(lock, owner)
                return None
            time.sleep(_LOOK)
        return found

    def _take_over(self, lock: str, owner: int) -> None:
        """Kill the process that holds the lock and does not serve."""
        if not owner:
            return  # the next loop finds the new owner, or gets the lock
        self._adopt(owner)
        if rootlock.owner(lock) == owner:
            log.error("the supervisor (process %d) does not serve and is killed", owner)
            self.stop_blocking()
        elif self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1

    def launch(self, share: Callable[[], None], handle: zygote.Handle) -> None:
        """Find the supervisor or fork it. ``share`` imports the modules of both daemons, without starting threads; the
        supervisor gets the zygote of ``handle``, which is closed here."""
        found = self._find_running()
        if found is not None:
            self._adopt(found)
            if self._same_installation():
                log.info("the supervisor is already running as process %d", found)
                handle.close()
                share()
                return
            reason = "belongs to a replaced installation, or has other options"
            log.info("the supervisor (process %d) %s: restarting it", found, reason)
            self.stop_blocking()
        self._zygote = handle
        share()
        immortalize()
        self._fork(handle)
        handle.sock.close()

    def _fork(self, handle: zygote.Handle) -> None:
        ready, signalled = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(ready)
            _run_supervisor(self, handle, signalled)
        os.close(signalled)
        self._started(pid)
        self._ready = ready

    def await_ready(self) -> None:
        """Wait for the supervisor that :meth:`launch` has forked.

        :raises StartError: it exited, or did not serve in time.
        """
        ready, self._ready = self._ready, -1
        if ready < 0:
            return
        poll = select.poll()
        poll.register(ready, select.POLLIN | select.POLLHUP)
        try:
            answered = poll.poll(timeouts.seconds("supervisor.start") * 1000)
            if answered and os.read(ready, 1):
                return
        finally:
            os.close(ready)
        for _ in range(_STARTS):
            status = self._status()
            if status is None or not os.WIFSIGNALED(status):
                break
            log.error("the supervisor (process %d) was killed while it started; starting it again", self.pid)
            self._reap()
            self._spawn()
            if self._wait_ready():
                return
        self.stop_blocking()
        raise StartError("the supervisor did not start: see its log messages above")

    def _status(self) -> int | None:
        """Return its wait status; ``None`` if it has not exited."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        return status if pid else None

    def _wait_ready(self) -> bool:
        """Wait until a spawned supervisor accepts connections; ``False`` if it exited or the time is up."""
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        deadline = time.monotonic() + timeouts.seconds("supervisor.start")
        while time.monotonic() < deadline:
            if _peer(self.address) == self.pid:
                return True
            if poll.poll(_LOOK * 1000):
                return False
        return False

    def _adopt(self, pid: int) -> None:
        self.pid = pid
        with contextlib.suppress(ProcessLookupError):
            self._pidfd = os.pidfd_open(pid)

    def _started(self, pid: int) -> None:
        self._started_here = True
        self._adopt(pid)
        private.make_directory(self.state, private.PASSABLE)
        private.make_file(self._origin)
        self._origin.write_text(self._identity())

    def _identity(self) -> str:
        """The installation and the options that a running supervisor can't change."""
        return " ".join((installation.identity(), *self._options()))

    def _options(self) -> list[str]:
        options = [f"--proxy-snapshotter={name}={address}" for name, address in self._proxies.items()]
        return [*options, "--drop-blobs"] if self._drop_blobs else options

    def _same_installation(self) -> bool:
        """Whether it belongs to this installation and has our options. One that an administrator started has no record,
        and is accepted."""
        try:
            return self._origin.read_text() == self._identity()
        except FileNotFoundError:
            return True

    @property
    def started_here(self) -> bool:
        """Whether this run of wharfd started it."""
        return self._started_here

    async def watch(self) -> None:
        """Restart the supervisor whenever it dies. Runs until cancelled; the client reconnects."""
        import asyncio  # imported here and below, to keep it out of the zygote and the shims

        loop = asyncio.get_running_loop()
        pause = _PAUSE
        while True:
            since = loop.time()
            await self._wait_exit()
            if self._ending:
                return
            self.deaths += 1
            log.error("the supervisor (process %d) has died; restarting it", self.pid)
            self._reap()
            if loop.time() - since < _STABLE:
                await asyncio.sleep(pause)
                pause = min(pause * 2, _STABLE)
            else:
                pause = _PAUSE
            self._spawn()

    async def _wait_exit(self) -> None:
        if self._pidfd < 0:
            return
        import asyncio

        loop = asyncio.get_running_loop()
        over = asyncio.Event()
        loop.add_reader(self._pidfd, over.set)
        try:
            await over.wait()
        finally:
            loop.remove_reader(self._pidfd)

    def _reap(self) -> None:
        os.close(self._pidfd)
        self._pidfd = -1
        for pid in (self.pid, self._zygote.pid if self._zygote is not None else 0):
            if pid:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)

    def _spawn(self) -> None:
        """Start a fresh process in a session of its own."""
        arguments = ["--root", str(self.root), "--state", str(self.state), "--log-level", self._log_level]
        if self._nofile > 0:
            arguments += ["--nofile", str(self._nofile)]
        arguments += self._options()
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, "-m", "engine.supervisor", *arguments],
            {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            setsid=True,
        )
        self._started(pid)

    def signal(self, number: int) -> None:
        """Signal the supervisor by pidfd, so that a reused pid is never signalled."""
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    def stop_blocking(self) -> None:
        """Stop the supervisor, with SIGKILL if needed; containers continue with their shims."""
        self._ending = True
        if self._pidfd < 0:
            return
        self.signal(signal.SIGTERM)
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        if not poll.poll(timeouts.seconds("supervisor.stop") * 1000):
            log.error("the supervisor does not stop and is killed")
            self.signal(signal.SIGKILL)
            poll.poll(timeouts.seconds("supervisor.stop") * 1000)
        self._reap()
        self._ending = False

    async def stop(self) -> None:
        """:meth:`stop_blocking`, off the loop."""
        import asyncio

        self._ending = True
        await asyncio.to_thread(self.stop_blocking)


def _close_all_but(*keep: int) -> None:
    """Close wharfd's listening sockets and files in the supervisor."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) not in keep:
            # The descriptor of the directory listing itself is closed already.
            with contextlib.suppress(OSError):
                os.close(int(name))


def _run_supervisor(supervisor: Supervisor, handle: zygote.Handle, signalled: int) -> None:
    """Run the supervisor in the forked child; never returns."""
    status = 1

    def _report_ready() -> None:
        # A wharfd that was killed does not read it; the next one finds the socket.
        with contextlib.suppress(BrokenPipeError):
            os.write(signalled, b"1")
        os.close(signalled)

    try:
        os.setsid()
        _close_all_but(handle.sock.fileno(), signalled)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        logging.getLogger().handlers.clear()
        from engine.supervisor.server import run  # after the fork: only this process needs these modules

        status = run(
            root=str(supervisor.root),
            state=str(supervisor.state),
            address=str(supervisor.address),
            log_level=supervisor._log_level,
            drop_blobs=supervisor._drop_blobs,
            handle=handle,
            ready=_report_ready,
            proxies=supervisor._proxies,
        )
    except BaseException as error:
        print(f"wharf-supervisor: {error!r}", file=sys.stderr)  # noqa: T201
    finally:
        os._exit(status)
