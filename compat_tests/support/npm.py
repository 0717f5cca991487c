"""python -m compat_tests.support.npm: installs the clients of Node.js at the versions of their lock file.

``deploy/test.sh`` runs it, so that a failed installation fails the run; a test run by hand installs them at its first
use.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from compat_tests.support.images import ROOT

CACHE = Path(os.environ.get("WHARF_TEST_CACHE") or "/var/cache/wharf")
CLIENTS = ROOT / "compat_tests" / "clients" / "node"
FILES = ("package.json", "package-lock.json")


def modules(packages: Path = CLIENTS, name: str = "node-clients") -> Path:
    """Return the folder for ``NODE_PATH`` with the packages of this lock file, kept under this name in the cache.

    A stamp in it, written last, has the digest of the lock file.
    """
    folder = CACHE / name
    stamp = folder / "installed"
    digest = hashlib.sha256(b"".join((packages / file).read_bytes() for file in FILES)).hexdigest()
    if not stamp.exists() or stamp.read_text() != digest:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for file in FILES:
            shutil.copy(packages / file, folder)
        # Without scripts: the optional native parts, for SSH, would be compiled.
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        subprocess.run(command, cwd=folder, check=True, timeout=300)
        stamp.write_text(digest)
    return folder / "node_modules"


if __name__ == "__main__":
    modules()
