"""Paths inside a root: links are followed as a process inside would, and never lead out."""

import os

from engine.errors import invalid

_MOST_LINKS = 40


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
