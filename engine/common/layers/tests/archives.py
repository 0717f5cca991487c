"""Archives for tests of the extraction, made by the standard library's ``tarfile``."""

import hashlib
import io
import tarfile
import tempfile
from collections.abc import Callable
from typing import Protocol

from engine.common.layers.compression import Compression, detect
from engine.common.layers.extract import apply, apply_file
from engine.common.layers.target import Options, Target

Build = Callable[[tarfile.TarFile], None]


class Extract(Protocol):
    """Extracts an archive and returns its diff id."""

    def __call__(self, data: bytes, target: Target, options: Options | None = None) -> str: ...


def archive(build: Build, *, form: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        build(tar)
    return buffer.getvalue()


def entry(tar: tarfile.TarFile, name: str, data: bytes = b"", **fields: object) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in fields.items():
        setattr(info, key, value)
    tar.addfile(info, io.BytesIO(data))


def files(*names: str) -> bytes:
    def build(tar: tarfile.TarFile) -> None:
        for name in names:
            if name.endswith("/"):
                entry(tar, name.rstrip("/"), type=tarfile.DIRTYPE, mode=0o755)
            else:
                entry(tar, name, name.encode())

    return archive(build)


def extract_stream(data: bytes, target: Target, options: Options | None = None) -> str:
    """Extracts from a stream, with all compressions and options."""
    return apply(io.BytesIO(data).read, target, options=options).diff_id


def extract_file(data: bytes, target: Target, options: Options | None = None) -> str:
    """Extracts from a file where that is possible: plain layers."""
    if options is not None or detect(data[:8]) is not Compression.NONE:
        return extract_stream(data, target, options)
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        applied = apply_file(file.fileno(), lambda _: len(data), target)
    assert applied.size == len(data)
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
