"""Images from other nodes. Implements ``server.registry.source.Source``, so that a pull from them is the same as one
from a registry: documents and blobs are verified by their digests, layers are unpacked, a lease protects them.

The nodes are asked one after the other. One that fails, or sends other content, is asked no more during this pull; the
next one continues at the byte where the former stopped.

A digest proves what a node sends, a tag doesn't: only managers say which image a tag is, so that no worker decides what
other nodes run. As without a registry in dockerd, an image of one name may differ between them.
"""

import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Self
from urllib.parse import urlencode

from engine.common import limits
from engine.common.errors import Kind, WharfError, not_found
from engine.common.sockets import join_host_port
from server.registry import oci
from server.registry.reference import Reference
from server.registry.responses import RegistryError
from server.swarm.agent.dispatcher import NodeAddress
from server.swarm.remote import wire
from server.swarm.remote.client import Connections, asking
from server.swarm.remote.identity import Identity
from server.swarm.remote.logs import NODE_PORT

if TYPE_CHECKING:
    import httpx

#: Bytes of a piece of a blob.
_PIECE = 1 << 20
#: A node's answer that says nothing about other blobs.
_LACKS = (Kind.NOT_FOUND, Kind.PERMISSION_DENIED)


class PeerSource:
    """The image of a service at these nodes, for one pull: an async context manager."""

    def __init__(
        self,
        identity: Identity,
        reference: Reference,
        service_id: str,
        peers: Sequence[NodeAddress],
        port: int = NODE_PORT,
    ) -> None:
        self.reference = reference
        self.attempts = 3
        self.is_registry = False
        self._connections = Connections(identity)
        self._parameters = {"service": service_id, "image": reference.familiar}
        self._peers = list(peers)
        self._port = port
        # The node that has sent a blob last.
        self._sent: dict[str, NodeAddress] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._connections.close()

    async def head(self, selector: str) -> tuple[str, str, int] | None:
        return None

    async def manifest(self, selector: str) -> tuple[bytes, str]:
        path = f"/blobs/{selector}" if ":" in selector else "/image"
        failure: WharfError | None = None
        for peer in list(self._peers):
            if ":" not in selector and not peer.manager:
                continue
            try:
                async with self._asking(peer, path) as response:
                    data = await _whole(response)
                if ":" in selector and oci.digest_of(data) != selector:
                    raise WharfError(Kind.UNAVAILABLE, f"manifest verification failed for digest {selector}")
                return data, oci.media_type_of(oci.load(data, selector))
            except WharfError as error:
                failure = self._failed(peer, error)
        raise failure or self._missing("no manager" if ":" not in selector else "no other node")

    @contextlib.asynccontextmanager
    async def blob(
        self, digest: str, offset: int = 0, url: str = ""
    ) -> AsyncIterator[tuple[int, AsyncIterator[bytes]]]:
        failure: WharfError | None = None
        for peer in list(self._peers):
            async with contextlib.AsyncExitStack() as stack:
                try:
                    response = await stack.enter_async_context(self._asking(peer, f"/blobs/{digest}", offset))
                except WharfError as error:
                    failure = self._failed(peer, error)
                    continue
                self._sent[digest] = peer
                yield offset, self._pieces(peer, response)
                return
        raise failure or self._missing("no other node")

    def reject(self, digest: str) -> bool:
        if (peer := self._sent.pop(digest, None)) is not None:
            self._drop(peer)
        return bool(self._peers)

    def _asking(
        self, peer: NodeAddress, path: str, offset: int = 0
    ) -> contextlib.AbstractAsyncContextManager["httpx.Response"]:
        parameters = {**self._parameters, "offset": str(offset)} if offset else self._parameters
        url = f"https://{join_host_port(peer.host, self._port)}{wire.VERSION}{path}?{urlencode(parameters)}"

        @contextlib.asynccontextmanager
        async def asked() -> AsyncIterator["httpx.Response"]:
            async with self._connections.client() as client, asking(client, "GET", url, peer.node_id) as response:
                yield response

        return asked()

    async def _pieces(self, peer: NodeAddress, response: "httpx.Response") -> AsyncIterator[bytes]:
        import httpx

        try:
            async for piece in response.aiter_raw(_PIECE):
                yield piece
        except (httpx.HTTPError, OSError) as error:
            self._drop(peer)
            text = f"node {peer.node_id}: unexpected EOF ({error})"
            raise RegistryError(Kind.UNAVAILABLE, text, again=bool(self._peers)) from None

    def _failed(self, peer: NodeAddress, error: WharfError) -> WharfError:
        """The error of the pull, if no other node answers."""
        if error.kind is Kind.RESOURCE_EXHAUSTED:  # the node has many readers now
            return RegistryError(Kind.UNAVAILABLE, error.message, status=503, again=True)
        if error.kind not in _LACKS:
            self._drop(peer)
        return not_found(f"node {peer.node_id}: {error.message}")

    def _drop(self, peer: NodeAddress) -> None:
        if peer in self._peers:
            self._peers.remove(peer)

    def _missing(self, asked: str) -> WharfError:
        return not_found(f"{asked} has the image {self.reference.familiar}")


async def _whole(response: "httpx.Response") -> bytes:
    """:raises WharfError: UNAVAILABLE: it is too long for a document."""
    parts, size = [], 0
    async for part in response.aiter_raw():
        size += len(part)
        if size > limits.DOCUMENT_BYTES:
            raise WharfError(Kind.UNAVAILABLE, f"the document has more than {limits.DOCUMENT_BYTES} bytes")
        parts.append(part)
    return b"".join(parts)
