"""Low-level definitions of one source, which clients make themselves: a Dockerfile by its URL, a repository or a file
with the definitions of a bake. Nothing else of BuildKit's low-level language is understood.
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
"""What clients look for before they make such a definition."""


@dataclass(frozen=True, slots=True)
class Remote:
    """``url`` as ``ADD`` takes it, where it goes, and what the client calls it."""

    url: str
    target: str
    name: str


def remote(definition: ops_pb2.Definition) -> Remote:
    """The source that a definition consists of.

    :raises WharfError: NOT_IMPLEMENTED for any other definition; INVALID_ARGUMENT for one that can't be read.
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
    """For a Dockerfile's word."""
    return text.replace("\\", "\\\\").replace("$", "\\$")
