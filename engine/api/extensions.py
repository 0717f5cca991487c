"""Extensions of containerd's API by our supervisor and shims: one capability, declared by the server.

The supervisor lists a plugin of the type ``wharf.extensions.v1`` in its answer to Introspection.Plugins. A client asks
for it once, in ``Engine.connect``. A stock containerd has no such plugin, and every extension is only a shorter way to
a result of containerd's own calls, which are made where the plugin, or a part of it, is missing:

=====================  =================================================================================
capability             the calls that it replaces
=====================  =================================================================================
``blob-descriptors``   the data of Content.Write and Content.Read
``apply-ingest``       Diff.Apply after Content.Write has committed the layer
``run-exec``           Tasks.Exec, Tasks.Start, the event ``/tasks/exit``, Tasks.DeleteProcess
=====================  =================================================================================

``blob-descriptors``: the plugin's export ``descriptors`` is the path of a unix socket. A connection carries one
request, a JSON object (``engine.common.system.fds``) with ``namespace`` and one of

* ``ref``, an ingest that this client writes: the answer carries a descriptor for writing;
* ``digest``, a blob: the answer carries a descriptor for reading;
* ``extracting``, the digest of a layer that Diff.Apply unpacks: ``offset`` of the answer says how many bytes of it are
  read.

An answer without a descriptor means that there is none. Content.Write stays the gRPC call that it is: it locks the ref,
a WRITE without data reports the size of the file, and the supervisor hashes the file itself before the commit.

``apply-ingest``: the annotation ``ARRIVING`` of a layer for Diff.Apply names the ref of the ingest that is
being written. The supervisor unpacks the bytes as they arrive and answers UNAVAILABLE when the write ends early.

The event ``/content/dropped`` (a ``ContentDelete``) says that a blob has no file any more, but can be read; its label
``wharf.stored`` has the bytes that it takes on the disk.

``run-exec``: a request ``run`` on the container's stdio socket has the shim start an exec, attach the client and report
the end; the shim forgets the exec then. Shims of an earlier version answer NOT_IMPLEMENTED.

``snapshot-usages``: a request on the socket of ``blob-descriptors`` with ``usages``, a list of snapshots' keys, and
``snapshotter``. ``usages`` of the answer has the bytes and inodes of each snapshot that exists, by key.
"""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass

from engine.api.stdio import Attach, SessionEnd, StdioConnection
from engine.api.types import Plugin, Usage
from engine.common import timeouts
from engine.common.errors import Kind, WharfError, internal
from engine.common.system import fds
from engine.common.threads import run_in_thread
from engine.shim import protocol
from engine.shim.kernel import processes

PLUGIN_TYPE = "wharf.extensions.v1"
BLOB_DESCRIPTORS = "blob-descriptors"
APPLY_INGEST = "apply-ingest"
RUN_EXEC = "run-exec"
SNAPSHOT_USAGES = "snapshot-usages"
#: The plugin's export: the path of the descriptor socket.
DESCRIPTORS = "descriptors"
#: The topic of the event after which a blob takes less space.
CONTENT_DROPPED = "/content/dropped"
#: The annotation of a layer for Diff.Apply.
ARRIVING = "wharf.arriving"

_PIECE = 1 << 20
#: Seconds between two requests for the offset of an extraction.
_WATCH_SECONDS = 0.1

timeouts.define("content.descriptor", 30.0)  # the supervisor's answer to a request for a descriptor


@dataclass(frozen=True, slots=True)
class Extensions:
    """The extensions that the connected server has declared. ``descriptors``: the path of its socket, "" for none."""

    descriptors: str = ""
    applies_ingests: bool = False
    runs_execs: bool = False
    measures_snapshots: bool = False

    @classmethod
    def from_plugins(cls, plugins: Sequence[Plugin]) -> "Extensions":
        """From the answer of Introspection.Plugins, with or without plugins of other types."""
        for plugin in plugins:
            if plugin.type == PLUGIN_TYPE:
                has_descriptors = BLOB_DESCRIPTORS in plugin.capabilities
                return cls(
                    descriptors=plugin.exports.get(DESCRIPTORS, "") if has_descriptors else "",
                    applies_ingests=APPLY_INGEST in plugin.capabilities,
                    runs_execs=RUN_EXEC in plugin.capabilities,
                    measures_snapshots=has_descriptors and SNAPSHOT_USAGES in plugin.capabilities,
                )
        return NONE


#: A stock containerd's.
NONE = Extensions()


# Blobs


def _request(
    path: str, request: Mapping[str, object], *, deadline: str = "content.descriptor"
) -> tuple[dict[str, object], int]:
    """Blocks. Returns the answer and its descriptor, -1 for none."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as sock:
        sock.settimeout(timeouts.seconds(deadline))
        sock.connect(path)
        fds.send_fds(sock, request)
        answer, passed = fds.recv_fds(sock)
        with passed:
            return answer, passed.take(0) if len(passed) else -1


async def open_blob(path: str, namespace: str, **key: str) -> int:
    """The descriptor of an ingest (``ref``) or a blob (``digest``), which the caller closes.

    -1: there is none, or the server doesn't answer; the standard call then says why.
    """

    def ask() -> int:
        try:
            return _request(path, {"namespace": namespace, **key})[1]
        except (OSError, EOFError, ValueError):
            return -1

    asking = asyncio.get_running_loop().run_in_executor(None, ask)
    try:
        return await asyncio.shield(asking)
    except asyncio.CancelledError:
        asking.add_done_callback(_close_result)
        raise


def _close_result(asking: "asyncio.Future[int]") -> None:
    if not asking.cancelled() and asking.exception() is None and asking.result() >= 0:
        os.close(asking.result())


async def read_blob(fd: int, offset: int) -> AsyncIterator[bytes]:
    """The bytes of an open blob from ``offset`` to its end. Closes the descriptor.

    :raises WharfError: OUT_OF_RANGE: ``offset`` is past the end.
    """
    loop = asyncio.get_running_loop()
    end = os.fstat(fd).st_size
    reading: asyncio.Future[bytes] | None = None
    try:
        if offset > end:
            raise WharfError(Kind.OUT_OF_RANGE, f"read past end of content {end} bytes")
        while offset < end:
            reading = loop.run_in_executor(None, os.pread, fd, _PIECE, offset)
            data = await asyncio.shield(reading)
            if not data:
                raise internal(f"a blob ends at {offset} of {end} bytes")
            yield data
            offset += len(data)
    finally:
        if reading is None or reading.done():
            os.close(fd)
        else:
            reading.add_done_callback(lambda _: os.close(fd))


async def watch_extraction(path: str, namespace: str, digest: str, on_progress: Callable[[int], None]) -> None:
    """Calls ``on_progress`` with the number of bytes of a layer that are unpacked, until it is cancelled."""

    def ask() -> int:
        try:
            offset = _request(path, {"namespace": namespace, "extracting": digest})[0].get("offset")
        except (OSError, EOFError, ValueError):
            return 0
        return offset if isinstance(offset, int) else 0

    before = 0
    while True:
        await asyncio.sleep(_WATCH_SECONDS)
        if (offset := await asyncio.to_thread(ask)) > before:
            on_progress(offset)
            before = offset


# Snapshots


async def measure_snapshots(
    path: str, namespace: str, snapshotter: str, keys: Sequence[str]
) -> dict[str, Usage] | None:
    """The usages of those snapshots that exist, by key; None: the server doesn't answer, or refuses the request."""
    request = {"namespace": namespace, "snapshotter": snapshotter, "usages": list(keys)}

    def ask() -> object:
        try:
            return _request(path, request, deadline="snapshot.prepare")[0].get("usages")
        except (OSError, EOFError, ValueError):
            return None

    # A thread of its own: the measurement of large snapshots takes long.
    answer = await run_in_thread(ask)
    if not isinstance(answer, dict):
        return None
    return {key: Usage(size, inodes) for key, (size, inodes) in answer.items()}


# Execs


class Execution:
    """An exec that the shim runs for this client. ``exit`` must be awaited, or cancelled, to free the connection."""

    def __init__(self, connection: StdioConnection) -> None:
        self.pid = 0
        self._lost = False
        self._connection = connection
        self._ending: asyncio.Future[SessionEnd] = asyncio.get_running_loop().create_future()

    async def wait_started(self) -> None:
        """Returns when the process runs.

        :raises WharfError: why the process could not be started. The shim has closed its copy of the client's socket.
        """
        while not self.pid:
            message = await self._connection.receive()
            if message is None:
                raise WharfError(Kind.UNAVAILABLE, "stdio of the container: closed")
            self.pid = protocol.integer(message, "pid")
            self._note_ending(message)

    def _note_ending(self, message: protocol.Json) -> None:
        if "ended" in message and not self._ending.done():
            self._ending.set_result(SessionEnd.from_message(message))

    async def exit(self) -> tuple[int, int] | None:
        """Waits for the exit of the process: its status and time (ns since 1970). None: the shim has exited."""
        try:
            while (message := await self._connection.receive()) is not None:
                self._note_ending(message)
                if "exit" in message:
                    end = protocol.mapping(message, "exit")
                    return protocol.integer(end, "status"), protocol.integer(end, "at_ns")
            self._lost = True
            return None
        finally:
            self._connection.close()
            if not self._ending.done():
                self._ending.set_result(SessionEnd.GONE)

    @property
    def shim_lost(self) -> bool:
        """The shim has ended or is ending, and the process with it. A client that sees its socket closed may ask
        before this connection is closed."""
        return self._lost or processes.is_exiting(self._connection.peer)

    async def ended(self) -> SessionEnd:
        """Waits for the end of the client's session, while another task awaits ``exit``."""
        return await asyncio.shield(self._ending)

    def abandon(self) -> None:
        """Does nothing: no caller needs the end of the session."""


async def run_exec(
    path: str,
    exec_id: str,
    spec: bytes,
    *,
    options: Mapping[str, str],
    terminal: bool,
    oom_score_adj: int | None,
    client: tuple[Attach, socket.socket] | None,
) -> Execution:
    """Runs another process beside the container's first; returns when it runs. ``path`` is the container's stdio
    socket, ``spec`` an OCI process as JSON, ``options`` are those of a ``StdioUri``.

    :raises WharfError: NOT_IMPLEMENTED by an I/O host or the shim of an earlier version; else why the process could
        not be started.
    """
    connection = StdioConnection(path)
    request: dict[str, object] = {
        "op": "run",
        "exec_id": exec_id,
        "spec": len(spec),
        "oom_score_adj": oom_score_adj,
        "stdio": {"terminal": terminal, "options": options, "given": {"terminal": terminal}},
    }
    tail, passed = spec, []
    if client is not None:
        attach, sock = client
        request["client"] = attach.to_json()
        tail += attach.head + attach.early
        passed.append(sock.fileno())
    execution = Execution(connection)
    try:
        async with timeouts.limit("task.start"):
            await connection.open()
            await connection.send(request, tail, passed)
            await execution.wait_started()
    except BaseException:
        connection.close()
        raise
    return execution
