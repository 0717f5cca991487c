"""``moby.filesync.v1.FileSync/DiffCopy`` as its receiver: the client's files into a :class:`Mirror`.

The sender walks its tree and sends one STAT packet for each entry, and one without a body at the end. The
receiver answers REQ with an entry's number for what it wants; content comes as DATA packets, an empty one ends
a file. FIN both ways closes. ERR carries the sender's message (fsutil's ``send.go`` and ``receive.go``).
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from stat import S_ISREG
from typing import Any
from urllib.parse import quote

import grpc

from engine.buildkit import calls
from engine.buildkit.mirror import Mirror
from engine.buildkit.pb import fsutil_pb2
from engine.buildkit.stat import Entry, to_unix
from engine.errors import invalid

BUFFERED = 8 << 20
"""Content that may wait for the disk, in bytes, before the stream is no longer read."""

Packet = fsutil_pb2.Packet


@dataclass(frozen=True, slots=True)
class Selection:
    """What is asked of the client. Patterns are those of ``.dockerignore``; empty means everything."""

    name: str
    """The client's name of the directory: ``context``, ``dockerfile`` or a named context."""
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    follow: Sequence[str] = ()
    """Paths whose symlinks are to be resolved and sent with their targets."""

    def metadata(self) -> list[tuple[str, str]]:
        """The request's metadata; values outside ASCII are URL-encoded and flagged."""
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
    """Feeds packets to the mirror from a thread, several at a time, and keeps the order."""

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror
        self._next = 0
        self.outstanding = 0
        self.described = False

    def handle(self, packets: Sequence[Packet]) -> list[int]:
        """Runs in a thread. Returns the entries whose content is wanted."""
        wanted: list[int] = []
        for packet in packets:
            if packet.type == Packet.PACKET_STAT:
                if not packet.HasField("stat"):
                    self.described = True
                    continue
                number, self._next = self._next, self._next + 1
                if self._mirror.add(number, _entry(packet.stat)):
                    wanted.append(number)
                    self.outstanding += 1
            elif packet.type == Packet.PACKET_DATA:
                if self._mirror.data(packet.ID, packet.data):
                    self.outstanding -= 1
            elif packet.type == Packet.PACKET_ERR:
                raise invalid(packet.data.decode("utf-8", "replace"))
        return wanted

    @property
    def complete(self) -> bool:
        return self.described and not self.outstanding


class _Inbox:
    """What the client has sent and the disk has not taken yet. Nothing waits for a single packet: there are many."""

    def __init__(self, call: "grpc.aio.StreamStreamCall[Any, Any]") -> None:
        self._call = call
        self._packets: list[Packet] = []
        self._size = 0
        self._news, self._space = asyncio.Event(), asyncio.Event()
        self._task = asyncio.create_task(self._read(), name="context of a build")
        self.ended = False

    async def _read(self) -> None:
        try:
            while True:
                packet = await self._call.read()
                if not isinstance(packet, Packet) or packet.type == Packet.PACKET_FIN:
                    return
                self._packets.append(packet)
                self._news.set()
                self._size += len(packet.data)
                if self._size >= BUFFERED:
                    self._space.clear()
                    await self._space.wait()
        finally:
            self.ended = True
            self._news.set()

    async def take(self) -> list[Packet]:
        """All that has come; empty at the end. Raises what reading raised."""
        while not self._packets and not self.ended:
            self._news.clear()
            await self._news.wait()
        if not self._packets:
            await self._task
        packets, self._packets, self._size = self._packets, [], 0
        self._space.set()
        return packets

    async def close(self) -> None:
        """Reads no more."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


async def receive(channel: grpc.aio.Channel, selection: Selection, root: str) -> int:
    """Makes ``root`` equal to the client's selection; returns how many entries changed.

    Raises INVALID_ARGUMENT with the client's message if it can't send, or for a tree that escapes; grpc's error
    when the session breaks off. Only one synchronisation of a root may run at a time.
    """
    call = calls.stream(channel, calls.PULL_FILES)(None, metadata=selection.metadata())
    inbox = _Inbox(call)
    mirror: Mirror | None = None
    made: Mirror
    job: asyncio.Future[Any] | None = None
    try:
        # The client walks its folder while ours is walked.
        job = asyncio.ensure_future(asyncio.to_thread(Mirror, root))
        mirror = made = await asyncio.shield(job)
        receiver = _Receiver(made)
        finished = False
        while packets := await inbox.take():
            job = asyncio.ensure_future(asyncio.to_thread(receiver.handle, packets))
            for number in await asyncio.shield(job):
                await call.write(Packet(type=Packet.PACKET_REQ, ID=number))
            if receiver.complete and not finished:
                finished = True
                await call.write(Packet(type=Packet.PACKET_FIN))
        if not receiver.complete:
            raise invalid("the client ended the transfer of the build context early")
        await call.done_writing()
        job = asyncio.ensure_future(asyncio.to_thread(made.finish))
        await asyncio.shield(job)
        return made.changed
    finally:
        await asyncio.shield(_leave(inbox, call, mirror, job))


async def _leave(
    inbox: _Inbox, call: "grpc.aio.StreamStreamCall[Any, Any]", mirror: Mirror | None, job: "asyncio.Future[Any] | None"
) -> None:
    await inbox.close()
    if job is not None:
        # The thread can't be interrupted; its descriptors are closed only after it has stopped.
        await asyncio.wait([job])
        if mirror is None and not job.cancelled() and job.exception() is None:
            mirror = job.result()
    call.cancel()
    if mirror is not None:
        mirror.close()
