"""The daemons stream data: their memory does not grow with the amount transferred."""

from __future__ import annotations

import contextlib
import os
import re
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from compat_tests.support.engines import Engine
from compat_tests.support.host.traces import processes, sampled
from compat_tests.support.images import docker_archive, layer
from compat_tests.support.servers.registry import Registry

pytestmark = pytest.mark.root

MIB = 1 << 20
ADDED = 60  # MiB that an operation may add
LAYERS, SIZE = 2, 80  # MiB: several times as much is transferred


def used(pids: Sequence[int]) -> int:
    """Return private memory in bytes, without mapped files, whose residency varies."""
    text = ""
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # an exited helper
            text += Path(f"/proc/{pid}/status").read_text()
    return sum(int(kib) * 1024 for kib in re.findall(r"^Rss(?:Anon|Shmem):\s+(\d+) kB$", text, re.MULTILINE))


@contextlib.contextmanager
def within(engine: Engine, what: str) -> Iterator[None]:
    """Fail if the memory of the engine's daemons exceeded the limit above its start value at any time."""
    pids = [each.pid for each in processes(engine.resources.footprint.mark) if each.comm != "wharf-shim"]
    with sampled(lambda: used(pids), pause=0.02) as samples:
        yield
    idle, peak = samples[0], max(samples)
    assert peak - idle <= ADDED * MIB, f"{what}: {(peak - idle) / MIB:.0f} MiB more than the {idle / MIB:.0f} of before"


def test_large_images_and_files_pass_through(own_engine: Engine, plain: Registry, tmp_path: Path) -> None:
    engine, name = own_engine, f"large-{uuid.uuid4().hex[:8]}:1"
    remote = plain.name(name)
    layers = [layer({f"file{number}": os.urandom(MIB) * SIZE}) for number in range(LAYERS)]
    archive = tmp_path / "image.tar"
    archive.write_bytes(docker_archive(name, layers))
    (tmp_path / "root.tar").write_bytes(layers[0])
    del layers
    engine.docker("run", "--rm", "--network", "none", "busybox", "true")  # load what is loaded only once
    with within(engine, "load"):
        engine.docker("load", "-q", "-i", str(archive))
    engine.docker("tag", name, remote)
    with within(engine, "save"):
        engine.docker("save", "-o", str(tmp_path / "saved"), name)
    with within(engine, "push"):
        engine.docker("push", "-q", remote)
    engine.docker("rmi", name, remote)
    with within(engine, "pull"):
        engine.docker("pull", "-q", remote)
    container = engine.docker("create", "--network", "none", remote, "x").stdout.strip()
    with within(engine, "commit"):
        engine.docker("commit", container, name)
    with within(engine, "cp in"):
        engine.docker("cp", str(tmp_path / "saved"), f"{container}:/file")
    with within(engine, "cp out"):
        engine.docker("cp", f"{container}:/file", str(tmp_path / "back"))
    with within(engine, "export"):
        engine.docker("export", "-o", str(tmp_path / "exported"), container)
    with within(engine, "import"):
        engine.docker("import", str(tmp_path / "root.tar"), name)
    engine.docker("rm", container)
    engine.docker("rmi", name, remote)
