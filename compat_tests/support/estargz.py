"""Images in the format eStargz, whose layers stargz-snapshotter provides before they are downloaded."""

from __future__ import annotations

import gzip
import io
import json
import struct
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass

from compat_tests.support.images import config, descriptor, digest
from compat_tests.support.servers.registry import Registry
from compat_tests.support.transfers import OCI, put_blob, put_manifest

TOC_DIGEST = "containerd.io/snapshot/stargz/toc.digest"
_TOC = "stargz.index.json"
_KINDS = {tarfile.REGTYPE: "reg", tarfile.DIRTYPE: "dir", tarfile.SYMTYPE: "symlink", tarfile.LNKTYPE: "hardlink"}


@dataclass(frozen=True, slots=True)
class Layer:
    """A compressed layer. ``plain``: the tar. ``toc``: the digest of its table of contents."""

    plain: bytes
    packed: bytes
    toc: str


def estargz(plain: bytes) -> Layer:
    """Return a layer as eStargz: a gzip member for each file, the table of contents, and a footer with its offset
    (docs/estargz.md of stargz-snapshotter)."""
    packed, tar = io.BytesIO(), io.BytesIO()
    entries: list[dict[str, object]] = []

    def add(data: bytes) -> int:
        offset = packed.tell()
        packed.write(gzip.compress(data, compresslevel=1, mtime=0))
        tar.write(data)
        return offset

    with tarfile.open(fileobj=io.BytesIO(plain)) as archive:
        for member in archive:
            entry: dict[str, object] = {
                "name": member.name,
                "type": _KINDS[member.type],
                "mode": member.mode,
                "uid": member.uid,
                "gid": member.gid,
                "modtime": "1970-01-01T00:00:00Z",
            }
            if member.linkname:
                entry["linkName"] = member.linkname
            add(member.tobuf(tarfile.PAX_FORMAT))
            file = archive.extractfile(member) if member.isreg() else None
            if file is not None and member.size:
                data = file.read()
                entry |= {"size": member.size, "digest": digest(data), "chunkDigest": digest(data)}
                entry["offset"] = add(data)
                add(bytes(-member.size % 512))
            entries.append(entry)
    toc = json.dumps({"version": 1, "entries": entries}).encode()
    info = tarfile.TarInfo(_TOC)
    info.size = len(toc)
    offset = add(info.tobuf(tarfile.PAX_FORMAT) + toc + bytes(-len(toc) % 512) + bytes(1024))
    packed.write(_footer(offset))
    return Layer(tar.getvalue(), packed.getvalue(), digest(toc))


def _footer(offset: int) -> bytes:
    """An empty gzip member whose header has the offset."""
    extra = b"SG" + struct.pack("<H", 22) + b"%016xSTARGZ" % offset
    header = b"\x1f\x8b\x08\x04" + bytes(4) + b"\x00\xff" + struct.pack("<H", len(extra)) + extra
    return header + b"\x01\x00\x00\xff\xff" + bytes(8)


def push(registry: Registry, repository: str, tag: str, layers: Sequence[Layer], **fields: object) -> bytes:
    """Put an image of these layers into a registry and return its manifest."""
    blob = config([layer.plain for layer in layers], **fields)
    for data in (blob, *(layer.packed for layer in layers)):
        put_blob(registry, repository, data)
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": f"{OCI}.manifest.v1+json",
            "config": descriptor(blob, f"{OCI}.config.v1+json"),
            "layers": [
                descriptor(layer.packed, f"{OCI}.layer.v1.tar+gzip", annotations={TOC_DIGEST: layer.toc})
                for layer in layers
            ],
        }
    ).encode()
    put_manifest(registry, repository, manifest, f"{OCI}.manifest.v1+json", tag=tag)
    return manifest
