"""python -m server.ui.vendor: installs the browser's libraries below ``static/vendor`` from their npm packages.

``vendor.json`` names packages, versions and files. With ``--update``, the digests in it are renewed; without, a file
whose digest differs is an error.
"""

import hashlib
import io
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent / "static" / "vendor"
TABLE = ROOT / "vendor.json"


def table() -> list[dict[str, Any]]:
    """The packages: ``package``, ``version``, ``licence``, and ``files`` with ``source`` (the path in the package),
    ``file`` (below ``static/vendor``) and ``sha256``."""
    found: list[dict[str, Any]] = json.loads(TABLE.read_text())["packages"]
    return found


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def install(*, update: bool) -> None:
    """:raises SystemExit: a package has other content than before."""
    packages = table()
    for package in packages:
        for entry, content in zip(package["files"], _contents(package), strict=True):
            found = hashlib.sha256(content).hexdigest()
            if not update and found != entry["sha256"]:
                raise SystemExit(f"{package['package']} {package['version']}: {entry['source']} has another digest")
            entry["sha256"] = found
            (ROOT / entry["file"]).write_bytes(content)
    TABLE.write_text(json.dumps({"packages": packages}, indent=2) + "\n")


def _contents(package: dict[str, Any]) -> list[bytes]:
    name = f"{package['package']}@{package['version']}"
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", "--silent", "--pack-destination", folder, name]
        subprocess.run(command, check=True, timeout=120, cwd=folder)
        (archive,) = Path(folder).glob("*.tgz")
        with tarfile.open(fileobj=io.BytesIO(archive.read_bytes())) as files:
            return [_member(files, f"package/{entry['source']}") for entry in package["files"]]


def _member(files: tarfile.TarFile, name: str) -> bytes:
    found = files.extractfile(name)
    assert found is not None, name
    return found.read()


if __name__ == "__main__":
    install(update="--update" in sys.argv[1:])
