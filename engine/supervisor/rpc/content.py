"""containerd.services.content.v1"""

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from itertools import islice

from google.protobuf.empty_pb2 import Empty

from engine.api import lean
from engine.api.pb import content_pb2 as pb
from engine.api.types import ContentInfo, IngestStatus, to_timestamp
from engine.common.errors import Kind, WharfError, invalid
from engine.supervisor.call import Call
from engine.supervisor.content import Content
from engine.supervisor.gc import Collector

#: Entries per message of a list.
PAGE = 100


class ContentServicer:
    decoders: Mapping[str, Callable[[bytes], object]] = {"Write": lean.decode_write}

    def __init__(self, content: Content, collector: Collector) -> None:
        self._content = content
        self._collector = collector

    async def info(self, request: pb.InfoRequest, call: Call) -> pb.InfoResponse:
        return pb.InfoResponse(info=_info(self._content.info(call.namespace, request.digest)))

    async def update(self, request: pb.UpdateRequest, call: Call) -> pb.UpdateResponse:
        info = await self._content.update(
            call.namespace, request.info.digest, request.info.labels, request.update_mask.paths
        )
        await self._collector.deleted(sync=False)  # a removed label may have referenced something
        return pb.UpdateResponse(info=_info(info))

    async def list(self, request: pb.ListContentRequest, call: Call) -> AsyncIterator[pb.ListContentResponse]:
        for page in pages(await self._content.list(call.namespace, request.filters)):
            yield pb.ListContentResponse(info=map(_info, page))

    async def delete(self, request: pb.DeleteContentRequest, call: Call) -> Empty:
        await self._content.delete(call.namespace, request.digest)
        await self._collector.deleted(sync=False)
        return Empty()

    async def read(self, request: pb.ReadContentRequest, call: Call) -> AsyncIterator[bytes]:
        async for offset, data in self._content.read(call.namespace, request.digest, request.offset, request.size):
            yield lean.read_response(offset, data)

    async def status(self, request: pb.StatusRequest, call: Call) -> pb.StatusResponse:
        return pb.StatusResponse(status=_status(self._content.status(call.namespace, request.ref)))

    async def list_statuses(self, request: pb.ListStatusesRequest, call: Call) -> pb.ListStatusesResponse:
        return pb.ListStatusesResponse(statuses=map(_status, self._content.statuses(call.namespace, request.filters)))

    async def write(
        self, requests: AsyncIterator[pb.WriteContentRequest], call: Call
    ) -> AsyncIterator[pb.WriteContentResponse]:
        """The first message opens the ingest and may act already; every message is answered; a commit is the last."""
        request = await anext(requests, None)
        if request is None:
            return
        total, expected = request.total, request.expected
        ingest = await self._content.open(call, request.ref, expected, total)
        try:
            while request is not None:
                total, expected = request.total or total, request.expected or expected
                answer = pb.WriteContentResponse(action=request.action, total=total)
                if request.action == pb.STAT:
                    answer.started_at.CopyFrom(to_timestamp(ingest.record.started_ns))
                    answer.updated_at.CopyFrom(to_timestamp(ingest.record.started_ns))
                else:
                    await ingest.write(request.offset, request.data)
                    if total and ingest.offset > total:
                        raise WharfError(
                            Kind.FAILED_PRECONDITION,
                            f'"{request.ref or ingest.ref}" has {ingest.offset} of {total} bytes: failed precondition',
                        )
                if request.action == pb.COMMIT:
                    answer.digest = await ingest.commit(total, expected, request.labels)
                    await ingest.close()  # before the answer: the client may use the ref again at once
                elif request.action == pb.STAT:
                    answer.digest = await ingest.digest()
                answer.offset = ingest.offset
                yield answer
                if request.action == pb.COMMIT:
                    return
                request = await anext(requests, None)
        finally:
            await ingest.close()

    async def abort(self, request: pb.AbortRequest, call: Call) -> Empty:
        if not request.ref:
            raise invalid("ref must not be empty: invalid argument")
        await self._content.abort(call.namespace, request.ref)
        return Empty()


def pages(entries: "Iterable[ContentInfo]") -> "Iterator[list[ContentInfo]]":
    source = iter(entries)
    while page := list(islice(source, PAGE)):
        yield page


def _info(info: ContentInfo) -> pb.Info:
    return pb.Info(
        digest=info.digest,
        size=info.size,
        created_at=to_timestamp(info.created_at_ns),
        updated_at=to_timestamp(info.updated_at_ns),
        labels=dict(info.labels),
    )


def _status(status: IngestStatus) -> pb.Status:
    return pb.Status(
        ref=status.ref,
        offset=status.offset,
        total=status.total,
        expected=status.expected,
        started_at=to_timestamp(status.started_at_ns),
        updated_at=to_timestamp(status.updated_at_ns),
    )
