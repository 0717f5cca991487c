"""The content service: blobs and ingests as bytes in memory."""

import hashlib
import re
from collections.abc import AsyncIterator, Mapping

from google.protobuf.empty_pb2 import Empty

from engine.api.pb import content_pb2 as pb
from engine.api.pb import event_messages_pb2
from engine.api.tests.fake.events import Events
from engine.api.tests.fake.state import Blob, Call, Ingest, masked, matching, now
from engine.common.errors import Kind, WharfError, invalid, not_found

_DIGEST = re.compile(r"sha256:[a-f0-9]{64}")
#: Bytes of one message of a read; small, so that a test of a few KiB sees several.
_PIECE = 1 << 16


def digest_of(data: bytes | bytearray) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Content:
    def __init__(self, events: Events) -> None:
        self._events = events

    def info(self, call: Call, request: pb.InfoRequest) -> pb.InfoResponse:
        return pb.InfoResponse(info=self._blob(call, request.digest).info)

    def update(self, call: Call, request: pb.UpdateRequest) -> pb.UpdateResponse:
        blob = self._blob(call, request.info.digest)
        masked(blob.info, request.info, request.update_mask.paths or ["labels"])
        blob.info.updated_at.CopyFrom(now())
        return pb.UpdateResponse(info=blob.info)

    async def list(self, call: Call, request: pb.ListContentRequest) -> AsyncIterator[pb.ListContentResponse]:
        found = matching([blob.info for blob in call.space.blobs.values()], request.filters)
        yield pb.ListContentResponse(info=sorted(found, key=lambda info: info.digest))

    def delete(self, call: Call, request: pb.DeleteContentRequest) -> Empty:
        self._blob(call, request.digest)
        del call.space.blobs[request.digest]
        deleted = event_messages_pb2.ContentDelete(digest=request.digest)
        self._events.publish_own(call.namespace, "/content/delete", deleted)
        return Empty()

    async def read(self, call: Call, request: pb.ReadContentRequest) -> AsyncIterator[pb.ReadContentResponse]:
        data = self._blob(call, request.digest).data
        if request.offset > len(data):
            raise WharfError(Kind.OUT_OF_RANGE, f"read past object length {len(data)} bytes")
        end = min(len(data), request.offset + request.size) if request.size else len(data)
        for start in range(request.offset, end, _PIECE):
            yield pb.ReadContentResponse(offset=start, data=data[start : min(end, start + _PIECE)])

    def status(self, call: Call, request: pb.StatusRequest) -> pb.StatusResponse:
        return pb.StatusResponse(status=self._ingest(call, request.ref).status)

    def list_statuses(self, call: Call, request: pb.ListStatusesRequest) -> pb.ListStatusesResponse:
        found = matching([ingest.status for ingest in call.space.ingests.values()], request.filters)
        return pb.ListStatusesResponse(statuses=found)

    def abort(self, call: Call, request: pb.AbortRequest) -> Empty:
        self._ingest(call, request.ref)
        del call.space.ingests[request.ref]
        return Empty()

    def write(self, call: Call) -> "Write":
        return Write(self, call)

    def add(self, call: Call, data: bytes, labels: Mapping[str, str]) -> str:
        """Makes a blob; adds it to the lease of the call.

        :raises WharfError: ALREADY_EXISTS.
        """
        digest = digest_of(data)
        call.add_to_lease("content", digest)
        if digest in call.space.blobs:
            raise WharfError(Kind.ALREADY_EXISTS, f"content {digest}: already exists")
        info = pb.Info(digest=digest, size=len(data), created_at=now(), updated_at=now(), labels=labels)
        call.space.blobs[digest] = Blob(data, info)
        return digest

    def _blob(self, call: Call, digest: str) -> Blob:
        if not _DIGEST.fullmatch(digest):
            raise invalid(f'invalid digest "{digest}": invalid checksum digest format')
        found = call.space.blobs.get(digest)
        if found is None:
            raise not_found(f"content {digest}: not found")
        return found

    def _ingest(self, call: Call, ref: str) -> Ingest:
        found = call.space.ingests.get(ref)
        if found is None:
            raise not_found(f"ingest ref {ref}: not found")
        return found


class Write:
    """One ``Write`` call: STAT, WRITE and COMMIT of the ref that its first message names."""

    def __init__(self, content: Content, call: Call) -> None:
        self._content = content
        self._call = call
        self._ref = ""

    def handle(self, request: pb.WriteContentRequest) -> pb.WriteContentResponse:
        ingest = self._open(request) if not self._ref else self._call.space.ingests[self._ref]
        if request.action != pb.STAT:
            if request.data or request.action == pb.WRITE:
                if request.offset > len(ingest.data):
                    raise WharfError(Kind.OUT_OF_RANGE, f"{self._ref}: offset past the end")
                del ingest.data[request.offset :]
                ingest.data += request.data
            elif request.offset == 0:
                ingest.data.clear()
            ingest.status.offset = len(ingest.data)
        if request.action == pb.COMMIT:
            return self._commit(request, ingest)
        return self._answer(request.action, ingest)

    def close(self) -> None:
        """Unlocks the ref for another writer."""
        ref, self._ref = self._ref, ""
        if ref in self._call.space.ingests:
            self._call.space.ingests[ref].locked = False

    def _open(self, request: pb.WriteContentRequest) -> Ingest:
        space = self._call.space
        if not request.ref:
            raise invalid("first message must have a reference")
        if request.expected in space.blobs:
            self._call.add_to_lease("content", request.expected)
            raise WharfError(Kind.ALREADY_EXISTS, f"content {request.expected}: already exists")
        ingest = space.ingests.get(request.ref)
        if ingest is not None and ingest.locked:
            raise WharfError(Kind.UNAVAILABLE, f"ref {request.ref} locked: unavailable")
        if ingest is None:
            status = pb.Status(ref=request.ref, total=request.total, expected=request.expected, started_at=now())
            ingest = space.ingests[request.ref] = Ingest(status)
        self._call.add_to_lease("ingests", request.ref)
        self._ref, ingest.locked = request.ref, True
        return ingest

    def _commit(self, request: pb.WriteContentRequest, ingest: Ingest) -> pb.WriteContentResponse:
        data = bytes(ingest.data)
        if request.total and request.total != len(data):
            raise WharfError(Kind.FAILED_PRECONDITION, f"unexpected commit size {len(data)}, expected {request.total}")
        digest = digest_of(data)
        expected = request.expected or ingest.status.expected
        if expected and expected != digest:
            raise WharfError(Kind.FAILED_PRECONDITION, f"unexpected commit digest {digest}, expected {expected}")
        answer = self._answer(pb.COMMIT, ingest)
        del self._call.space.ingests[self._ref]
        self._ref = ""
        self._content.add(self._call, data, request.labels)
        return answer

    def _answer(self, action: "pb.WriteAction.ValueType", ingest: Ingest) -> pb.WriteContentResponse:
        return pb.WriteContentResponse(
            action=action, offset=len(ingest.data), total=ingest.status.total, digest=digest_of(ingest.data)
        )
