"""Definitions that refer to results: the context of a target that is another target (``target:`` in a bake file).

A client receives a result's definition and passes it as an input of another build. Only Wharf reads its content: one
source operation that names the result, and a final operation (pb.Op of BuildKit's solver, in protobuf's wire format).
"""

import hashlib
import re

from server.builder.session.pb import ops_pb2

SCHEME = "wharf-result://"
_NAMED = re.compile(re.escape(SCHEME.encode()) + rb"([\w./-]+)")


def _field(number: int, data: bytes) -> bytes:
    """Encode a length-delimited field."""
    size, length = len(data), b""
    while size > 127:
        length += bytes((size & 127 | 128,))
        size >>= 7
    return bytes((number << 3 | 2,)) + length + bytes((size,)) + data


def definition(result: str) -> list[bytes]:
    """Return the operations of a definition."""
    source = _field(3, _field(1, (SCHEME + result).encode()))
    digest = "sha256:" + hashlib.sha256(source).hexdigest()
    return [source, _field(1, _field(1, digest.encode()))]


def operations(definition: ops_pb2.Definition) -> list[bytes]:
    """Return the operations to solve. A definition without operations is an empty one: BuildKit checks only these."""
    return list(getattr(definition, "def"))


def result_named(operations: list[bytes]) -> str:
    """Return the result that one of our definitions names; empty for other definitions."""
    for operation in operations:
        match = _NAMED.search(operation)
        if match is not None:
            return match[1].decode()
    return ""
