"""Builds for several platforms: binfmt_misc runs another architecture's programs with the test's own emulator."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import subprocess
import tarfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from compat_tests.clients.builder.buildx import build, needs_buildx, read_oci_archive
from compat_tests.support.engines import Engine

pytestmark = needs_buildx

BINFMT = Path("/proc/sys/fs/binfmt_misc")
OURS = "wharf-test-"

#: Architectures as images name them, with their ``e_machine``; all are 64-bit little-endian.
MACHINES = {"riscv64": 243, "arm64": 183, "loong64": 258}


def header(machine: int) -> bytes:
    """Return the first bytes of a program of that architecture."""
    return b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00" + machine.to_bytes(2, "little")


def escaped(data: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in data)


@dataclass(frozen=True, slots=True)
class Foreign:
    """An architecture, and a shell that only its emulator can run."""

    architecture: str
    shell: bytes


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Foreign]:
    """The emulator is a shell, and its programs are scripts behind an ELF header."""
    with contextlib.ExitStack() as stack:
        if not (BINFMT / "register").exists():
            argv = ["mount", "-t", "binfmt_misc", "binfmt_misc", str(BINFMT)]
            done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
            if done.returncode:
                pytest.skip(f"needs binfmt_misc: {done.stderr}")
            stack.callback(subprocess.run, ["umount", str(BINFMT)], check=True, timeout=60)
        for path in BINFMT.glob(f"{OURS}*"):
            if not Path("/proc", path.name.removeprefix(OURS)).exists():
                path.write_text("-1")  # from a killed run
        known = [path.read_text() for path in BINFMT.iterdir() if path.name not in ("register", "status")]
        free = (name for name, machine in MACHINES.items() if not any(header(machine).hex() in text for text in known))
        architecture = next(free, "")
        if not architecture:
            pytest.skip("needs an architecture that binfmt_misc has no emulator for")
        emulator = tmp_path_factory.mktemp("emulator") / "sh"
        busybox = shutil.which("busybox")
        assert busybox is not None
        shutil.copy(busybox, emulator)
        magic = header(MACHINES[architecture])
        name = f"{OURS}{os.getpid()}"
        try:
            (BINFMT / "register").write_text(f":{name}:M:0:{escaped(magic)}::{emulator}:F")
        except OSError as error:
            pytest.skip(f"needs binfmt_misc: {error}")
        stack.callback((BINFMT / name).write_text, "-1")
        yield Foreign(architecture, magic + b'\nEMULATED=yes exec /bin/busybox sh "$@"\n')


DOCKERFILE = """FROM --platform=$BUILDPLATFORM busybox AS tools
RUN cp /bin/busybox /tool
FROM scratch AS base
ARG TARGETARCH
COPY --from=tools /tool /bin/busybox
COPY sh-$TARGETARCH /bin/sh
FROM base
ARG TARGETPLATFORM BUILDPLATFORM
RUN echo "$TARGETPLATFORM on $BUILDPLATFORM: ${EMULATED:-no}" > /made
CMD ["/bin/sh", "-c", "/bin/busybox cat /made; echo now: ${EMULATED:-no}"]
"""


@pytest.fixture
def root(foreign: Foreign, tmp_path: Path) -> str:
    folder = tmp_path / "c"
    folder.mkdir()
    (folder / "Dockerfile").write_text(DOCKERFILE)
    for name, data in (
        (foreign.architecture, foreign.shell),
        ("amd64", b'#!/bin/busybox sh\nexec /bin/busybox sh "$@"\n'),
    ):
        (folder / f"sh-{name}").write_bytes(data)
        (folder / f"sh-{name}").chmod(0o755)
    return str(folder)


def test_two_platforms_in_one_index(engine: Engine, foreign: Foreign, root: str, tmp_path: Path) -> None:
    out = tmp_path / "o.tar"
    platforms = f"linux/amd64,linux/{foreign.architecture}"
    output = build(engine, "--platform", platforms, f"--output=type=oci,dest={out}", root).stderr
    for platform in platforms.split(","):
        assert f"[{platform} stage-2 1/1] RUN echo" in output
    blobs = read_oci_archive(out)
    index = blobs[blobs[""]["manifests"][0]["digest"]]
    assert index["mediaType"] == "application/vnd.oci.image.index.v1+json"
    found = {}
    for entry in index["manifests"]:
        manifest = blobs[entry["digest"]]
        architecture = entry["platform"]["architecture"]
        assert blobs[manifest["config"]["digest"]]["architecture"] == architecture
        with tarfile.open(fileobj=io.BytesIO(blobs[manifest["layers"][-1]["digest"]])) as archive:
            file = archive.extractfile("made")
            assert file is not None
            found[architecture] = file.read().decode()
    assert found == {
        "amd64": "linux/amd64 on linux/amd64: no\n",
        foreign.architecture: f"linux/{foreign.architecture} on linux/amd64: yes\n",
    }


def test_an_image_of_two_platforms_runs(engine: Engine, foreign: Foreign, root: str) -> None:
    name = f"two-platforms:{uuid.uuid4().hex[:8]}"
    build(engine, "--platform", f"linux/amd64,linux/{foreign.architecture}", "-t", name, root)
    for architecture, emulated in (("amd64", "no"), (foreign.architecture, "yes")):
        output = engine.docker("run", "--rm", "--network", "none", "--platform", f"linux/{architecture}", name).stdout
        assert output == f"linux/{architecture} on linux/amd64: {emulated}\nnow: {emulated}\n"


def test_the_builder_names_its_platforms(engine: Engine, foreign: Foreign) -> None:
    line = next(line for line in engine.docker("buildx", "ls").stdout.splitlines() if "running" in line)
    output = engine.docker("buildx", "inspect", "default").stdout
    listed = next(text for text in output.splitlines() if text.startswith("Platforms:"))
    assert f"linux/{foreign.architecture}" in listed
    assert "linux/amd64" in line


def test_the_classic_builder_for_another_platform(engine: Engine, foreign: Foreign, root: str) -> None:
    Path(root, "Dockerfile").write_text(
        f"FROM scratch\nCOPY busybox /bin/\nCOPY sh-{foreign.architecture} /bin/sh\nRUN echo ${{EMULATED:-no}}\n"
    )
    busybox = shutil.which("busybox")
    assert busybox is not None
    shutil.copy(busybox, Path(root, "busybox"))
    words = ("build", "--platform", f"linux/{foreign.architecture}", root)
    done = engine.docker(*words, env={"DOCKER_BUILDKIT": "0"}, timeout=110)
    # The shell complains about the ELF header on stderr, in no defined order with stdout.
    assert "yes" in re.sub(r"\x1b\[\d*m", "", done.stdout).splitlines()
    image = done.stdout.split("Successfully built ")[1].strip()
    assert engine.docker("image", "inspect", "-f", "{{.Architecture}}", image).stdout.strip() == foreign.architecture
