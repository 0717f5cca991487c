"""Where an archive is extracted to, and how."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum


class Whiteouts(Enum):
    """What happens to ``.wh.`` entries."""

    OVERLAY = "overlay"  # they become overlayfs's marks: device 0/0 and the opaque attribute
    APPLY = "apply"  # the named files are deleted: the target is a plain copy of the parent
    KEEP = "keep"  # they are ordinary names: the archive is not a layer


@dataclass(frozen=True, slots=True)
class Target:
    """The directory that an archive is extracted to.

    ``root`` is its path; with OVERLAY it is an upper directory and ``lowers`` are the layers below it, the nearest
    first (directories that the archive doesn't contain get their attributes from there).
    """

    root: str
    whiteouts: Whiteouts = Whiteouts.KEEP
    lowers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Options:
    """How an archive that is not a layer is extracted."""

    owner: tuple[int, int] | None = None  # the uid and gid of every file
    map_owner: Callable[[int, int], tuple[int, int]] | None = None  # maps the archive's uid and gid to those on disk
    into: str = "/"  # the directory inside the root that names are relative to (links in it are followed)
    no_overwrite_kind: bool = False  # a file must not replace a directory, nor a directory a file (``docker cp``)
    follow_dir_links: bool = False  # a directory entry whose name is a link to a directory keeps the link
    map_name: Callable[[str], str | None] | None = None  # renames an entry, or skips it (None)


def overlay_target(options: Sequence[str]) -> Target | None:
    """The target of an overlay mount's options; None if they have no upper directory (a view)."""
    upper = ""
    lowers: tuple[str, ...] = ()
    for option in options:
        key, _, value = option.partition("=")
        if key == "upperdir":
            upper = value
        elif key == "lowerdir":
            lowers = tuple(value.split(":"))
    return Target(upper, Whiteouts.OVERLAY, lowers) if upper else None
