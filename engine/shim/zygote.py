"""The zygote: a small, preloaded interpreter that forks a shim in two milliseconds.

``start`` is called first in the supervisor, while there is one thread and little is imported: the zygote is then a
fork that shares its pages. Where that is impossible, a new interpreter is executed. The zygote lives as long as the
supervisor's end of the socket pair is open; shims outlive it, and the next supervisor starts its own zygote (so shims
always run the code of the supervisor that started them).
"""

import contextlib
import gc
import os
import signal
import socket
import sys
import threading
from typing import NamedTuple

from engine.shim import protocol
from engine.shim.immortal import immortalize
from engine.shim.iohost import IoHost
from engine.shim.kernel import cgroups, devices, processes
from engine.shim.protocol import ProtocolError, text
from engine.shim.shim import Shim


class Handle(NamedTuple):
    """The supervisor's side; the owner of ``sock`` closes it to end the zygote, and reaps ``pid``."""

    pid: int
    sock: socket.socket

    def close(self) -> None:
        """Ends the zygote; shims continue. Blocks until it has exited; a second call does nothing."""
        if self.sock.fileno() >= 0:
            self.sock.close()
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.pid, 0)


def start(*, nofile: int = 0) -> Handle:
    """Starts the zygote. Blocks for a few milliseconds. ``nofile``: the soft limit of descriptors for shims, and so for
    containers, if this process has raised its own."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    if len(os.listdir("/proc/self/task")) > 1:
        pid = _execute(theirs, nofile)
    else:
        immortalize()
        pid = os.fork()
        if not pid:
            ours.close()
            _run_zygote(theirs, nofile)
    theirs.close()
    return Handle(pid, ours)


def _execute(sock: socket.socket, nofile: int) -> int:
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        program = f"import sys; sys.path.insert(0, {root!r}); from engine.shim.zygote import main; main()"
        return os.posix_spawn(
            sys.executable,
            [sys.executable, "-SsE", "-c", program, str(nofile)],
            # The deadlines of a forked zygote.
            {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
            | {name: value for name, value in os.environ.items() if name in ("PATH", "WHARF_TIMEOUTS")},
            file_actions=[
                (os.POSIX_SPAWN_DUP2, null, 0),
                (os.POSIX_SPAWN_DUP2, null, 1),
                (os.POSIX_SPAWN_DUP2, 2, 2),
                (os.POSIX_SPAWN_DUP2, sock.fileno(), 3),
            ],
        )
    finally:
        os.close(null)


def main() -> None:
    """Entry point in a new interpreter: the socket is descriptor 3."""
    immortalize()
    _run_zygote(socket.socket(fileno=3), int(sys.argv[1]))


def _run_zygote(sock: socket.socket, nofile: int) -> None:
    """Runs the zygote. Never returns."""
    status = 1
    try:
        _prepare(sock, nofile)
        _forget_threads()
        # The collector never visits the existing objects again: their pages stay shared.
        gc.freeze()
        _serve(sock)
        status = 0
    except BaseException as error:
        os.write(2, f"wharf-zygote: {error!r}\n".encode())
    finally:
        os._exit(status)


def _prepare(sock: socket.socket, nofile: int) -> None:
    os.setsid()
    if nofile:
        import resource  # imported here only

        resource.setrlimit(resource.RLIMIT_NOFILE, (nofile, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # Signals are meant for the daemons: containers continue. The zygote ends with its socket.
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.set_wakeup_fd(-1)
    keep = sock.fileno()
    os.closerange(3, keep)
    os.closerange(keep + 1, os.sysconf("SC_OPEN_MAX") if os.sysconf("SC_OPEN_MAX") < 65536 else 65536)
    null = devices.sealed_null()  # inherited by shims, and reopened for containers
    os.dup2(null, 0)
    os.dup2(null, 1)
    if null > 2:
        os.close(null)
    os.chdir("/")
    os.umask(0o022)
    processes.set_name("wharf-zygote")
    cgroups.leave_service()


def _forget_threads() -> None:
    """Removes the fork handler of ``threading``, which reinitializes its locks in every child. With one thread they are
    valid; the handler would write to a hundred pages of each shim, 0.4 MiB that would not be shared."""
    hook = getattr(threading, "_after_fork", None)
    if hook is not None:
        hook.__code__ = (lambda: None).__code__


def _serve(sock: socket.socket) -> None:
    """Forks, and does little else: shims don't share a page that is written here between two forks. So a child reads
    its own request (one small write, which arrives whole; the next one follows its answer), and the kernel reaps
    (SIGCHLD is ignored)."""
    fork, receive = os.fork, sock.recvmsg
    space = socket.CMSG_SPACE(protocol.MAX_FDS * 4)
    while True:
        data, ancillary, _flags, _address = receive(65536, space, socket.MSG_CMSG_CLOEXEC)
        if not data:
            return
        try:
            pid = fork()
        except OSError as error:
            refusal = {"kind": "internal", "message": f"fork: {error.strerror}"}
            protocol.send_blocking(sock, {"error": refusal})
            pid = -1
        if not pid:
            _child(sock, data, [fd for _level, _kind, payload in ancillary for fd in memoryview(payload).cast("i")])
        for _level, _kind, payload in ancillary:
            for fd in memoryview(payload).cast("i"):
                os.close(fd)


def _child(zygote: socket.socket, data: bytes, fds: list[int]) -> None:
    """The forked process: becomes a shim or an I/O host. Never returns."""
    status = 1
    try:
        protocol.send_blocking(zygote, {"pid": os.getpid()})
        zygote.close()
        os.setsid()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        ((message, _tail),) = protocol.Decoder().feed(data)
        bundle = text(message, "bundle")
        os.chdir(bundle)
        os.dup2(0, 2)
        control = socket.socket(fileno=fds.pop())
        if text(message, "what") == "shim":
            processes.set_name("wharf-shim")
            processes.become_subreaper()
            Shim(bundle, control).loop.run()
        elif text(message, "what") == "iohost":
            processes.set_name("wharf-iohost")
            IoHost(bundle, control).loop.run()
        else:
            raise ProtocolError("the zygote starts only shims and I/O hosts")
        status = 0
    except BaseException as error:
        _log_error(error)
    finally:
        os._exit(status)


def _log_error(error: BaseException) -> None:
    try:
        with open("shim.log", "a") as file:
            file.write(f"{error!r}\n")
    except OSError:
        pass
