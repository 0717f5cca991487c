"""What this host can do, found out once: the spec depends on it and stays a pure function."""

import os
import platform
import shutil
from dataclasses import dataclass

from engine.common.system import cgroups, linux
from server.containers.spec import caps

_ARCHES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm",
    "armv6l": "arm",
    "i686": "x86",
    "ppc64le": "ppc64le",
    "s390x": "s390x",
    "riscv64": "riscv64",
}
#: Static ones first: the file is bound into containers that have other libraries or none.
_INITS = ("docker-init", "tini-static", "catatonit", "tini")
_INIT_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin:/usr/libexec/docker"
CGROUPFS = "cgroupfs"
SYSTEMD = "systemd"


@dataclass(frozen=True, slots=True)
class HostFacts:
    """``kernel``: (major, minor). ``arch``: Go's name. ``capabilities``: this process's bounding set, by number.

    ``recursive_readonly``: kernel and runtime can make a mount tree read-only. ``init_path``: the program for
    ``--init`` ("" none found). ``cpus``: how many are online.
    """

    kernel: tuple[int, int]
    arch: str
    cgroups: cgroups.CgroupLayout
    cgroup_driver: str = CGROUPFS
    capabilities: tuple[str, ...] = caps.KNOWN
    seccomp: bool = True
    apparmor: bool = False
    selinux: bool = False
    recursive_readonly: bool = True
    init_path: str = ""
    cpus: int = 1
    memory: int = 0

    @property
    def cgroup_v2(self) -> bool:
        return self.cgroups.v2


def kernel_version(release: str) -> tuple[int, int]:
    """``6.1.0-13-amd64`` → (6, 1); what is no number counts as 0."""
    numbers = []
    for part in [*release.split("-")[0].split("."), "0", "0"][:2]:
        digits = "".join(char for char in part if char.isdigit())
        numbers.append(int(digits) if digits else 0)
    return numbers[0], numbers[1]


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError:
        return ""


def bounding_set() -> tuple[str, ...]:
    """The known capabilities that this process may hand on."""
    held = []
    for number, name in enumerate(caps.KNOWN):
        try:
            if linux.capability_in_bounding_set(number):
                held.append(name)
        except OSError:
            break  # an older kernel: it knows none of the rest either
    return tuple(held)


def find_init(configured: str = "") -> str:
    """The program for ``--init``: the configured one, or the first of the usual names. "" if there is none.

    Never a link (docker-init leads to tini): CRIU would restore the mount of one as that of a directory.
    """
    for name in (configured,) if configured else _INITS:
        if found := shutil.which(name, path=_INIT_PATH):
            return os.path.realpath(found)
    return ""


def probe(
    *, cgroup_driver: str = CGROUPFS, init_path: str = "", recursive_readonly: bool = True, apparmor: bool = False
) -> HostFacts:
    """Looks at the running host. ``recursive_readonly``: whether the OCI runtime knows ``rro``; ``apparmor``: whether
    the kernel has Docker's default profile (:func:`server.containers.spec.apparmor.ensure_default`)."""
    release = kernel_version(platform.release())
    return HostFacts(
        kernel=release,
        arch=_ARCHES.get(platform.machine(), platform.machine()),
        cgroups=cgroups.host_cgroups(),
        cgroup_driver=cgroup_driver,
        capabilities=bounding_set(),
        seccomp="Seccomp:" in _read("/proc/self/status"),
        apparmor=apparmor,
        selinux=os.path.exists("/sys/fs/selinux/enforce"),
        recursive_readonly=recursive_readonly and release >= (5, 12),
        init_path=find_init(init_path),
        cpus=len(os.sched_getaffinity(0)),
        memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    )
