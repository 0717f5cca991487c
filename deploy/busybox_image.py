#!/usr/bin/env python3
"""Writes a docker-archive of `busybox:latest`, made from the static busybox of the OS, to standard output.

It needs no internet connection: Debian's package busybox-static has the whole userland. The same binary always
gives the same bytes (fixed order, owners and times), so the image id is stable. The applets are hard links to one
file, as in Docker Hub's image of that name, so the layer has the size of the binary. It uses only the standard
library, because it runs before anything is installed.
"""

import argparse
import hashlib
import io
import json
import os
import platform
import subprocess
import sys
import tarfile
import time
from typing import BinaryIO

ARCHITECTURES = {
    "x86_64": ("amd64", ""),
    "aarch64": ("arm64", "v8"),
    "armv7l": ("arm", "v7"),
    "i686": ("386", ""),
    "riscv64": ("riscv64", ""),
    "ppc64le": ("ppc64le", ""),
    "s390x": ("s390x", ""),
}

DIRECTORIES = {
    "bin": 0o755,
    "dev": 0o755,
    "etc": 0o755,
    "home": 0o755,
    "lib": 0o755,
    "proc": 0o755,
    "root": 0o700,
    "sys": 0o755,
    "tmp": 0o1777,
    "usr": 0o755,
    "usr/bin": 0o755,
    "usr/sbin": 0o755,
    "var": 0o755,
    "var/spool": 0o755,
    "var/spool/mail": 0o755,
    "var/tmp": 0o1777,
    "var/www": 0o755,
}

FILES = {
    "etc/passwd": (
        0o644,
        "root:x:0:0:root:/root:/bin/sh\n"
        "daemon:x:1:1:daemon:/usr/sbin:/bin/false\n"
        "bin:x:2:2:bin:/bin:/bin/false\n"
        "sys:x:3:3:sys:/dev:/bin/false\n"
        "sync:x:4:100:sync:/bin:/bin/sync\n"
        "mail:x:8:8:mail:/var/spool/mail:/bin/false\n"
        "www-data:x:33:33:www-data:/var/www:/bin/false\n"
        "operator:x:37:37:Operator:/var:/bin/false\n"
        "nobody:x:65534:65534:nobody:/home:/bin/false\n",
    ),
    "etc/group": (
        0o644,
        "root:x:0:\n"
        "daemon:x:1:\n"
        "bin:x:2:\n"
        "sys:x:3:\n"
        "adm:x:4:\n"
        "tty:x:5:\n"
        "disk:x:6:\n"
        "wheel:x:10:root\n"
        "mail:x:8:\n"
        "audio:x:29:\n"
        "www-data:x:33:\n"
        "operator:x:37:\n"
        "users:x:100:\n"
        "nobody:x:65534:\n",
    ),
    "etc/shadow": (0o600, "root:*::0:99999:7:::\nnobody:*::0:99999:7:::\n"),
    "etc/nsswitch.conf": (0o644, "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n"),
}


def entry(name: str, mode: int, *, kind: bytes = tarfile.REGTYPE, size: int = 0, link: str = "") -> tarfile.TarInfo:
    """A tar header that doesn't depend on this machine: the owner is root, the time the epoch."""
    info = tarfile.TarInfo(name)
    info.mode, info.type, info.size, info.linkname = mode, kind, size, link
    info.uid = info.gid = 0
    info.mtime = 0
    return info


def layer(busybox: bytes, applets: list[str]) -> bytes:
    """The one layer, as an uncompressed tar."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, mode in DIRECTORIES.items():
            archive.addfile(entry(name, mode, kind=tarfile.DIRTYPE))
        archive.addfile(entry("bin/busybox", 0o755, size=len(busybox)), io.BytesIO(busybox))
        for applet in applets:
            archive.addfile(entry(f"bin/{applet}", 0o755, kind=tarfile.LNKTYPE, link="bin/busybox"))
        # For scripts with `#!/usr/bin/env`.
        archive.addfile(entry("usr/bin/env", 0o777, kind=tarfile.SYMTYPE, link="../../bin/env"))
        for name, (mode, text) in FILES.items():
            data = text.encode()
            archive.addfile(entry(name, mode, size=len(data)), io.BytesIO(data))
    return buffer.getvalue()


def write(out: BinaryIO, busybox: bytes, applets: list[str], *, created: str, tag: str) -> None:
    """Writes the docker-archive: image config, layer and manifest.json, in the layout of `docker save`."""
    data = layer(busybox, applets)
    diff_id = hashlib.sha256(data).hexdigest()
    architecture, variant = ARCHITECTURES.get(platform.machine(), (platform.machine(), ""))
    config: dict[str, object] = {
        "architecture": architecture,
        "os": "linux",
        "created": created,
        "config": {
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "Cmd": ["sh"],
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{diff_id}"]},
        "history": [
            {"created": created, "created_by": "static busybox of the OS"},
            {"created": created, "created_by": 'CMD ["sh"]', "empty_layer": True},
        ],
    }
    if variant:
        config["variant"] = variant
    blob = json.dumps(config, separators=(",", ":"), sort_keys=True).encode()
    image_id = hashlib.sha256(blob).hexdigest()
    manifest = [{"Config": f"{image_id}.json", "RepoTags": [tag], "Layers": [f"{diff_id}/layer.tar"]}]
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.USTAR_FORMAT) as archive:
        archive.addfile(entry(f"{image_id}.json", 0o644, size=len(blob)), io.BytesIO(blob))
        archive.addfile(entry(diff_id, 0o755, kind=tarfile.DIRTYPE))
        archive.addfile(entry(f"{diff_id}/layer.tar", 0o644, size=len(data)), io.BytesIO(data))
        text = json.dumps(manifest, separators=(",", ":")).encode()
        archive.addfile(entry("manifest.json", 0o644, size=len(text)), io.BytesIO(text))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--busybox", default="/bin/busybox", help="the static binary (default: %(default)s)")
    parser.add_argument("--tag", default="busybox:latest", help="the image's name (default: %(default)s)")
    options = parser.parse_args()
    listing = subprocess.run([options.busybox, "--list"], check=True, capture_output=True, timeout=30)
    applets = sorted(set(listing.stdout.decode().split()) - {"busybox"})
    with open(options.busybox, "rb") as file:
        busybox = file.read()
        changed = int(os.fstat(file.fileno()).st_mtime)
    # The binary's own time, which is the same in every run.
    seconds = int(os.environ.get("SOURCE_DATE_EPOCH", changed))
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
    write(sys.stdout.buffer, busybox, applets, created=created, tag=options.tag)
    return 0


if __name__ == "__main__":
    sys.exit(main())
