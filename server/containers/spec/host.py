"""The properties of this host on which specs depend, probed once at the daemon's start."""

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
#: Static programs first: the file is bind-mounted into containers that may lack its libraries.
_INITS = ("docker-init", "tini-static", "catatonit", "tini")
_INIT_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin:/usr/libexec/docker"
CGROUPFS = "cgroupfs"
SYSTEMD = "systemd"


@dataclass(frozen=True, slots=True)
class HostFacts:
    """``kernel``: (major, minor). ``arch``: Go's name. ``capabilities``: this process's bounding set, by number.

    ``recursive_readonly``: kernel and runtime support recursively read-only mounts. ``init_path``: the program for
    ``--init``, "" if there is none. ``cpus``: the number of usable CPUs. ``memory``: bytes.
    """

    kernel: tuple[int, int]
    arch: str
    cgroups: cgroups.CgroupLayout
    cgroup_driver: str = CGROUPFS
    capabilities: tuple[str, ...] = caps.KNOWN
    seccomp: bool = True
    apparmor: bool = False

    recursive_readonly: bool = True
    init_path: str = ""
    cpus: int = 1
    memory: int = 0

    @property
    def cgroup_v2(self) -> bool:
        return self.cgroups.v2


def kernel_version(release: str) -> tuple[int, int]:
    """(major, minor) of a release such as ``6.1.0-13-amd64``; a part without digits is 0."""
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
    """The capabilities in this process's bounding set."""
    found = []
    for number, name in enumerate(caps.KNOWN):
        try:
            if linux.capability_in_bounding_set(number):
                found.append(name)
        except OSError:
            break  # the kernel doesn't have this capability, nor those with larger numbers
    return tuple(found)


def find_init(configured: str = "") -> str:
    """The program for ``--init``: the configured one, or the first of ``_INITS`` that exists. "": there is none.

    Symbolic links are resolved (docker-init links to tini): CRIU restores the mount of a link as one of a directory.
    """
    for name in (configured,) if configured else _INITS:
        if found := shutil.which(name, path=_INIT_PATH):
            return os.path.realpath(found)
    return ""


def probe(
    *, cgroup_driver: str = CGROUPFS, init_path: str = "", recursive_readonly: bool = True, apparmor: bool = False
) -> HostFacts:
    """Probes this host. ``init_path``: the configured program. ``recursive_readonly``: the OCI runtime supports
    ``rro``. ``apparmor``: Docker's default profile is loaded
    (:func:`server.containers.spec.apparmor.ensure_default`)."""
    release = kernel_version(platform.release())
    return HostFacts(
        kernel=release,
        arch=_ARCHES.get(platform.machine(), platform.machine()),
        cgroups=cgroups.host_cgroups(),
        cgroup_driver=cgroup_driver,
        capabilities=bounding_set(),
        seccomp="Seccomp:" in _read("/proc/self/status"),
        apparmor=apparmor,
        recursive_readonly=recursive_readonly and release >= (5, 12),
        init_path=find_init(init_path),
        cpus=len(os.sched_getaffinity(0)),
        memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    )
