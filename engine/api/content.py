"""Blobs: read, write with resume, labels."""

import asyncio
import errno
import os
import secrets
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress

from google.protobuf.empty_pb2 import Empty
from google.protobuf.field_mask_pb2 import FieldMask

from engine.api import lean
from engine.api.appender import LARGE, Appender
from engine.api.extensions import NONE, open_blob, read_blob
from engine.api.pb import content_pb2 as pb
from engine.api.rpc import Caller, Duplex
from engine.api.types import ContentInfo, IngestStatus, to_ns
from engine.common import limits, timeouts
from engine.common.errors import Kind, WharfError

_SERVICE = "/containerd.services.content.v1.Content"

#: Bytes of one message of a write; several times below every server's limit of a message.
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


def label_mask(labels: Mapping[str, str | None]) -> FieldMask:
    """The mask that touches these labels and no others (containerd takes a label with an empty value as removed)."""
    return FieldMask(paths=[f"labels.{name}" for name in labels])


class Writer:
    """An open ingest. ``offset`` bytes are there already: go on from it, or ``truncate`` to begin again.

    ``exists``: the expected blob was there before; writing and committing then do nothing and succeed.
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
        self._plain = False  # the server gives no descriptor of this ingest
        self._again = False  # the server is to throw away what it has before the next bytes

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
        """Appends; the bytes must stay as they are. The last may still be on their way when this returns: the next
        step tells what became of them. UNAVAILABLE: another writer has the ref; RESOURCE_EXHAUSTED: the disk is full.
        """
        if self.exists:
            return
        view = memoryview(data)
        if self._appender is None and not self._plain and len(view) >= LARGE:
            self._appender = await self._content.appender(self)
            self._plain = self._appender is None
        if self._appender is None:
            for start in range(0, len(view), _CHUNK):
                # One message at a time: a second one on its way would hide the reason why the server ends the call.
                answer = await self._call.exchange(lean.write_request(self.offset, view[start : start + _CHUNK]))
                self.offset = answer.offset
            self._again = False
        elif view:
            await self._begin_again()
            with self._disk():
                await self._appender.write(view)
            self.offset += len(view)

    async def tell(self, offset: int) -> None:
        """The file holds the bytes up to ``offset``."""
        await self._call.exchange(lean.write_request(offset, b""))

    async def truncate(self) -> None:
        """Begins again at 0: the server throws away what is there with the next bytes or the commit."""
        if not self.exists and self.offset:
            self.offset, self._again = 0, True

    async def _flush(self) -> None:
        await self._begin_again()
        if self._appender is not None:
            with self._disk():
                await self._appender.flush()

    async def _begin_again(self) -> None:
        if self._again:
            if self._appender is not None:
                await self._appender.restart()
            await self.tell(0)
            self._again = False

    @contextmanager
    def _disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            # A full disk: what is there is of no use, and others may need the space.
            self.offset, self._again = 0, True
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            kind = Kind.RESOURCE_EXHAUSTED if full else Kind.INTERNAL
            raise WharfError(kind, f"write {self.ref}: {os.strerror(error.errno or 0).lower()}") from None

    async def found(self) -> str:
        """The digest of what was written so far."""
        if self.exists:
            return self.digest
        await self._flush()
        return (await self._call.exchange(pb.WriteContentRequest(action=pb.STAT, ref=self.ref))).digest

    async def commit(self, *, size: int = 0, digest: str = "", labels: Mapping[str, str] | None = None) -> str:
        """Makes the blob and returns its digest. FAILED_PRECONDITION: size or digest differ from what was written.

        A blob that is there already is a success; the labels are then added to it.
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
        """Lets go of the ref: it is free when this returns."""
        async with timeouts.limit("engine.call"):
            if self._appender is not None:
                with suppress(WharfError):
                    await self._begin_again()
                await self._appender.close()
            await self._call.finish()

    def cancel(self) -> None:
        # Nobody else may get the ref while a thread of ours still writes.
        if self._appender is not None:
            self._appender.when_idle(self._call.cancel)
            self._appender.drop()  # also where closing was cancelled
        else:
            self._call.cancel()


class Content:
    def __init__(self, connection: Caller) -> None:
        self._rpc = connection
        #: Set by ``Engine.connect``.
        self.extensions = NONE

    async def info(self, digest: str) -> ContentInfo:
        """NOT_FOUND when the blob isn't there."""
        reply = await self._rpc.call(f"{_SERVICE}/Info", pb.InfoRequest(digest=digest), pb.InfoResponse)
        return _info(reply.info)

    async def walk(self, filters: Sequence[str] = ()) -> AsyncIterator[ContentInfo]:
        request = pb.ListContentRequest(filters=filters)
        async for page in self._rpc.stream(f"{_SERVICE}/List", request, pb.ListContentResponse):
            for message in page.info:
                yield _info(message)

    async def read(self, digest: str, *, offset: int = 0, size: int = 0) -> AsyncIterator[bytes]:
        """The blob's bytes from ``offset`` on; ``size`` 0 reads to the end. OUT_OF_RANGE past the end."""
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
        """A whole small blob (a manifest, a config).

        :raises WharfError: INVALID_ARGUMENT for one of more than ``limits.DOCUMENT_BYTES``.
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
        """For an ingest that is being written; None from a server that gives no descriptors."""
        if not (path := self.extensions.descriptors):
            return None
        fd = await open_blob(path, self._rpc.namespace, ref=writer.ref)
        return Appender(fd, writer.offset, writer.tell) if fd >= 0 else None

    def open_write(self) -> Duplex[pb.WriteContentRequest, pb.WriteContentResponse]:
        return self._rpc.duplex(f"{_SERVICE}/Write", pb.WriteContentRequest, pb.WriteContentResponse)

    @asynccontextmanager
    async def writer(self, ref: str, *, expected: str = "", total: int = 0) -> AsyncIterator[Writer]:
        """Opens or resumes the ingest ``ref``. Left without a commit, it stays and can be resumed or aborted.

        UNAVAILABLE: another writer has the ref.
        """
        writer = Writer(self, self.open_write())
        try:
            await writer.begin(ref, expected, total)
            yield writer
        finally:
            try:
                # Also after a failure: who tries again at once must find the ref free.
                with suppress(WharfError):
                    await writer.close()
            finally:
                writer.cancel()

    async def write_blob(self, ref: str, data: bytes, *, digest: str, labels: Mapping[str, str] | None = None) -> None:
        """A whole small blob at once, in one message where it fits. ``ref`` is made unique: nobody has to wait."""
        ref = f"{ref}-{secrets.token_hex(4)}"
        try:
            await self._write_blob(ref, data, digest, labels)
        except BaseException:
            await asyncio.shield(self.throw_away(ref))
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
        """Sets these labels and leaves the others; None removes one."""
        info = pb.Info(digest=digest, labels={name: value or "" for name, value in labels.items()})
        request = pb.UpdateRequest(info=info, update_mask=label_mask(labels))
        return _info((await self._rpc.call(f"{_SERVICE}/Update", request, pb.UpdateResponse)).info)

    async def delete(self, digest: str) -> None:
        """Takes the blob from this namespace; its bytes go with the next collection."""
        await self._rpc.call(f"{_SERVICE}/Delete", pb.DeleteContentRequest(digest=digest), Empty)

    async def status(self, ref: str) -> IngestStatus:
        reply = await self._rpc.call(f"{_SERVICE}/Status", pb.StatusRequest(ref=ref), pb.StatusResponse)
        return _status(reply.status)

    async def statuses(self, filters: Sequence[str] = ()) -> list[IngestStatus]:
        request = pb.ListStatusesRequest(filters=filters)
        reply = await self._rpc.call(f"{_SERVICE}/ListStatuses", request, pb.ListStatusesResponse)
        return [_status(message) for message in reply.statuses]

    async def abort(self, ref: str) -> None:
        """Throws an ingest away; NOT_FOUND when there is none."""
        await self._rpc.call(f"{_SERVICE}/Abort", pb.AbortRequest(ref=ref), Empty)

    async def throw_away(self, ref: str) -> None:
        """After a failure: an ingest that nobody will go on with, if it is there."""
        with suppress(WharfError):
            await self.abort(ref)
