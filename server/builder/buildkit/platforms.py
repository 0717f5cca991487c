"""The platforms to build for: the host's, and those for which the kernel's binfmt_misc has an emulator."""

import contextlib
from pathlib import Path

from engine.api.types import Platform
from server.registry import oci
from server.registry.variants import amd64_levels

BINFMT = Path("/proc/sys/fs/binfmt_misc")

#: ``e_machine`` of an ELF file, its class and byte order (ELFCLASS, ELFDATA) → architecture names of images.
_MACHINES = {
    (3, 1, 1): "386",
    (8, 2, 1): "mips64le",
    (8, 2, 2): "mips64",
    (21, 2, 1): "ppc64le",
    (22, 2, 2): "s390x",
    (40, 1, 1): "arm",
    (62, 2, 1): "amd64",
    (183, 2, 1): "arm64",
    (243, 2, 1): "riscv64",
    (258, 2, 1): "loong64",
}


def platforms() -> list[Platform]:
    """Return the platforms, this host's first. Reads /proc; blocks briefly."""
    host = oci.host_platform()
    found = [host]
    if host.architecture == "amd64":
        found += [Platform("linux", "amd64", variant) for variant in amd64_levels()]
        found.append(Platform("linux", "386"))
    for architecture in sorted(_emulated()):
        variants = ("v7", "v6") if architecture == "arm" else ("",)
        if architecture not in (host.architecture, "386" if host.architecture == "amd64" else ""):
            found += [Platform("linux", architecture, variant) for variant in variants]
    return found


def _emulated() -> set[str]:
    """Return architectures whose interpreter the kernel keeps open (flag F of
    Documentation/admin-guide/binfmt-misc.rst), because a container's root has no interpreter."""
    found = set()
    for path in BINFMT.iterdir() if BINFMT.is_dir() else ():
        with contextlib.suppress(OSError):
            if path.name not in ("register", "status"):
                found.add(_architecture(path.read_text()))
    return found - {""}


def _architecture(entry: str) -> str:
    """Return the architecture of a binfmt_misc entry; empty if it is disabled or not for ELF programs."""
    lines = entry.splitlines()
    fields = {key.rstrip(":"): value for key, _, value in (line.partition(" ") for line in lines)}
    magic = bytes.fromhex(fields.get("magic", ""))
    if "enabled" not in lines or "F" not in fields.get("flags", "") or fields.get("offset") != "0":
        return ""
    if not magic.startswith(b"\x7fELF") or len(magic) < 20:
        return ""
    machine = int.from_bytes(magic[18:20], "little" if magic[5] == 1 else "big")
    return _MACHINES.get((machine, magic[4], magic[5]), "")
