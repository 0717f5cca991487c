"""The daemons stream data: their memory does not grow with the amount transferred."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

from compat_tests.support.engines import Engine
from compat_tests.support.host.processes import daemon_pids, private_memory
from compat_tests.support.images import docker_archive, layer
from compat_tests.support.polling import sampled
from compat_tests.support.servers.registry import Registry

MIB = 1 << 20
ADDED = 60  # MiB that an operation may add
LAYERS, SIZE = 2, 80  # MiB: several times as much is transferred


@contextlib.contextmanager
def within(engine: Engine, what: str) -> Iterator[None]:
    """Fail if the memory of the engine's daemons exceeded the limit above its start value at any time."""
    pids = daemon_pids(engine.resources.footprint.mark)
    with sampled(lambda: private_memory(pids), pause=0.02) as samples:
        yield
    idle, peak = samples[0], max(samples)
    assert peak - idle <= ADDED * MIB, f"{what}: {(peak - idle) / MIB:.0f} MiB more than the {idle / MIB:.0f} of before"


def test_large_images_and_files_pass_through(own_engine: Engine, plain_registry: Registry, tmp_path: Path) -> None:
    engine, name = own_engine, f"large-{uuid.uuid4().hex[:8]}:1"
    remote = plain_registry.name(name)
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
