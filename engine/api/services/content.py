"""Blobs: read, write with resume, labels."""

import asyncio
import errno
import os
import secrets
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress

from google.protobuf.empty_pb2 import Empty

from engine.api import lean
from engine.api.extensions import NONE, open_blob, read_blob
from engine.api.pb import content_pb2 as pb
from engine.api.rpc import Caller, Duplex
from engine.api.services.appender import LARGE, Appender
from engine.api.types import ContentInfo, IngestStatus, label_mask, to_ns
from engine.common import limits, timeouts
from engine.common.errors import Kind, WharfError

_SERVICE = "/containerd.services.content.v1.Content"

#: Bytes per message of a write; well below every server's limit on the size of a message.
_CHUNK = 1 << 20


def _info(message: pb.Info) -> ContentInfo:
    return ContentInfo(
        digest=message.digest,
        size=message.size,
        created_at_ns=to_ns(message.created_at),
        updated_at_ns=to_ns(message.updated_at),
        labels=dict(message.labels),
    )


def _status(message: pb.Status) -> IngestStatus:
    return IngestStatus(
        ref=message.ref,
        offset=message.offset,
        total=message.total,
        expected=message.expected,
        started_at_ns=to_ns(message.started_at),
        updated_at_ns=to_ns(message.updated_at),
    )


class Writer:
    """An open ingest. The server has ``offset`` bytes already: continue there, or call ``truncate`` to start again.

    ``exists``: the expected blob was in the store before; write and commit then do nothing and succeed.
    """

    def __init__(self, content: "Content", call: Duplex[pb.WriteContentRequest, pb.WriteContentResponse]) -> None:
        self._content = content
        self._call = call
        self.ref = ""
        self.expected = ""
        self.total = 0
        self.offset = 0
        self.exists = False
        self.digest = ""
        self._appender: Appender | None = None
        self._plain = False  # the server passes no descriptor of this ingest
        self._restart = False  # the server must discard its bytes before the next write

    async def begin(self, ref: str, expected: str, total: int) -> None:
        self.ref, self.expected, self.total = ref, expected, total
        try:
            answer = await self._call.exchange(
                pb.WriteContentRequest(action=pb.STAT, ref=ref, expected=expected, total=total)
            )
        except WharfError as error:
            if error.kind is not Kind.ALREADY_EXISTS:
                raise
            self.exists, self.digest, self.offset = True, expected, total
        else:
            self.offset = answer.offset

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Appends ``data``, which must not change afterwards. The last bytes may still be in transfer when the method
        returns: the next call raises their error. UNAVAILABLE: another writer has the ref; RESOURCE_EXHAUSTED: the disk
        is full."""
        if self.exists:
            return
        view = memoryview(data)
        if self._appender is None and not self._plain and len(view) >= LARGE:
            self._appender = await self._content.appender(self)
            self._plain = self._appender is None
        if self._appender is None:
            for start in range(0, len(view), _CHUNK):
                # One message at a time: a second one in flight would hide why the server ended the call.
                answer = await self._call.exchange(lean.write_request(self.offset, view[start : start + _CHUNK]))
                self.offset = answer.offset
            self._restart = False
        elif view:
            await self._restart_if_needed()
            with self._disk():
                await self._appender.write(view)
            self.offset += len(view)

    async def report(self, offset: int) -> None:
        """Reports to the server that the ingest's file has bytes up to ``offset``."""
        await self._call.exchange(lean.write_request(offset, b""))

    async def truncate(self) -> None:
        """Starts again at 0: the server discards its bytes with the next write or the commit."""
        if not self.exists and self.offset:
            self.offset, self._restart = 0, True

    async def _flush(self) -> None:
        await self._restart_if_needed()
        if self._appender is not None:
            with self._disk():
                await self._appender.flush()

    async def _restart_if_needed(self) -> None:
        if self._restart:
            if self._appender is not None:
                await self._appender.restart()
            await self.report(0)
            self._restart = False

    @contextmanager
    def _disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            # The disk is full. The bytes so far are useless and other writers may need the space, so discard them.
            self.offset, self._restart = 0, True
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            kind = Kind.RESOURCE_EXHAUSTED if full else Kind.INTERNAL
            raise WharfError(kind, f"write {self.ref}: {os.strerror(error.errno or 0).lower()}") from None

    async def current_digest(self) -> str:
        """Returns the digest of the bytes written so far."""
        if self.exists:
            return self.digest
        await self._flush()
        return (await self._call.exchange(pb.WriteContentRequest(action=pb.STAT, ref=self.ref))).digest

    async def commit(self, *, size: int = 0, digest: str = "", labels: Mapping[str, str] | None = None) -> str:
        """Creates the blob and returns its digest. FAILED_PRECONDITION: size or digest differ from what was written.

        A blob that exists already is a success; the labels are then added to it.
        """
        if not self.exists:
            await self._flush()
            request = pb.WriteContentRequest(
                action=pb.COMMIT,
                total=size,
                offset=self.offset,
                expected=digest or self.expected,
                labels=dict(labels or {}),
            )
            try:
                self.digest = (await self._call.exchange(request)).digest
                return self.digest
            except WharfError as error:
                if error.kind is not Kind.ALREADY_EXISTS:
                    raise
                self.exists, self.digest = True, digest or self.expected
        if labels and self.digest:
            await self._content.update_labels(self.digest, labels)
        return self.digest

    async def close(self) -> None:
        """Closes the ingest. Its ref is free when the method returns."""
        async with timeouts.limit("engine.call"):
            if self._appender is not None:
                with suppress(WharfError):
                    await self._restart_if_needed()
                await self._appender.close()
            await self._call.finish()

    def cancel(self) -> None:
        # A thread may still write: the ref must stay taken until it has ended.
        if self._appender is not None:
            self._appender.when_idle(self._call.cancel)
            self._appender.drop()  # also when close is cancelled
        else:
            self._call.cancel()


class Content:
    """The content service."""

    def __init__(self, connection: Caller) -> None:
        self._rpc = connection
        #: Set by ``Engine.connect``.
        self.extensions = NONE

    async def info(self, digest: str) -> ContentInfo:
        """Raises NOT_FOUND when the blob doesn't exist."""
        reply = await self._rpc.call(f"{_SERVICE}/Info", pb.InfoRequest(digest=digest), pb.InfoResponse)
        return _info(reply.info)

    async def walk(self, filters: Sequence[str] = ()) -> AsyncIterator[ContentInfo]:
        request = pb.ListContentRequest(filters=filters)
        async for page in self._rpc.stream(f"{_SERVICE}/List", request, pb.ListContentResponse):
            for message in page.info:
                yield _info(message)

    async def read(self, digest: str, *, offset: int = 0, size: int = 0) -> AsyncIterator[bytes]:
        """Yields the blob's bytes from ``offset`` on; ``size`` 0 reads to the end. Raises OUT_OF_RANGE past the end."""
        if (path := self.extensions.descriptors) and not size:
            fd = await open_blob(path, self._rpc.namespace, digest=digest)
            if fd >= 0:
                async for data in read_blob(fd, offset):
                    yield data
                return
        async for data in self._read(digest, offset, size):
            yield data

    async def _read(self, digest: str, offset: int = 0, size: int = 0) -> AsyncIterator[bytes]:
        request = pb.ReadContentRequest(digest=digest, offset=offset, size=size)
        async for piece in self._rpc.stream(f"{_SERVICE}/Read", request, pb.ReadContentResponse):
            yield piece.data

    async def read_all(self, digest: str) -> bytes:
        """Reads a whole small blob (a manifest, a config).

        :raises WharfError: INVALID_ARGUMENT for a blob of more than ``limits.DOCUMENT_BYTES``.
        """
        pieces: list[bytes] = []
        size = 0
        async for piece in self._read(digest, size=limits.DOCUMENT_BYTES + 1):
            pieces.append(piece)
            size += len(piece)
        if size > limits.DOCUMENT_BYTES:
            raise limits.exceeded("DOCUMENT_BYTES", f"{digest}: its size")
        return b"".join(pieces)

    async def appender(self, writer: Writer) -> Appender | None:
        """A direct writer for an open ingest; None if the server passes no descriptors."""
        if not (path := self.extensions.descriptors):
            return None
        fd = await open_blob(path, self._rpc.namespace, ref=writer.ref)
        return Appender(fd, writer.offset, writer.report) if fd >= 0 else None

    def open_write(self) -> Duplex[pb.WriteContentRequest, pb.WriteContentResponse]:
        return self._rpc.duplex(f"{_SERVICE}/Write", pb.WriteContentRequest, pb.WriteContentResponse)

    @asynccontextmanager
    async def writer(self, ref: str, *, expected: str = "", total: int = 0) -> AsyncIterator[Writer]:
        """Opens or resumes the ingest ``ref``. Without a commit the ingest stays and can be resumed or aborted.

        UNAVAILABLE: another writer has the ref.
        """
        writer = Writer(self, self.open_write())
        try:
            await writer.begin(ref, expected, total)
            yield writer
        finally:
            try:
                # Also after a failure: an immediate retry must find the ref free.
                with suppress(WharfError):
                    await writer.close()
            finally:
                writer.cancel()

    async def write_blob(self, ref: str, data: bytes, *, digest: str, labels: Mapping[str, str] | None = None) -> None:
        """Writes a whole small blob, in one message where it fits. A unique suffix is added to ``ref``, so that
        parallel writers don't block each other."""
        ref = f"{ref}-{secrets.token_hex(4)}"
        try:
            await self._write_blob(ref, data, digest, labels)
        except BaseException:
            await asyncio.shield(self.discard_ingest(ref))
            raise

    async def _write_blob(self, ref: str, data: bytes, digest: str, labels: Mapping[str, str] | None) -> None:
        if len(data) > _CHUNK:
            async with self.writer(ref, expected=digest, total=len(data)) as writer:
                await writer.write(data)
                await writer.commit(size=len(data), digest=digest, labels=labels)
            return
        call = self.open_write()
        try:
            await call.exchange(
                pb.WriteContentRequest(
                    action=pb.COMMIT, ref=ref, total=len(data), expected=digest, data=data, labels=dict(labels or {})
                )
            )
            await call.finish()
        except WharfError as error:
            if error.kind is not Kind.ALREADY_EXISTS:
                raise
            if labels:
                await self.update_labels(digest, labels)
        finally:
            call.cancel()

    async def update_labels(self, digest: str, labels: Mapping[str, str | None]) -> ContentInfo:
        """Sets these labels and keeps the others; None removes a label."""
        info = pb.Info(digest=digest, labels={name: value or "" for name, value in labels.items()})
        request = pb.UpdateRequest(info=info, update_mask=label_mask(labels))
        return _info((await self._rpc.call(f"{_SERVICE}/Update", request, pb.UpdateResponse)).info)

    async def delete(self, digest: str) -> None:
        """Removes the blob from this namespace; the next garbage collection deletes its bytes."""
        await self._rpc.call(f"{_SERVICE}/Delete", pb.DeleteContentRequest(digest=digest), Empty)

    async def status(self, ref: str) -> IngestStatus:
        reply = await self._rpc.call(f"{_SERVICE}/Status", pb.StatusRequest(ref=ref), pb.StatusResponse)
        return _status(reply.status)

    async def statuses(self, filters: Sequence[str] = ()) -> list[IngestStatus]:
        request = pb.ListStatusesRequest(filters=filters)
        reply = await self._rpc.call(f"{_SERVICE}/ListStatuses", request, pb.ListStatusesResponse)
        return [_status(message) for message in reply.statuses]

    async def abort(self, ref: str) -> None:
        """Discards an ingest; raises NOT_FOUND when there is none."""
        await self._rpc.call(f"{_SERVICE}/Abort", pb.AbortRequest(ref=ref), Empty)

    async def discard_ingest(self, ref: str) -> None:
        """Discards an ingest that failed and will not be resumed; does nothing if there is none."""
        with suppress(WharfError):
            await self.abort(ref)
