"""The receiver of ``moby.filesync.v1.FileSync/DiffCopy``: writes the client's files to a :class:`Mirror`.

The sender walks its tree and sends one STAT packet per entry, and one without a body at the end. The receiver
requests an entry's content by REQ with the entry's number; content comes as DATA packets, an empty one ends a file.
Both sides send FIN to close. ERR carries the sender's message (fsutil's ``send.go`` and ``receive.go``).
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from stat import S_ISREG
from typing import Any
from urllib.parse import quote

from engine.api.http2.connection import Connection
from engine.common.errors import WharfError, invalid
from server.builder.session import calls
from server.builder.session.mirror import Mirror
from server.builder.session.pb import fsutil_pb2
from server.builder.session.stat import Entry, to_unix

Packet = fsutil_pb2.Packet
_STAT, _REQ, _DATA = Packet.PACKET_STAT, Packet.PACKET_REQ, Packet.PACKET_DATA
_FIN, _ERR = Packet.PACKET_FIN, Packet.PACKET_ERR


@dataclass(frozen=True, slots=True)
class Selection:
    """The files to request. Patterns are those of ``.dockerignore``; empty means all."""

    name: str
    """The client's name of the directory: ``context``, ``dockerfile`` or a named context."""
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    follow: Sequence[str] = ()
    """Paths whose symbolic links are resolved and sent with their targets."""

    def metadata(self) -> list[tuple[str, str]]:
        """Return the request's metadata; values outside ASCII are URL-encoded and flagged."""
        pairs: list[tuple[str, str]] = [("dir-name", self.name)]
        for key, values in (
            ("include-patterns", self.include),
            ("exclude-patterns", self.exclude),
            ("followpaths", self.follow),
        ):
            plain = all(value.isascii() and value.isprintable() for value in values)
            if not plain:
                pairs.append((f"{key}-encoded", "1"))
            pairs.extend((key, value if plain else quote(value, safe="")) for value in values)
        return pairs


def _entry(stat: fsutil_pb2.Stat) -> Entry:
    mode = to_unix(stat.mode)
    return Entry(
        path=stat.path,
        mode=mode,
        uid=stat.uid,
        gid=stat.gid,
        size=stat.size if S_ISREG(mode) else 0,
        mtime_ns=stat.modTime,
        linkname=stat.linkname,
        devmajor=stat.devmajor,
        devminor=stat.devminor,
    )


class _Receiver:
    """Passes packets to the mirror in batches, in a thread, in order."""

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror
        self._next = 0
        self.outstanding = 0
        self.described = self.ended = False

    def handle(self, packets: Sequence[bytes]) -> list[int]:
        """Handle packets; return the entries whose content is needed. Runs in a thread."""
        requested: list[int] = []
        mirror, parse = self._mirror, Packet.FromString
        for data in packets:
            packet = parse(data)
            kind = packet.type
            if kind == _STAT:
                if not packet.HasField("stat"):
                    self.described = True
                    continue
                number, self._next = self._next, self._next + 1
                if mirror.add(number, _entry(packet.stat)):
                    requested.append(number)
                    self.outstanding += 1
            elif kind == _DATA:
                if mirror.data(packet.ID, packet.data):
                    self.outstanding -= 1
            elif kind == _FIN:
                self.ended = True
            elif kind == _ERR:
                raise invalid(packet.data.decode("utf-8", "replace"))
        return requested

    @property
    def complete(self) -> bool:
        return self.described and not self.outstanding


class _Requests:
    """Sends content requests in a task of its own, because a client blocked on sending reads no requests."""

    def __init__(self, call: calls.Call[Packet]) -> None:
        self._call = call
        self._requested: list[Packet] = []
        self._added = asyncio.Event()
        self.task = asyncio.create_task(self._send(), name="requests for a build's context")

    def add(self, packets: Iterable[Packet]) -> None:
        self._requested += packets
        self._added.set()

    async def _send(self) -> None:
        while True:
            await self._added.wait()
            self._added.clear()
            requested, self._requested = self._requested, []
            with contextlib.suppress(WharfError):  # the reader raises the call's error
                await self._call.write_all(requested)

    async def close(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


async def receive(
    connection: Connection, selection: Selection, root: str, on_progress: Callable[[int], None] | None = None
) -> int:
    """Make ``root`` equal to the client's selection; return the number of changed entries.

    Raises INVALID_ARGUMENT with the client's message if the client fails, or for a path outside the tree; UNAVAILABLE
    if the session breaks off. Only one synchronisation of a root may run at a time.
    """
    call = calls.stream(connection, calls.PULL_FILES, selection.metadata())
    requests = _Requests(call)
    mirror: Mirror | None = None
    made: Mirror
    job: asyncio.Future[Any] | None = None
    try:
        # Walk the local directory while the client walks its own.
        job = asyncio.ensure_future(asyncio.to_thread(Mirror, root))
        mirror = made = await asyncio.shield(job)
        receiver = _Receiver(made)
        finished, size = False, 0
        while not receiver.ended and (packets := await call.read_buffered()):
            size += sum(map(len, packets))
            if on_progress is not None:
                on_progress(size)
            job = asyncio.ensure_future(asyncio.to_thread(receiver.handle, packets))
            requests.add(Packet(type=_REQ, ID=number) for number in await asyncio.shield(job))
            if receiver.complete and not finished:
                finished = True
                requests.add([Packet(type=_FIN)])
        if not receiver.complete:
            call.check()
            raise invalid("the client ended the transfer of the build context early")
        call.done_writing()
        job = asyncio.ensure_future(asyncio.to_thread(made.finish))
        await asyncio.shield(job)
        return made.changed
    finally:
        await asyncio.shield(_leave(call, requests, mirror, job))


async def _leave(
    call: calls.Call[Packet], requests: _Requests, mirror: Mirror | None, job: "asyncio.Future[Any] | None"
) -> None:
    await requests.close()
    call.cancel()
    if job is not None:
        # The thread can't be interrupted; close its descriptors only after it has ended.
        await asyncio.wait([job])
        if mirror is None and not job.cancelled() and job.exception() is None:
            mirror = job.result()
    if mirror is not None:
        mirror.close()
