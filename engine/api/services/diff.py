"""The diff service: applies a layer to mounts, and writes the difference of two mounts as a layer."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from engine.api.extensions import ARRIVING, NONE, watch_extraction
from engine.api.pb import diff_pb2 as pb
from engine.api.rpc import Connection
from engine.api.types import Descriptor, Mount

_SERVICE = "/containerd.services.diff.v1.Diff"


class Diff:
    def __init__(self, connection: Connection) -> None:
        self._rpc = connection
        #: Set by ``Engine.connect``.
        self.extensions = NONE

    async def apply(
        self,
        desc: Descriptor,
        mounts: Sequence[Mount],
        *,
        arriving: str = "",
        progress: Callable[[int], None] | None = None,
    ) -> Descriptor:
        """Unpacks the layer ``desc`` onto ``mounts``. Returns the descriptor of the uncompressed tar (its digest is the
        diff id).

        ``arriving``: the ref under which the layer's bytes are being written (only if ``extensions.applies_ingests``).
        The layer's digest may be unknown then. After any failure the caller applies the layer again once it is
        complete.

        ``progress`` is called with the number of layer bytes that are unpacked, where the server reports it.
        """
        if arriving:
            desc = replace(desc, annotations={**desc.annotations, ARRIVING: arriving})
        request = pb.ApplyRequest(diff=desc.to_message(), mounts=[mount.to_message() for mount in mounts])
        watching = None
        if progress is not None and (path := self.extensions.descriptors):
            watching = asyncio.create_task(watch_extraction(path, self._rpc.namespace, desc.digest, progress))
        try:
            reply = await self._rpc.call(f"{_SERVICE}/Apply", request, pb.ApplyResponse, deadline="diff.apply")
        finally:
            if watching is not None:
                watching.cancel()
        return Descriptor.from_message(reply.applied)

    async def diff(
        self,
        left: Sequence[Mount],
        right: Sequence[Mount],
        *,
        media_type: str = "application/vnd.oci.image.layer.v1.tar+gzip",
        ref: str = "",
        labels: Mapping[str, str] | None = None,
    ) -> Descriptor:
        """Writes the changes from ``left`` to ``right`` as a layer into the content store.

        The blob carries the label ``containerd.io/uncompressed`` with its diff id.
        """
        request = pb.DiffRequest(
            left=[mount.to_message() for mount in left],
            right=[mount.to_message() for mount in right],
            media_type=media_type,
            ref=ref,
            labels=dict(labels or {}),
        )
        reply = await self._rpc.call(f"{_SERVICE}/Diff", request, pb.DiffResponse, deadline="diff.apply")
        return Descriptor.from_message(reply.diff)
