"""What the daemon tells about the host it runs on."""

import os
import platform
from collections.abc import Mapping
from functools import cache

from engine.common.system import mounts

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}


@cache
def os_release() -> Mapping[str, str]:
    """``/etc/os-release`` (os-release(5)); empty where there is none."""
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}


def go_architecture() -> str:
    """``GOARCH`` of this machine."""
    return _ARCHITECTURES.get(platform.machine(), platform.machine())


def operating_system() -> str:
    """As dockerd names it; in a container it says so."""
    name = os_release().get("PRETTY_NAME", "Linux")
    return f"{name} (containerized)" if _containerized() else name


@cache
def _containerized() -> bool:
    try:
        with open("/proc/1/cgroup") as file:
            text = file.read()
    except OSError:
        return False
    return any(part in text for part in ("docker", "kubepods"))


def switched_on(path: str) -> bool:
    """A sysctl that holds 1."""
    try:
        with open(path) as file:
            return file.read().strip() == "1"
    except OSError:
        return False


def open_files() -> int:
    """How many descriptors this process has."""
    return len(os.listdir("/proc/self/fd"))


def backing_filesystem(path: str) -> str:
    """The type of the file system that holds ``path``, by the name that dockerd has for it."""
    best, kind = "", "<unknown>"
    real = os.path.realpath(path)
    for info in mounts.mounts():
        point = info.mountpoint
        inside = real == point or real.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, info.fstype
    return {"ext4": "extfs", "ext3": "extfs", "ext2": "extfs"}.get(kind, kind)
