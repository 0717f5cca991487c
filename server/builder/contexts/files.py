"""The files of an extracted context: its Dockerfile, ``.dockerignore`` and subdirectories.

Links in their paths are resolved within the context's root.
"""

import contextlib
import os
import posixpath
import stat
from dataclasses import dataclass

from engine.common.errors import Kind, WharfError, invalid
from engine.common.files.paths import open_inside
from engine.common.limits import DOCKERFILE_BYTES
from server.builder.dockerfile.ignore import Ignore, read

DEFAULT = "Dockerfile"


@dataclass(frozen=True, slots=True)
class Context:
    """A build's files below ``root``, and the text and name of its Dockerfile."""

    root: str
    dockerfile: str
    name: str


def read_dockerfile(root: str, dockerfile: str) -> Context:
    """Read the Dockerfile of a context. The Dockerfile and ``.dockerignore`` are deleted after reading if ignored.

    :raises WharfError: INTERNAL for a missing Dockerfile or a path outside the context; INVALID_ARGUMENT for an empty
        Dockerfile or a file larger than ``DOCKERFILE_BYTES``.
    """
    name = dockerfile or DEFAULT
    text = _read_inside(root, name)
    if text is None and not dockerfile:
        name = "dockerfile"
        text = _read_inside(root, name)
    if text is None:
        raise WharfError(Kind.INTERNAL, f"Cannot locate specified Dockerfile: {dockerfile or DEFAULT}")
    if not text:
        raise invalid(f"the Dockerfile ({name}) cannot be empty")
    own = f"{name}.dockerignore"
    listed = _read_inside(root, own)
    listing = own if listed is not None else ".dockerignore"
    patterns = listed if listed is not None else _read_inside(root, ".dockerignore")
    if patterns:
        ignore = Ignore(read(patterns))
        for file in (listing, posixpath.normpath(name)):
            if ignore.ignores(file):
                with contextlib.suppress(OSError):
                    _unlink_inside(root, file)
    return Context(root, text, name)


def _unlink_inside(root: str, name: str) -> None:
    """Delete a file of the context."""
    above, _, last = name.rpartition("/")
    parent = open_inside(root, above, os.O_PATH | os.O_DIRECTORY)
    try:
        os.unlink(last, dir_fd=parent)
    finally:
        os.close(parent)


def _read_inside(root: str, name: str) -> str | None:
    """Read a text file of the context; ``None`` if it is missing.

    :raises WharfError: INTERNAL in dockerd's words for a path outside the context.
    """
    clean = posixpath.normpath(name.lstrip("/"))
    if clean.startswith("../") or clean == "..":
        raise WharfError(Kind.INTERNAL, f"forbidden path outside the build context: {name} ()")
    try:
        fd = open_inside(root, clean, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return None
    with os.fdopen(fd, "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            return None
        if found.st_size > DOCKERFILE_BYTES:
            raise invalid(f"{name} is larger than {DOCKERFILE_BYTES} bytes")
        return file.read().decode(errors="replace")


def folder_below(root: str, folder: str) -> str:
    """Return a directory in the context.

    :raises WharfError: INVALID_ARGUMENT: it is missing, or no directory.
    """
    try:
        fd = open_inside(root, folder, os.O_PATH | os.O_DIRECTORY)
    except OSError as error:
        raise invalid(f"error setting git subdir: {folder}: {(error.strerror or '').lower()}") from None
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)
