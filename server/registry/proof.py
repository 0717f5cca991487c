"""Whether a user may have blobs that are in the store already.

Content is stored once for all owners, so a digest alone must not be a key to it: a manifest, which anybody can write,
names blobs by their digests.
"""

import hashlib
from collections.abc import AsyncIterator, Collection

from engine.api.client import Engine
from engine.api.types import Descriptor
from engine.common.errors import Kind, WharfError, not_found
from server.registry import oci
from server.registry.client import Repository
from server.registry.responses import RegistryError


async def is_blob(pieces: AsyncIterator[bytes], blob: Descriptor) -> bool:
    """Whether these are the bytes of a blob. Reads at most one piece more than the blob's size."""
    found, size = hashlib.sha256(), 0
    async for piece in pieces:
        size += len(piece)
        if size > blob.size:
            return False
        found.update(piece)
    return size == blob.size and f"sha256:{found.hexdigest()}" == blob.digest


class Proof:
    """The proof for one pull of one user. ``own``: the digests below the images that exist for the user."""

    def __init__(self, engine: Engine, repository: Repository, own: Collection[str]) -> None:
        self._engine = engine
        self._repository = repository
        self._own = own

    async def check(self, desc: Descriptor) -> None:
        """Returns if the user may have the stored blob: it is below an own image; or it came from this registry, which
        says that the repository has it and that these credentials may read it; or the registry sends it again.

        :raises WharfError: NOT_FOUND: the repository doesn't have the blob; or the registry's error.
        """
        if desc.digest in self._own:
            return
        if await self._is_from_here(desc.digest):
            if not await self._has(desc):
                raise not_found(f"{desc.digest}: the repository does not have it")
        else:
            await self._receive(desc)

    async def _is_from_here(self, digest: str) -> bool:
        """Whether an earlier pull from this registry stored the blob. Another registry may claim to have anything."""
        try:
            info = await self._engine.content.info(digest)
            return bool(info.labels.get(oci.source_label(self._repository.reference)))
        except WharfError as error:
            if error.kind is Kind.NOT_FOUND:
                return False
            raise

    async def _has(self, desc: Descriptor) -> bool:
        place = "manifests" if oci.is_index(desc.media_type) or oci.is_manifest(desc.media_type) else "blobs"
        try:
            async with self._repository.request("HEAD", f"{place}/{desc.digest}", headers={"accept": oci.ACCEPT}):
                return True
        except RegistryError as error:
            if error.status == 404:
                return False
            raise

    async def _receive(self, desc: Descriptor) -> None:
        """Transfers the blob without storing it, and compares its digest."""
        if oci.is_index(desc.media_type) or oci.is_manifest(desc.media_type):
            await self._repository.manifest(desc.digest)  # compares it
            return
        async with self._repository.blob(desc.digest) as (_, pieces):
            same = await is_blob(pieces, desc)
        if not same:
            raise not_found(f"{desc.digest}: the registry sent other bytes")
