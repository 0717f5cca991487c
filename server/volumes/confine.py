"""What a role refuses when its user makes a volume: mounts of anything but a directory below the data root."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from server.access.refusal import refused

if TYPE_CHECKING:
    from server.access.policy import Role

LOCAL = "local"
# mount(2)'s arguments: root would mount any directory, device or server.
_MOUNTS = ("device", "type", "o")


def check(role: "Role", driver: str, options: Mapping[str, str]) -> None:
    """``driver`` "": the local one, or that of the existing volume.

    :raises WharfError: PERMISSION_DENIED: names what the role lacks.
    """
    if role.privileged:
        return
    if driver not in ("", LOCAL):
        if not role.plugins:
            raise refused(f"the volume driver {driver}: it is a plugin's")
        return
    for name in _MOUNTS:
        if name in options:
            raise refused(f"the volume option {name}={options[name]}")
