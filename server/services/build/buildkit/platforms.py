"""The platforms that builds may be for: this host's, and those that the kernel's binfmt_misc has an emulator for."""

import functools
import os
from pathlib import Path

from engine.api.types import Platform
from engine.registry import oci

BINFMT = Path("/proc/sys/fs/binfmt_misc")

#: Names of qemu's entries → architectures as images name them.
_EMULATED = {
    "aarch64": "arm64",
    "arm": "arm",
    "i386": "386",
    "loongarch64": "loong64",
    "mips64": "mips64",
    "mips64el": "mips64le",
    "ppc64le": "ppc64le",
    "riscv64": "riscv64",
    "s390x": "s390x",
    "x86_64": "amd64",
}

#: What a processor must have for each level of x86-64 (the System V ABI's supplement).
_LEVELS = (
    ("v2", {"cx16", "lahf_lm", "popcnt", "sse4_1", "sse4_2", "ssse3"}),
    ("v3", {"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe"}),
    ("v4", {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}),
)


def platforms() -> list[Platform]:
    """This host's first. Blocks for a moment: it reads /proc."""
    host = oci.host_platform()
    found = [host]
    if host.architecture == "amd64":
        flags = _flags()
        for variant, needed in _LEVELS:
            if not needed <= flags:
                break
            found.append(Platform("linux", "amd64", variant))
        found.append(Platform("linux", "386"))
    for name in sorted(os.listdir(BINFMT)) if BINFMT.is_dir() else ():
        architecture = _EMULATED.get(name.removeprefix("qemu-"), "") if name.startswith("qemu-") else ""
        variants = ("v7", "v6") if architecture == "arm" else ("",)
        if architecture and architecture not in (host.architecture, "386" if host.architecture == "amd64" else ""):
            found += [Platform("linux", architecture, variant) for variant in variants]
    return found


@functools.cache
def _flags() -> set[str]:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("flags"):
            return set(line.partition(":")[2].split())
    return set()
