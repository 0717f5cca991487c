"""Results as definitions: a target that is the context of another one (``target:`` in a bake file).

A client gets a result's definition, and hands it back as an input of another build. What is in it is for us alone:
one source that names the result, and an end that points to it (pb.Op of BuildKit's solver, in protobuf's wire format).
"""

import hashlib
import re

from server.builder.session.pb import ops_pb2

SCHEME = "wharf-result://"
_NAMED = re.compile(re.escape(SCHEME.encode()) + rb"([\w./-]+)")


def _field(number: int, data: bytes) -> bytes:
    """A length-delimited field."""
    size, length = len(data), b""
    while size > 127:
        length += bytes((size & 127 | 128,))
        size >>= 7
    return bytes((number << 3 | 2,)) + length + bytes((size,)) + data


def definition(result: str) -> list[bytes]:
    """The operations of a definition."""
    source = _field(3, _field(1, (SCHEME + result).encode()))
    digest = "sha256:" + hashlib.sha256(source).hexdigest()
    return [source, _field(1, _field(1, digest.encode()))]


def operations(definition: ops_pb2.Definition) -> list[bytes]:
    """What a client wants to be solved. A definition may be there and have none: BuildKit looks at these alone."""
    return list(getattr(definition, "def"))


def named(operations: list[bytes]) -> str:
    """The result that a definition of ours names; empty for another's."""
    for operation in operations:
        match = _NAMED.search(operation)
        if match is not None:
            return match[1].decode()
    return ""
