"""Runs a real shim with a real runtime, and a root file system made of the static busybox."""

import contextlib
import errno
import json
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from engine.shim import protocol, zygote
from engine.shim.protocol import Json
from engine.shim.runtime.oci import Runtime

#: Seconds; long enough for a loaded machine.
PATIENCE = 60.0
_APPLETS = (
    "sh",
    "echo",
    "cat",
    "sleep",
    "true",
    "false",
    "dd",
    "yes",
    "head",
    "seq",
    "printf",
    "kill",
    "ls",
    "stty",
    "tail",
)


def until(condition: Callable[[], object], what: str) -> None:
    """Polls until the condition holds."""
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"not within {PATIENCE:g} s: {what}")
        time.sleep(0.01)


def gone(pid: int) -> bool:
    """Whether there is no such process (a zombie that its new parent hasn't reaped counts as none)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def make_rootfs(path: Path) -> None:
    busybox = shutil.which("busybox")
    assert busybox is not None, "the tests need a static busybox"
    for name in ("bin", "proc", "dev", "sys", "tmp", "etc"):
        (path / name).mkdir(parents=True, exist_ok=True)
    shutil.copy(busybox, path / "bin/busybox")
    for applet in _APPLETS:
        (path / "bin" / applet).symlink_to("busybox")


def spec(rootfs: Path, args: Sequence[str], *, terminal: bool = False, cgroup: str = "", memory: int = 0) -> Json:
    """A minimal OCI spec."""
    capabilities = ["CAP_CHOWN", "CAP_KILL", "CAP_SETUID", "CAP_SETGID"]
    linux: Json = {
        "namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts", "network")],
        "resources": {"memory": {"limit": memory, "swap": memory}} if memory else {},
    }
    if cgroup:
        linux["cgroupsPath"] = cgroup
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": terminal,
            "user": {"uid": 0, "gid": 0},
            "args": list(args),
            "env": ["PATH=/bin"],
            "cwd": "/",
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), capabilities),
        },
        "root": {"path": str(rootfs), "readonly": False},
        "hostname": "test",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
            {
                "destination": "/dev/pts",
                "type": "devpts",
                "source": "devpts",
                "options": ["newinstance", "ptmxmode=0666"],
            },
        ],
        "linux": linux,
    }


def remove_cgroups() -> None:
    """Removes the directory of all tests' cgroups in each hierarchy; one that another run uses stays."""
    root = Path("/sys/fs/cgroup")
    for path in (root / "wharf-test", *root.glob("*/wharf-test")):
        with contextlib.suppress(OSError):
            path.rmdir()


class Refused(Exception):
    def __init__(self, error: Json) -> None:
        super().__init__(str(error["message"]))
        self.kind = error["kind"]


class Client:
    """An attached client: our end of a socket pair, and the connection that reports the end."""

    def __init__(self, sock: socket.socket, connection: socket.socket) -> None:
        self.sock = sock
        self.connection = connection
        sock.settimeout(PATIENCE)
        connection.settimeout(PATIENCE)

    def read_all(self) -> bytes:
        data = bytearray()
        while chunk := self.sock.recv(1 << 16):
            data += chunk
        return bytes(data)

    def read_exactly(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            chunk = self.sock.recv(size - len(data))
            assert chunk, f"ended after {bytes(data)!r}"
            data += chunk
        return bytes(data)

    def read_until(self, mark: bytes) -> bytes:
        data = bytearray()
        while mark not in data:
            chunk = self.sock.recv(1 << 16)
            assert chunk, f"ended after {bytes(data)!r}"
            data += chunk
        return bytes(data)

    def ended(self) -> str:
        received = protocol.receive_blocking(self.connection)
        assert received is not None, "the shim closed the connection"
        return str(received[0]["ended"])

    def close(self) -> None:
        self.sock.close()
        self.connection.close()


class Forked:
    """A fork of the zygote, shim or I/O host, with blocking requests as daemons send them, each with a deadline."""

    control_name = "shim.sock"

    def __init__(self, bundle: Path, control: socket.socket, pid: int) -> None:
        self.bundle = bundle
        self.shim_pid = pid
        self.stdio_path = bundle / "stdio.sock"
        self._control = control
        self._decoder = protocol.Decoder()
        self._frames: list[Json] = []
        self.events: list[Json] = []
        self._id = 0

    def reconnect(self) -> None:
        """Reconnects as a restarted supervisor does."""
        self._control.close()
        self._control = protocol.connect(str(self.bundle / self.control_name))
        self._control.settimeout(PATIENCE)
        self._decoder = protocol.Decoder()

    def _frame(self) -> Json:
        while not self._frames:
            data = self._control.recv(65536)
            if not data:
                raise EOFError("the shim closed the connection")
            self._frames.extend(message for message, _tail in self._decoder.feed(data))
        return self._frames.pop(0)

    def send(self, operation: str, **arguments: object) -> None:
        """Sends a request; ``answer`` returns its answer."""
        self._id += 1
        protocol.send_blocking(self._control, {"id": self._id, "op": operation, **arguments})

    def answer(self) -> Json:
        """The next answer, whichever request it belongs to."""
        while "event" in (frame := self._frame()):
            self.events.append(frame)
        return frame

    def ask(self, operation: str, **arguments: object) -> Json:
        self.send(operation, **arguments)
        while True:
            frame = self._frame()
            if "event" in frame:
                self.events.append(frame)
            elif frame["id"] == self._id:
                if "error" in frame:
                    raise Refused(protocol.mapping(frame, "error"))
                return protocol.mapping(frame, "ok")

    def event(self, kind: str, exec_id: str = "") -> Json:
        """Waits for an event of this kind, keeping others for later."""
        while True:
            for event in self.events:
                if event["event"] == kind and event.get("exec_id", "") == exec_id:
                    self.events.remove(event)
                    return event
            self.events.append(self._frame())

    def stdio(self, *, terminal: bool = False, **options: object) -> Json:
        return {
            "socket": str(self.stdio_path),
            "terminal": terminal,
            "options": {"driver": "none", **{key.replace("_", "-"): str(value) for key, value in options.items()}},
        }

    def attach(
        self,
        *,
        exec_id: str = "",
        stdin: bool = False,
        stdout: bool = True,
        stderr: bool = True,
        framed: bool = False,
        keys: bytes = b"",
        head: bytes = b"",
        early: bytes = b"",
    ) -> Client:
        ours, theirs = socket.socketpair()
        connection = protocol.connect(str(self.stdio_path))
        request = {
            "op": "attach",
            "exec_id": exec_id,
            "stdin": stdin,
            "stdout": stdout,
            "stderr": stderr,
            "framed": framed,
            "detach_keys": keys.hex(),
            "head": len(head),
        }
        data = protocol.encode(request, head + early)
        sent = protocol.send_with_fds(connection, data, [theirs.fileno()])
        connection.sendall(data[sent:])
        theirs.close()
        connection.settimeout(PATIENCE)
        received = protocol.receive_blocking(connection)
        assert received is not None
        if "error" in received[0]:
            ours.close()
            connection.close()
            raise Refused(protocol.mapping(received[0], "error"))
        assert received[0] == {"handed": True}
        return Client(ours, connection)


class Container(Forked):
    """One shim and its container."""

    def __init__(self, shims: "Shims", identity: str, bundle: Path, control: socket.socket, pid: int) -> None:
        super().__init__(bundle, control, pid)
        self.id = identity
        self.init_pid = 0
        self._shims = shims

    def create(self, *, stdio: Json | None = None) -> int:
        reply = self.ask(
            "create", container=self.id, runtime=self._shims.runtime.to_json(), stdio=stdio or self.stdio()
        )
        self.init_pid = int(str(reply["pid"]))
        return self.init_pid

    def exit(self) -> int:
        """Waits for the first process's exit; returns its status."""
        return int(str(self.event("exit")["status"]))

    def delete(self) -> None:
        self.ask("delete")

    def end(self) -> None:
        """Removes everything, whatever the container's state."""
        self._control.close()
        with contextlib.suppress(ProcessLookupError):
            if not gone(self.shim_pid):
                os.kill(self.shim_pid, signal.SIGKILL)
        until(lambda: gone(self.shim_pid), "the shim is gone")
        if self.init_pid and not gone(self.init_pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.init_pid, signal.SIGKILL)
        run(self._shims.runtime.delete(self.id, force=True))


def run(argv: Sequence[str]) -> None:
    """Runs a program to its end, without its output."""
    null = os.open(os.devnull, os.O_RDWR)
    try:
        pid = os.posix_spawn(
            argv[0], list(argv), dict(os.environ), file_actions=[(os.POSIX_SPAWN_DUP2, null, n) for n in range(3)]
        )
    finally:
        os.close(null)
    os.waitpid(pid, 0)


class Shims:
    """A zygote and the containers of one test."""

    def __init__(self, directory: Path, runtime_name: str) -> None:
        self.directory = directory
        self.rootfs = directory / "rootfs"
        make_rootfs(self.rootfs)
        path = shutil.which(runtime_name)
        assert path is not None
        self.runtime = Runtime(runtime_name, path, str(directory / "runtime"))
        self.zygote = zygote.start()
        self.containers: list[Container] = []

    def restart_zygote(self) -> None:
        self.stop_zygote()
        self.zygote = zygote.start()

    def stop_zygote(self) -> None:
        self.zygote.sock.close()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.zygote.pid, 0)

    def container(self, *args: str, terminal: bool = False, memory: int = 0) -> Container:
        """A bundle and its shim; no container is created yet."""
        identity = f"t{os.getpid()}-{time.monotonic_ns():x}"
        bundle = self.directory / identity
        bundle.mkdir()
        config = spec(self.rootfs, args, terminal=terminal, cgroup=f"/wharf-test/{identity}", memory=memory)
        (bundle / "config.json").write_text(json.dumps(config))
        ours, theirs = socket.socketpair()
        protocol.send_blocking(self.zygote.sock, {"what": "shim", "bundle": str(bundle)}, [theirs.fileno()])
        theirs.close()
        received = protocol.receive_blocking(self.zygote.sock)
        assert received is not None
        ours.settimeout(PATIENCE)
        container = Container(self, identity, bundle, ours, int(str(received[0]["pid"])))
        self.containers.append(container)
        return container

    def close(self) -> None:
        for container in self.containers:
            container.end()
        self.stop_zygote()


@contextlib.contextmanager
def shims(directory: Path, runtime_name: str) -> Iterator[Shims]:
    made = Shims(directory, runtime_name)
    try:
        yield made
    finally:
        made.close()
        remove_cgroups()


def room_for(size: int) -> Callable[[int, bytes], int]:
    """An ``os.write`` of a disk that has space for that many bytes."""
    write, room = os.write, [size]

    def full(fd: int, data: bytes) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, "no space")
        done = write(fd, data[: room[0]])
        room[0] -= done
        return done

    return full
