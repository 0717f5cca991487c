"""containerd's content service on the control connection: clients read the blobs that history records name."""

from collections.abc import AsyncIterator

from engine.api.pb import content_pb2
from engine.api.services.content import Content
from engine.common.errors import Kind, WharfError, not_found
from server.builder.history.history import History
from server.builder.neighbours import Images

_PIECE = 512 << 10
"""The most bytes in one message."""


class Blobs:
    """The servicer for blobs of the history and of the owner's images; read-only."""

    def __init__(self, history: History, content: Content, images: Images) -> None:
        self._history, self._content, self._images = history, content, images

    async def info(self, request: content_pb2.InfoRequest, call: object) -> content_pb2.InfoResponse:
        data = await self._own(request.digest)
        size = len(data) if data is not None else (await self._content.info(request.digest)).size
        return content_pb2.InfoResponse(info=content_pb2.Info(digest=request.digest, size=size))

    async def read(
        self, request: content_pb2.ReadContentRequest, call: object
    ) -> AsyncIterator[content_pb2.ReadContentResponse]:
        offset = request.offset
        data = await self._own(request.digest)
        if data is None:
            async for piece in self._content.read(request.digest, offset=offset, size=request.size):
                for at in range(0, len(piece), _PIECE):
                    part = piece[at : at + _PIECE]
                    yield content_pb2.ReadContentResponse(offset=offset, data=part)
                    offset += len(part)
            return
        if offset > len(data):
            raise WharfError(Kind.OUT_OF_RANGE, f"read past object length {len(data)} bytes")
        end = min(len(data), offset + request.size) if request.size else len(data)
        for at in range(offset, end, _PIECE):
            yield content_pb2.ReadContentResponse(offset=at, data=data[at : min(at + _PIECE, end)])

    async def _own(self, digest: str) -> bytes | None:
        if not digest:
            raise not_found("content : not found")
        await self._history.load()
        data = await self._history.blob(digest)
        if data is None and not await self._images.may_read(digest):
            raise not_found(f"content {digest}: not found")
        return data
