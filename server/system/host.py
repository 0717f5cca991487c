"""The host, as ``GET /info`` and the metrics describe it."""

import os
import platform
from collections.abc import Mapping
from functools import cache

from engine.common.system import mounts

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}


@cache
def os_release() -> Mapping[str, str]:
    """Return the variables of ``/etc/os-release`` (os-release(5)); empty if the file is missing."""
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}


def go_architecture() -> str:
    """Return ``GOARCH`` of this machine."""
    return _ARCHITECTURES.get(platform.machine(), platform.machine())


def operating_system() -> str:
    """Return the name of the operating system, with dockerd's suffix if this host is a container."""
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
    """Whether the sysctl at ``path`` is 1; False if this kernel lacks it."""
    try:
        with open(path) as file:
            return file.read().strip() == "1"
    except OSError:
        return False


def open_files() -> int:
    """Return the number of file descriptors of this process."""
    return len(os.listdir("/proc/self/fd"))


def backing_filesystem(path: str) -> str:
    """Return the type of the file system of ``path``, by dockerd's name."""
    best, kind = "", "<unknown>"
    real = os.path.realpath(path)
    for info in mounts.mounts():
        point = info.mountpoint
        inside = real == point or real.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, info.fstype
    return {"ext4": "extfs", "ext3": "extfs", "ext2": "extfs"}.get(kind, kind)
