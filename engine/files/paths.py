"""Paths inside a root: links are followed as a process inside would, and never lead out."""

import os

from engine.errors import invalid
from engine.system import linux

_MOST_LINKS = 40
_INSIDE = linux.RESOLVE_IN_ROOT | linux.RESOLVE_NO_MAGICLINKS


def resolve(root: int, path: str, *, last: bool = True) -> str:
    """``path`` with every symlink on the way followed within the root; ``last``: the final one too.

    What doesn't exist is kept as written, so that a target yet to be made resolves too. Returns a relative path.
    """
    todo = [part for part in path.split("/") if part not in ("", ".")][::-1]
    done: list[str] = []
    links = 0
    while todo:
        part = todo.pop()
        if part == "..":
            if done:
                done.pop()
            continue
        here = "/".join((*done, part))
        if todo or last:
            try:
                link = os.readlink(here, dir_fd=root)
            except OSError:
                link = ""
            if link:
                links += 1
                if links > _MOST_LINKS:
                    raise invalid(f"too many links in {path!r}")
                if link.startswith("/"):
                    done = []
                todo.extend([item for item in link.split("/") if item not in ("", ".")][::-1])
                continue
        done.append(part)
    return "/".join(done)


def make_place(root: str, path: str, *, directory: bool) -> None:
    """Makes where something is to be mounted, as the runtime does: missing directories, and a file at the end unless
    ``directory``. What is there already stays as it is. Blocks.

    :raises OSError: it can't be made.
    """
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        parts = [part for part in resolve(fd, path).split("/") if part]
        for depth, name in enumerate(parts, 1):
            above = linux.openat2(fd, "/".join(parts[: depth - 1]) or ".", os.O_PATH | os.O_DIRECTORY, 0, _INSIDE)
            try:
                if os.path.lexists(f"/proc/self/fd/{above}/{name}"):
                    continue
                if directory or depth < len(parts):
                    os.mkdir(name, 0o755, dir_fd=above)
                else:
                    os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644, dir_fd=above))
            finally:
                os.close(above)
    finally:
        os.close(fd)
