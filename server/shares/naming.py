"""The names of users' cgroups.

With the cgroupfs driver, the cgroup of the user ``alice`` is ``@alice`` below the engine's parent; ids of containers,
which are beside it, have no ``@``. With the systemd driver it is a slice below the engine's parent, whose name nests by
``-`` (systemd.slice(5)): ``wharf-alice.slice``, or ``lab-alice.slice`` if the parent is ``lab.slice``. What a user
creates through a job socket is in a cgroup below the user's; those of administrators' job sockets are below ``@~`` or
``wharf-\\x7e.slice``.
"""

import hashlib
import os
import re
from dataclasses import dataclass

from engine.common.system import cgroups
from server.access.owners import user_of
from server.containers.spec.host import SYSTEMD

#: Parents below which systemd has units of its own: users' slices are below ``wharf.slice`` instead.
_SHARED = frozenset(("", "-.slice", "system.slice"))
_DEFAULT = "wharf"
# systemd limits the name of a unit to 255 bytes.
_MOST = 100
_UNSAFE = re.compile(r"[^A-Za-z0-9_.]")


@dataclass(frozen=True, slots=True)
class Group:
    """A cgroup above containers. ``parent``: as ``--cgroup-parent`` names it. ``path``: in every hierarchy."""

    parent: str
    path: str


def group_of(owner: str, parent: str, driver: str) -> Group:
    """The cgroup of an owner's containers. ``parent``: the engine's cgroup parent, "" for the default."""
    # No user's name has a "~", nor the escape of one.
    parts = [part or "~" for part in owner.split(":")]
    if driver != SYSTEMD:
        names = "/".join(f"@{part}" for part in parts)
        path = os.path.normpath(f"/{parent or _DEFAULT}/{names}").replace("//", "/")
        return Group(path, path)
    base = _DEFAULT if parent in _SHARED else parent.removesuffix(".slice")
    name = "-".join([base, *map(_escaped, parts)]) + ".slice"
    return Group(name, os.path.dirname(cgroups.scope_path(f"{name}:x:x")))


def user_group(owner: str, parent: str, driver: str) -> Group:
    """The cgroup of the user to whom an owner belongs; the limits are there."""
    return group_of(user_of(owner), parent, driver)


def is_group(name: str, parent: str, driver: str) -> bool:
    """Whether a directory below the parent's is the cgroup of a user."""
    if driver != SYSTEMD:
        return name.startswith("@")
    base = _DEFAULT if parent in _SHARED else parent.removesuffix(".slice")
    return name.startswith(f"{base}-") and name.endswith(".slice")


def _escaped(name: str) -> str:
    """A name in the name of a unit, as systemd-escape(1) writes it; a hash if it is too long for one."""
    escaped = _UNSAFE.sub(lambda found: "".join(f"\\x{byte:02x}" for byte in found[0].encode()), name)
    if len(escaped) > _MOST:
        return hashlib.sha256(name.encode()).hexdigest()
    return escaped
