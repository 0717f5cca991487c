"""The programs of the clients, kept in the cache of the tests."""

from __future__ import annotations

import functools
import hashlib
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from compat_tests.support.npm import CACHE, modules

HERE = Path(__file__).parent
HOME = CACHE / "ecosystem"
DEBIAN_PACKAGES = ("prometheus", "zabbix-agent2")
# PyPI's package of all collections is much larger than those that are used.
ANSIBLE = "ansible==12.3.0"
COLLECTIONS = ("ansible/posix", "community/docker", "community/library_inventory_filtering_v1")


def run(*argv: str | Path, cwd: Path | None = None) -> None:
    subprocess.run(argv, cwd=cwd, check=True, timeout=900, stdout=sys.stderr)


def install() -> dict[str, str]:
    """Install what is missing; return the environment, with a PATH, of the clients' scripts."""
    requirements = HERE / "requirements.txt"
    stamp = HOME / "installed"
    digest = hashlib.sha256(
        "\n".join([requirements.read_text(), ANSIBLE, *COLLECTIONS, *DEBIAN_PACKAGES]).encode()
    ).hexdigest()
    if not stamp.exists() or stamp.read_text() != digest:
        shutil.rmtree(HOME, ignore_errors=True)
        HOME.mkdir(parents=True)
        run(sys.executable, "-m", "venv", HOME / "python")
        run(HOME / "python/bin/pip", "install", "-q", "-r", requirements)
        _unpack_collections()
        run("apt-get", "-q", "download", *DEBIAN_PACKAGES, cwd=HOME)
        for package in HOME.glob("*.deb"):
            run("dpkg", "-x", package, HOME / "debian")
        stamp.write_text(digest)
    node = modules(HERE / "node", "ecosystem-node")
    folders = [HOME / "python/bin", node / ".bin", HOME / "debian/usr/bin", HOME / "debian/usr/sbin"]
    return {"PATH": ":".join(map(str, folders)), "ANSIBLE_COLLECTIONS_PATH": str(HOME / "collections")}


def _unpack_collections() -> None:
    run(HOME / "python/bin/pip", "download", "-q", "--no-deps", "-d", HOME, ANSIBLE)
    for wheel in HOME.glob("ansible-*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            parts = tuple(f"ansible_collections/{name}/" for name in COLLECTIONS)
            archive.extractall(HOME / "collections", [name for name in archive.namelist() if name.startswith(parts)])
        wheel.unlink()


@functools.cache
def debian_root() -> Path:
    """Return the tar of a Debian base with Python, for the clients that run programs in containers."""
    archive = HOME / "debian.tar"
    if not archive.exists():
        made = archive.with_suffix(".partial.tar")
        run("mmdebstrap", "-q", "--variant=minbase", "--include=python3,ca-certificates,git,procps", "trixie", made)
        made.rename(archive)
    return archive
