"""Reads the content of an image archive, once, from a stream that can't be rewound.

An image's documents often follow its layers, so files are classified by name. Documents are kept in memory; layers and
blobs are written to the content store as they arrive, protected only by the caller's lease. Other files are skipped,
so an archive that contains no image costs only the reading.
"""

import asyncio
import posixpath
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from engine.api.client import Engine
from engine.common import jsontext, limits
from engine.common.errors import Kind, WharfError, invalid
from engine.common.layers import header as tar
from engine.common.layers.compression import Compression, detect
from server.images.archive.asynctar import AsyncTar, regular
from server.registry import oci
from server.registry.reference import check_digest

#: Files of at most this many bytes are kept in memory, up to a total of ``_SMALL_TOTAL``.
_SMALL = 1 << 20
_SMALL_TOTAL = 32 << 20
INDEX, LAYOUT, MANIFEST, REPOSITORIES = "index.json", "oci-layout", "manifest.json", "repositories"
_DOCUMENTS = (INDEX, LAYOUT, MANIFEST, REPOSITORIES)
#: ``<id>/json`` and ``<id>/VERSION`` belong to the format without a manifest.
_CONFIG = re.compile(r"[^/]+\.json|(?:sha256:)?[0-9a-f]{64}|[^/]+/(?:json|VERSION)")
#: ``<id>/layer.tar``, ``<digest>.tar.gz``, and the names that other tools use.
_LAYER = re.compile(r"(?:[^/]+/){0,3}(?:[^/]+\.(?:tar(?:\.[a-z0-9]+)?|tgz)|(?:sha256:)?[0-9a-f]{64})")


#: Gets the short id of a layer, the bytes of it that are stored, and its size.
Progress = Callable[[str, int, int], None]
#: Seconds between two calls for a layer.
_SHOWN = 0.1


class _Role(Enum):
    DOCUMENT = "document"
    CONFIG = "config"
    BLOB = "blob"
    LAYER = "layer"


@dataclass(frozen=True, slots=True)
class Blob:
    """A file in the content store."""

    digest: str
    size: int
    compression: Compression


@dataclass(slots=True)
class Contents:
    """Files by their cleaned names: ``small`` in memory, ``big`` in the store, ``links`` to others."""

    small: dict[str, bytes] = field(default_factory=dict)
    big: dict[str, Blob] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    progress: Progress | None = None
    _named: set[str] = field(default_factory=set)  # named by the manifest, if it was read first
    _refused: dict[str, WharfError] = field(default_factory=dict)
    _in_memory: int = 0

    def digests(self) -> set[str]:
        """The digests of all files."""
        return {oci.digest_of(data) for data in self.small.values()} | {blob.digest for blob in self.big.values()}

    def follow(self, name: str) -> str:
        """Resolve a link: in old archives, images that share a layer link to one copy."""
        for _ in range(8):
            if name not in self.links:
                return name
            name = self.links[name]
        raise invalid(f"{name}: too many links")

    async def add(self, engine: Engine, archive: AsyncTar, header: tar.Header) -> None:
        """Store an entry of the archive if it may belong to an image.

        :raises WharfError: INVALID_ARGUMENT for too many files, too large documents, and a wrong digest.
        """
        name = _clean(header.name)
        role = self._role(name)
        if role is None:
            return
        if len(self.small) + len(self.big) + len(self.links) + len(self._refused) >= limits.ARCHIVE_FILES:
            raise limits.exceeded("ARCHIVE_FILES", "the number of files of images in the archive")
        if header.type == tar.SYMLINK:
            self.links[name] = _clean(posixpath.join(posixpath.dirname(name), header.linkname))
        elif header.type == tar.HARDLINK:
            self.links[name] = _clean(header.linkname)
        elif regular(header):
            await self._keep(engine, archive, name, header.size, role)

    async def _keep(self, engine: Engine, archive: AsyncTar, name: str, size: int, role: _Role) -> None:
        if role is _Role.DOCUMENT or role is _Role.CONFIG:
            if error := self._too_large(name, size):
                if role is _Role.DOCUMENT:
                    raise error
                self._refused[name] = error  # raised only if an image refers to the file
                return
            self._in_memory += size
            self.small[name] = await archive.read(limits.DOCUMENT_BYTES)
            if name == MANIFEST:
                self._named = _manifest_files(self.small[name])
        elif role is _Role.LAYER and size <= _SMALL and self._in_memory + size <= _SMALL_TOTAL:
            self._in_memory += size
            self.small[name] = await archive.read(_SMALL)
        else:
            self.big[name] = await _ingest(engine, archive, size, _blob_digest(name), name, self.progress)

    def _too_large(self, name: str, size: int) -> WharfError | None:
        if size > limits.DOCUMENT_BYTES:
            return limits.exceeded("DOCUMENT_BYTES", f"{name}: its size {size}")
        if self._in_memory + size > limits.ARCHIVE_DOCUMENT_BYTES:
            return limits.exceeded("ARCHIVE_DOCUMENT_BYTES", "the size of all documents in the archive")
        return None

    def missing(self, name: str, what: str) -> WharfError:
        """Return the error for a file that a manifest names and the archive lacks."""
        return self._refused.get(name) or invalid(f"{what} {name!r} not found: unrecognized image format")

    def _role(self, name: str) -> _Role | None:
        if name in _DOCUMENTS:
            return _Role.DOCUMENT
        if _blob_digest(name):
            return _Role.BLOB
        if MANIFEST in self.small and name in self._named:
            return _Role.CONFIG if _CONFIG.fullmatch(name) else _Role.LAYER
        # A bare digest matches both patterns, and the size can't decide: a layer may be small, too.
        if _LAYER.fullmatch(name):
            return _Role.LAYER
        return _Role.CONFIG if _CONFIG.fullmatch(name) else None


async def read(engine: Engine, archive: AsyncTar, progress: Progress | None = None) -> Contents:
    """Read the whole archive. Under a lease."""
    contents = Contents(progress=progress)
    async for header in archive:
        await contents.add(engine, archive, header)
    return contents


def _short(name: str) -> str:
    """A layer as ``docker load`` names it: the beginning of its digest, or of its directory in an old archive."""
    parts = name.removeprefix("sha256:").split("/")
    return (parts[-2] if parts[-1] == "layer.tar" and len(parts) > 1 else parts[-1])[:12]


def _clean(name: str) -> str:
    return posixpath.normpath("/" + name).lstrip("/")


def _manifest_files(manifest: bytes) -> set[str]:
    """The files that ``manifest.json`` names. Errors in it are reported later, when images are created."""
    try:
        images = jsontext.loads(manifest)
    except ValueError:
        return set()
    found: set[str] = set()
    for image in images if isinstance(images, list) else ():
        if isinstance(image, dict):
            layers = image.get("Layers")
            names = [image.get("Config"), *(layers if isinstance(layers, list) else ())]
            found.update(_clean(name) for name in names if isinstance(name, str))
    return found


def _blob_digest(name: str) -> str:
    parts = name.split("/")
    if len(parts) != 3 or parts[0] != "blobs":
        return ""
    try:
        return check_digest(f"{parts[1]}:{parts[2]}")
    except WharfError:
        return ""


async def _ingest(
    engine: Engine, archive: AsyncTar, size: int, digest: str, name: str, progress: Progress | None
) -> Blob:
    """Write a large file to the store; compute its digest, or verify the digest in its name."""
    # Use a ref of its own: another client that sends the same file may stall. The first to finish commits.
    ref = f"load-{secrets.token_hex(8)}"
    head = b""
    written = 0
    id, shown = _short(digest or name), 0.0
    try:
        async with engine.content.writer(ref, expected=digest, total=size) as writer:
            async for piece in archive.data():
                if len(head) < 6:
                    head += bytes(piece[:6])
                await writer.write(piece)
                written += len(piece)
                if progress is not None and (written == size or time.monotonic() > shown + _SHOWN):
                    shown = time.monotonic()
                    progress(id, written, size)
            # Ask before the commit: if the store has the blob already, the commit does not return its digest.
            found = digest or await writer.current_digest()
            await writer.commit(size=size, digest=found)
    except BaseException as error:  # the client may have disconnected too: abort the write
        await asyncio.shield(engine.content.discard_ingest(ref))
        refusal = isinstance(error, WharfError) and error.kind in (Kind.FAILED_PRECONDITION, Kind.INVALID_ARGUMENT)
        if not refusal or written < size:
            raise
        raise invalid(f"{name}: {error}") from None
    return Blob(found, size, detect(head))
