"""Parsed image archives, for the tests of load and save."""

from __future__ import annotations

import io
import tarfile

from compat_tests.support.engines import Engine


def files(archive: bytes) -> dict[str, bytes]:
    """Return the regular files of an archive."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar if member.isfile()}  # type: ignore[union-attr]


def save(engine: Engine, *names: str) -> bytes:
    answer = engine.api.get("/images/get", names=list(names))
    assert answer.status == 200, answer.body
    return answer.body
