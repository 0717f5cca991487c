"""Applies layers to the directories of snapshots, and writes the difference of two as a layer."""

import gzip
import io
import os
import shutil
import tarfile
from pathlib import Path

import zstandard

from engine.api.pb import diff_pb2 as pb
from engine.api.pb import types_pb2
from engine.api.tests.fake.content import Content, digest_of
from engine.api.tests.fake.state import Call
from engine.common.errors import Kind, WharfError, invalid, not_found

_LAYER = "application/vnd.oci.image.layer.v1.tar"
_WHITEOUT = ".wh."


class Diff:
    def __init__(self, content: Content) -> None:
        self._content = content

    def apply(self, call: Call, request: pb.ApplyRequest) -> pb.ApplyResponse:
        blob = call.space.blobs.get(request.diff.digest)
        if blob is None:
            raise not_found(f"content {request.diff.digest}: not found")
        plain = _decompressed(blob.data)
        _extract(plain, Path(request.mounts[0].source))
        applied = types_pb2.Descriptor(media_type=_LAYER, digest=digest_of(plain), size=len(plain))
        return pb.ApplyResponse(applied=applied)

    def diff(self, call: Call, request: pb.DiffRequest) -> pb.DiffResponse:
        plain = _difference(Path(request.left[0].source), Path(request.right[0].source))
        data = gzip.compress(plain, mtime=0) if request.media_type.endswith("gzip") else plain
        digest = digest_of(data)
        labels = {"containerd.io/uncompressed": digest_of(plain), **request.labels}
        try:
            self._content.add(call, data, labels)
        except WharfError as error:
            if error.kind is not Kind.ALREADY_EXISTS:
                raise
        made = types_pb2.Descriptor(media_type=request.media_type, digest=digest, size=len(data))
        return pb.DiffResponse(diff=made)


def _decompressed(data: bytes) -> bytes:
    if data.startswith(b"\x1f\x8b"):
        return gzip.decompress(data)
    if data.startswith(b"\x28\xb5\x2f\xfd"):
        return zstandard.ZstdDecompressor().decompressobj().decompress(data)
    return data


def _extract(plain: bytes, root: Path) -> None:
    try:
        with tarfile.open(fileobj=io.BytesIO(plain), mode="r:") as archive:
            # The argument ``filter`` is missing in 3.11.0 to 3.11.3, and later versions warn where there is no filter.
            archive.extraction_filter = lambda member, path: member
            for member in archive:
                folder, name = os.path.split(member.name)
                if name.startswith(_WHITEOUT):
                    _remove(root / folder / name.removeprefix(_WHITEOUT))
                else:
                    archive.extract(member, root, numeric_owner=True)
    except tarfile.ReadError:
        raise invalid("archive/tar: invalid tar header") from None


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _difference(left: Path, right: Path) -> bytes:
    """A tar of what ``right`` has beyond ``left``, with a whiteout for each path that it lacks."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path in sorted(right.rglob("*")):
            name = path.relative_to(right)
            if _looks(path) != _looks(left / name):
                archive.add(path, str(name), recursive=False)
        for path in sorted(left.rglob("*")):
            name = path.relative_to(left)
            if not os.path.lexists(right / name) and os.path.lexists(right / name.parent):
                archive.addfile(tarfile.TarInfo(str(name.parent / f"{_WHITEOUT}{name.name}")))
    return buffer.getvalue()


def _looks(path: Path) -> object:
    """What two paths that are the same have in common; None if there is none."""
    if not os.path.lexists(path):
        return None
    found = path.lstat()
    inside = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else b""
    return found.st_mode, found.st_uid, found.st_gid, inside
