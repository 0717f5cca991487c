"""The error sentences of dockerd's classic builder, where BuildKit's differ."""

import os
import re

from engine.common.errors import Kind, WharfError
from server.builder.operations import selection
from server.builder.plan.steps import Copy

_NOBODY = re.compile(r"unable to find (user|group) (.+): no matching entries in \w+ file")


def instruction(operation: Copy) -> str:
    return "ADD" if operation.add else "COPY"


def copy_error(operation: Copy, root: str, error: WharfError) -> str:
    """Return the error of a failed copy. ``root``: the build's context. Blocks."""
    nobody = _NOBODY.fullmatch(error.message)
    if nobody is not None:
        kind, name = nobody[1], nobody[2]
        what = {"user": "uid", "group": "gid"}[kind]
        start = "unable to convert uid/gid chown string to host mapping"
        return f"{start}: can't find {what} for {kind} {name}: no such {kind}: {name}"
    if error.kind is not Kind.NOT_FOUND:
        return error.message
    return _missing(operation, root, error.message)


def _missing(operation: Copy, root: str, otherwise: str) -> str:
    """Return the error of a missing source."""
    if operation.origin is None or operation.origin.step is not None:
        return f"{instruction(operation)} failed: {otherwise}"
    fd = selection.open_root(root)
    try:
        for source in operation.sources:
            try:
                selection.pick(fd, [source])
            except WharfError:
                if any(char in source for char in "*?["):
                    return f"{instruction(operation)} failed: no source files were specified"
                name = source.lstrip("/")
                return (
                    f"{instruction(operation)} failed: file not found in build context or excluded by .dockerignore: "
                    f"stat {name}: file does not exist"
                )
    finally:
        os.close(fd)
    return f"{instruction(operation)} failed: {otherwise}"
