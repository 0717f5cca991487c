"""Runs the member of this node as a child of wharfd, and starts it again when it ends.

The member ends with wharfd, also when wharfd is killed: the kernel signals it (``program.argv``). The lock file in the
runtime directory shows whether a member lives: each member inherits a descriptor with the lock, which is released when
its process ends. A new wharfd ends such a member first. So a data directory never has two, and none is unsupervised.
"""

import asyncio
import contextlib
import errno
import fcntl
import logging
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from enum import Enum
from pathlib import Path

from engine.common import timeouts
from engine.common.errors import Kind, WharfError
from engine.common.system import private
from server.swarm.etcd.output import LINE, Output
from server.swarm.etcd.program import SOCKET, MemberOptions, Pems, Program, argv, environment, find
from server.swarm.store.channel import call, open_channel
from server.swarm.store.pb import etcd_pb2 as pb

log = logging.getLogger(__name__)

timeouts.define("swarm.etcd-start", 30.0)  # until the member answers; it may read much from its disk
timeouts.define("swarm.etcd-stop", 10.0)  # it moves its leadership to another member and closes its files

#: Seconds between an unexpected end and the next start: the first pause, and the longest. After a run that was longer
#: than the longest pause, it begins again.
_PAUSE, _LONGEST = 0.2, 30.0
_LOOK = 0.05  # seconds between two attempts to get the lock: flock has no timeout
_LOCK = "etcd.lock"
#: Where etcd has its log and its database, below the data directory.
_MEMBER = "member"
#: The names of a member's process: setpriv becomes etcd.
_NAMES = ("etcd", "setpriv")


class Status(Enum):
    STARTING = "starting"
    SERVING = "serving"
    #: It ended unexpectedly, and starts again.
    ENDED = "ended"
    #: The cluster has removed it. It is not started again; its data is of no use.
    REMOVED = "removed"
    CLOSED = "closed"


class EtcdChild:
    """Call ``start``, then ``serving``; ``close`` at the end. Belongs to one event loop, on the thread that lives as
    long as the process."""

    def __init__(self, options: MemberOptions, pems: Pems) -> None:
        self._options = options
        self._pems = pems
        self._output = Output(options.name)
        self._status = Status.CLOSED
        self._changed = asyncio.Condition()
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None
        self._force_new = options.force_new
        #: Its data is of a start that has not succeeded: nobody has relied on it.
        self._fresh = False
        #: Its data is to be removed before the next start.
        self._discard = False
        #: The roots that the process has read.
        self._roots = pems.roots
        #: It is to start again at once.
        self._restarts = False

    @property
    def status(self) -> Status:
        return self._status

    @property
    def endpoint(self) -> str:
        return self._options.endpoint

    @property
    def pid(self) -> int | None:
        """None: no process lives now."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def start(self, *, discard: bool = False) -> None:
        """Starts the member, and does not wait for it. ``discard``: removes its data first, which is of an earlier
        attempt to make this member; so a member must begin that has never served, because its log may be incomplete.

        :raises WharfError: FAILED_PRECONDITION: etcd is not installed, or too old.
        """
        program = await find()
        self._fresh = await asyncio.to_thread(_prepare, self._options, self._pems) or discard
        self._discard = discard
        await self._become(Status.STARTING)
        self._task = asyncio.create_task(self._supervise(program), name="swarm-etcd")

    async def serving(self, seconds: float | None = None) -> None:
        """Waits until the member answers, for at most ``seconds`` (None: as ``swarm.etcd-start``). It may be a learner,
        or without a leader.

        :raises WharfError: UNAVAILABLE: it does not answer in time. FAILED_PRECONDITION: the cluster has removed it.
        """
        limit = timeouts.seconds("swarm.etcd-start") if seconds is None else seconds
        try:
            async with asyncio.timeout(limit), self._changed:
                await self._changed.wait_for(lambda: self._status in (Status.SERVING, Status.REMOVED, Status.CLOSED))
        except TimeoutError:
            reason = f": {self._output.last}" if self._output.last else ""
            raise WharfError(Kind.UNAVAILABLE, f"etcd does not serve after {limit:g} s{reason}") from None
        if self._status is Status.REMOVED:
            raise WharfError(Kind.FAILED_PRECONDITION, "this node's member of etcd was removed from the cluster")
        if self._status is Status.CLOSED:
            raise WharfError(Kind.UNAVAILABLE, "etcd was stopped")

    async def removed(self) -> None:
        """Waits until the cluster has removed the member."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._status is Status.REMOVED)

    async def renew(self, pems: Pems) -> bool:
        """Uses another certificate, which etcd reads for each new connection. Returns whether it must be started again:
        it reads other roots only at its start."""
        await asyncio.to_thread(_write_pems, self._options.runtime, pems)
        self._pems = pems
        return self._roots != pems.roots

    async def restart(self) -> None:
        """Ends the process; returns when the next one serves.

        :raises WharfError: as ``serving``.
        """
        process = self._process
        if process is not None and process.returncode is None:
            self._restarts = self._output.quiet = True
            await self._become(Status.STARTING)
            await _end(process)
        await self.serving()

    async def close(self) -> None:
        """Ends the member. Its data stays, the PEM files don't."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        await self._become(Status.CLOSED)
        await asyncio.to_thread(_remove_pems, self._options.runtime)

    async def _become(self, status: Status) -> None:
        async with self._changed:
            self._status = status
            self._changed.notify_all()

    async def _supervise(self, program: Program) -> None:
        pause = _PAUSE
        while True:
            began = time.monotonic()
            try:
                ended = await self._run(program)
            except OSError as error:
                ended = str(error)
            if self._output.removed:
                log.error("the swarm has removed this node's member of etcd: %s", self._options.name)
                await self._become(Status.REMOVED)
                return
            await self._become(Status.ENDED)
            # etcd that ends between the creation of its log and the first entry can't use the log any more.
            self._discard = self._fresh
            if self._restarts:
                self._restarts = False
                continue
            if time.monotonic() - began > _LONGEST:
                pause = _PAUSE
            log.error("etcd has ended unexpectedly (%s); it starts again in %g s", ended, pause)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST)

    async def _run(self, program: Program) -> str:
        """One life of the member; returns how it ended."""
        options = self._options
        lock = await _lock(options.runtime / _LOCK)
        try:
            if self._discard:
                with contextlib.suppress(FileNotFoundError):
                    await asyncio.to_thread(shutil.rmtree, options.data / _MEMBER)
                self._discard = False
            with contextlib.suppress(FileNotFoundError):
                (options.runtime / SOCKET).unlink()
            self._output.quiet = False
            self._roots = self._pems.roots
            process = await asyncio.create_subprocess_exec(
                *argv(program, options, force_new=self._force_new),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=environment(program),
                cwd=str(options.runtime),
                pass_fds=(lock,),
                start_new_session=True,
                limit=LINE,
            )
        finally:
            os.close(lock)
        self._process = process
        assert process.stderr is not None
        reading = asyncio.create_task(self._output.read(process.stderr), name="swarm-etcd-output")
        probe = asyncio.create_task(self._probe(), name="swarm-etcd-probe")
        try:
            status = await process.wait()
        finally:
            probe.cancel()
            if process.returncode is None:
                self._output.quiet = True
                await asyncio.shield(_end(process))
            await asyncio.gather(probe, return_exceptions=True)
            # A process that inherited its standard error may live longer.
            await asyncio.wait([reading], timeout=1.0)
            reading.cancel()
        return f"signal {-status}" if status < 0 else f"exit status {status}"

    async def _probe(self) -> None:
        """Notices when the member serves."""
        async with open_channel(self.endpoint, None) as channel:
            while True:
                try:
                    await call(channel, "Maintenance/Status", pb.StatusRequest(), pb.StatusResponse)
                except WharfError:
                    await asyncio.sleep(_LOOK)
                else:
                    break
        self._force_new = self._fresh = False
        await asyncio.to_thread(_remove_broken, self._options.data)
        await self._become(Status.SERVING)


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(timeouts.seconds("swarm.etcd-stop")):
            await process.wait()
    except TimeoutError:
        log.warning("etcd (process %d) does not end and is killed", process.pid)
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


# files and processes


def _prepare(options: MemberOptions, pems: Pems) -> bool:
    """Returns whether there is no data yet."""
    private.restrict_directory(options.data)
    private.restrict_directory(options.runtime)
    _write_pems(options.runtime, pems)
    return not (options.data / _MEMBER).exists()


def _remove_broken(data: Path) -> None:
    """Removes the copies that etcd makes of its log (64 MB) before it cuts off a record that was not finished, as on a
    full disk (wal.Repair). It never reads them."""
    for path in data.glob(f"{_MEMBER}/wal/*.broken"):
        path.unlink(missing_ok=True)


def _pems_of(pems: Pems) -> dict[str, str]:
    return {"peer.pem": pems.certificate, "peer-key.pem": pems.key, "roots.pem": pems.roots}


def _write_pems(directory: Path, pems: Pems) -> None:
    for name, text in _pems_of(pems).items():
        new = directory / (name + ".new")
        private.make_file(new)
        new.write_text(text)
        new.rename(directory / name)


def _remove_pems(directory: Path) -> None:
    for name in _pems_of(Pems("", "", "")):
        (directory / name).unlink(missing_ok=True)


async def _lock(path: Path) -> int:
    """A descriptor with the lock, after the end of a member that an earlier wharfd has left."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        for number in (signal.SIGTERM, signal.SIGKILL):
            if _locked(fd):
                return fd
            log.warning("etcd of an earlier wharfd still runs: it gets %s", number.name)
            await asyncio.to_thread(_signal_holders, fd, number)
            deadline = time.monotonic() + timeouts.seconds("swarm.etcd-stop")
            while time.monotonic() < deadline:
                if _locked(fd):
                    return fd
                await asyncio.sleep(_LOOK)
        raise TimeoutError(errno.ETIMEDOUT, "etcd of an earlier wharfd does not end", str(path))
    except BaseException:
        os.close(fd)
        raise


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _signal_holders(fd: int, number: signal.Signals) -> None:
    """Signals the processes of members that have inherited the lock."""
    wanted = os.fstat(fd)
    for pid in _processes():
        with contextlib.suppress(OSError):
            pidfd = os.pidfd_open(pid)
            try:
                # The pidfd is of the process that is checked now, or of one that has ended.
                if _has_open(pid, wanted) and not select.select([pidfd], [], [], 0)[0]:
                    signal.pidfd_send_signal(pidfd, number)
            finally:
                os.close(pidfd)


def _processes() -> Iterator[int]:
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                if Path(f"/proc/{name}/comm").read_text().strip() in _NAMES:
                    yield int(name)


def _has_open(pid: int, wanted: os.stat_result) -> bool:
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            found = os.stat(f"/proc/{pid}/fd/{name}")
            if (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino):
                return True
    return False
