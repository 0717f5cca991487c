"""LLB definitions of a single source, which clients build themselves: a Dockerfile by URL, a repository, or a file
with the definitions of a bake. No other LLB is supported.
"""

import posixpath
from dataclasses import dataclass

from engine.common.errors import invalid, not_implemented
from server.builder.jobs.inputs import operations
from server.builder.session.pb import ops_pb2
from server.registry import oci

CAPS = (
    "constraints",
    "meta.description",
    "platform",
    "source.git",
    "source.git.fullurl",
    "source.git.keepgitdir",
    "source.http",
)
"""The capabilities that clients check before they send such a definition."""


@dataclass(frozen=True, slots=True)
class Remote:
    """``url`` in the syntax of ``ADD``, the target path, and the client's name for it."""

    url: str
    target: str
    name: str


def remote(definition: ops_pb2.Definition) -> Remote:
    """Return the single source of a definition.

    :raises WharfError: NOT_IMPLEMENTED for any other definition; INVALID_ARGUMENT for an invalid one.
    """
    found = operations(definition)
    if len(found) != 2:
        raise not_implemented("solving a low-level build definition (LLB) is not supported")
    source = None
    for data in found:
        try:
            operation = ops_pb2.Op.FromString(data)
        except Exception:
            raise invalid("the low-level build definition can't be read") from None
        if operation.HasField("source"):
            source, name = operation.source, definition.metadata[oci.digest_of(data)].description.get("llb.customname")
    if source is None:
        raise not_implemented("solving a low-level build definition (LLB) is not supported")
    kind, _, rest = source.identifier.partition("://")
    if kind in ("http", "https"):
        file = source.attrs.get("http.filename") or posixpath.basename(rest.partition("?")[0]) or "download"
        return Remote(_literal(source.identifier), f"/{_literal(file)}", name or source.identifier)
    if kind == "git":
        url = source.attrs.get("git.fullurl") or source.identifier
        fragment = rest.partition("#")[2]
        return Remote(_literal(f"{url}#{fragment}" if fragment else url), "/", name or source.identifier)
    raise not_implemented(f"solving a low-level build definition (LLB) of {kind} is not supported")


def _literal(text: str) -> str:
    """Escape a text for use as a Dockerfile word."""
    return text.replace("\\", "\\\\").replace("$", "\\$")
