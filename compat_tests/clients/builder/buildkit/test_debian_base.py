"""A Debian base: the host's `apt-get` and `dpkg` in a small root of their own, with packages of a local repository."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from compat_tests.clients.builder.buildx import needs_buildx, run_output, write_context
from compat_tests.support.engines import Engine

PROGRAMS = ["apt-get", "cat", "dpkg", "dpkg-deb", "dpkg-query", "dpkg-split", "diff", "gzip", "rm", "sh", "tar", "xz"]
PROGRAMS += ["ldconfig", "start-stop-daemon"]
METHODS = [f"/usr/lib/apt/methods/{name}" for name in ("copy", "file", "gpgv", "sqv", "store")]
TABLES = [f"/usr/share/dpkg/{name}" for name in ("abitable", "cputable", "ostable", "tupletable")]
FOLDERS = ["etc/apt/apt.conf.d", "etc/apt/preferences.d", "etc/apt/sources.list.d", "etc/apt/trusted.gpg.d", "tmp"]
FOLDERS += ["usr/bin", "usr/sbin", "usr/lib64", "usr/share/dpkg", "var/cache/apt/archives/partial", "var/log/apt"]
FOLDERS += ["var/lib/apt/lists/partial", "var/lib/dpkg/info", "var/lib/dpkg/updates"]


def found(name: str) -> str:
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") or ""


missing = [name for name in [*PROGRAMS, "ldd"] if not found(name)]
pytestmark = [
    pytest.mark.skipif(bool(missing) or not os.path.exists(METHODS[1]), reason="needs apt, dpkg and ldd"),
    needs_buildx,
]


def root_file_system() -> bytes:
    """Return a root with these programs, their libraries, and the files that dpkg and apt need."""
    programs = [found(name) for name in PROGRAMS] + [path for path in METHODS if os.path.exists(path)]
    done = subprocess.run(["ldd", *programs], capture_output=True, text=True, check=False, timeout=60)
    words = {word for line in done.stdout.splitlines() if not line.endswith(":") for word in line.split()}
    libraries = {word for word in words if word.startswith("/")}
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:

        def add(name: str, content: bytes, mode: int = 0o644) -> None:
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), mode
            archive.addfile(info, io.BytesIO(content))

        made: set[str] = set()
        for folder in FOLDERS:
            parts = folder.split("/")
            for path in ("/".join(parts[:count]) for count in range(1, len(parts) + 1)):
                if path not in made:
                    made.add(path)
                    info = tarfile.TarInfo(path)
                    info.type, info.mode = tarfile.DIRTYPE, 0o755
                    archive.addfile(info)
        for name in ("bin", "sbin", "lib", "lib64"):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, f"usr/{name}"
            archive.addfile(info)
        for path in {*programs, *libraries}:
            below = path if path.startswith("/usr/") else f"/usr{path}"
            add(below.lstrip("/"), Path(path).read_bytes(), 0o755)
        for path in filter(os.path.exists, TABLES):
            add(path.lstrip("/"), Path(path).read_bytes())
        add("var/lib/dpkg/status", b"")
        add("etc/apt/apt.conf.d/some", b'Acquire::Languages "none";\nAPT::Sandbox::User "root";\n')
        add("etc/passwd", b"root:x:0:0::/root:/bin/sh\n")
        add("etc/group", b"root:x:0:\n")
    return data.getvalue()


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with two packages, one of which depends on the other; each prints when it is configured."""
    repository, index = tmp_path_factory.mktemp("repository"), ""
    for name, needs in (("below", ""), ("above", "Depends: below (>= 1)\n")):
        control = f"Package: {name}\nVersion: 1.2\nArchitecture: all\nMaintainer: t <t@t>\n{needs}Description: {name}\n"
        files = {"DEBIAN/control": control, f"usr/share/some/{name}": f"{name}\n", "etc/some.d/x": f"{name}\n"}
        files |= {"DEBIAN/postinst": f"#!/bin/sh\nset -e\necho {name} >> /configured\n"}
        if name == "below":
            del files["etc/some.d/x"]
        tree = write_context(tmp_path_factory.mktemp(name), files)
        (tree / "DEBIAN/postinst").chmod(0o755)
        built = repository / f"{name}.deb"
        argv = ["dpkg-deb", "--root-owner-group", "--build", str(tree), str(built)]
        subprocess.run(argv, check=True, capture_output=True, timeout=60)
        digest = hashlib.sha256(built.read_bytes()).hexdigest()
        index += f"{control}Filename: ./{built.name}\nSize: {built.stat().st_size}\nSHA256: {digest}\n\n"
    (repository / "Packages").write_text(index)
    return repository


DOCKERFILE = """FROM debian-like:1 AS base
COPY repository /repository
RUN echo 'deb [trusted=yes] file:/repository ./' > /etc/apt/sources.list
FROM base AS installed
ENV DEBIAN_FRONTEND=noninteractive
RUN MOUNTS apt-get update && apt-get install -y --no-install-recommends above && rm -rf /var/lib/apt/lists/*
FROM installed AS removed
RUN apt-get purge -y above && test ! -e /usr/share/some/above && test -e /usr/share/some/below
FROM installed
COPY --from=removed /var/lib/dpkg/status /removed
CMD ["cat", "/usr/share/some/above", "/usr/share/some/below", "/configured", "/etc/some.d/x"]
"""


@pytest.mark.parametrize("kit", ["BuildKit", "classic"])
def test_packages_are_installed(engine: Engine, packages: Path, tmp_path: Path, kit: str) -> None:
    mounts = "--mount=type=cache,target=/var/cache/apt,sharing=locked" if kit == "BuildKit" else ""
    write_context(tmp_path, {"Dockerfile": DOCKERFILE.replace("MOUNTS ", f"{mounts} " if mounts else "")})
    shutil.copytree(packages, tmp_path / "repository")
    engine.docker("import", "-", "debian-like:1", input=root_file_system())
    environ = {"DOCKER_BUILDKIT": "1" if kit == "BuildKit" else "0"}
    engine.docker("build", "-t", "project:1", str(tmp_path), env=environ, timeout=110)
    assert run_output(engine, "project:1") == "above\nbelow\nbelow\nabove\nabove\n"
    listed = run_output(engine, "project:1", "dpkg-query", "-W", "-f", "${Package} ${Status}\n").splitlines()
    assert sorted(listed) == ["above install ok installed", "below install ok installed"]
    status = run_output(engine, "project:1", "cat", "/removed")
    assert "Package: below\nStatus: install ok installed" in status
    assert "Package: above" not in status
