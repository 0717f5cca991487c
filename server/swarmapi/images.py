"""What other nodes read of this node's images.

A request names a service and an image. A node reads only what the image of a task contains that it has itself: a
manager says which images these are, and says it only to managers and to nodes with tasks of the service. The image is
one of this engine's administrators, as are those of tasks.
"""

import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import Protocol

from starlette.responses import Response

from engine.common.errors import invalid, not_found
from server.swarm.agent.taskcontainer import image_name
from server.swarm.remote import wire
from server.swarmapi.application import Call, Route
from server.swarmapi.caller import Access
from server.swarmapi.streams import Slots, content

#: The most blobs that are sent at a time, to one node and to all.
_OF_NODE, _OF_ALL = 8, 64
#: Seconds for which a manager's answer holds, and the most answers that are kept.
_KEPT_SECONDS, _KEPT = 10.0, 1024
_LONGEST = 4096


class SharedImage(Protocol):
    """``blobs``: the sizes of all documents, configs and layers below the image that are on this node, by digest.
    ``digest``: of its index or manifest."""

    @property
    def digest(self) -> str: ...

    @property
    def blobs(self) -> Mapping[str, int]: ...

    def read(self, digest: str, offset: int) -> AsyncIterator[bytes]: ...


@dataclass(frozen=True, slots=True)
class ImagePort:
    """``find``: the image with a name or a digest; raises NOT_FOUND. ``readable``: as
    ``Dispatcher.readable_images``."""

    find: Callable[[str], Awaitable[SharedImage]]
    readable: Callable[[str, str], Awaitable[Sequence[str]]]


class ImageRoutes:
    def __init__(self, port: ImagePort) -> None:
        self._port = port
        self._nodes, self._all = Slots(_OF_NODE), Slots(_OF_ALL)
        # Each blob of an image is a request. By service and node.
        self._answers: dict[tuple[str, str], tuple[float, Sequence[str]]] = {}

    def routes(self) -> list[Route]:
        return [
            Route("GET", f"{wire.VERSION}/image", Access.NODE, self._image),
            Route("GET", f"{wire.VERSION}/blobs/{{id}}", Access.NODE, self._blob),
        ]

    async def _image(self, call: Call) -> Response:
        image = await self._readable(call)
        return self._content(call, image, image.digest, 0)

    async def _blob(self, call: Call) -> Response:
        image = await self._readable(call)
        offset = call.request.query_params.get("offset", "0")
        if not (offset.isascii() and offset.isdigit() and len(offset) < 19):
            raise invalid("malformed offset")
        return self._content(call, image, call.params["id"], int(offset))

    async def _readable(self, call: Call) -> SharedImage:
        query = {name: call.request.query_params.get(name, "") for name in ("service", "image")}
        service, name = wire.strings(query, "service", "image", length=_LONGEST)
        key = service, call.caller.node_id
        until, images = self._answers.get(key, (0.0, ()))
        if until < time.monotonic():
            self._answers.pop(key, None)
            images = await self._port.readable(*key)
            while len(self._answers) >= _KEPT:
                del self._answers[next(iter(self._answers))]
            self._answers[key] = time.monotonic() + _KEPT_SECONDS, images
        if name not in map(image_name, images):
            raise not_found(f"No such image: {name}")
        return await self._port.find(name)

    def _content(self, call: Call, image: SharedImage, digest: str, offset: int) -> Response:
        size = image.blobs.get(digest)
        if size is None:
            raise not_found(f"content digest {digest}: not found")
        if offset > size:
            raise invalid(f"content digest {digest}: the offset {offset} is beyond its {size} bytes")

        # The answer has a status only until it begins.
        with self._taken(call):
            pass

        async def parts() -> AsyncGenerator[bytes, None]:
            with self._taken(call):
                source = image.read(digest, offset)
                if not isinstance(source, AsyncGenerator):
                    async for part in source:
                        yield part
                    return
                async with aclosing(source):
                    async for part in source:
                        yield part

        return content(parts())

    @contextmanager
    def _taken(self, call: Call) -> Iterator[None]:
        with self._nodes.taken(call.caller.node_id), self._all.taken(""):
            yield
