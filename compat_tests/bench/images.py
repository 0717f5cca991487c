"""Images: pull, push, load, save, import, commit and removal, of one of many small files and of one of six layers."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from compat_tests import images
from compat_tests.bench.measure import Row, clock, in_turn
from compat_tests.engines import Dockerd, Engine
from compat_tests.registry import Registry, registry

MB = 1_000_000
AIM = 0.6


@dataclass(frozen=True, slots=True)
class Subject:
    """An image to move about."""

    label: str
    name: str
    layers: tuple[bytes, ...]

    @property
    def archive(self) -> bytes:
        return images.docker_archive(f"{self.name}:1", self.layers)


def noise(size: int, seed: str) -> bytes:
    """Bytes that don't compress, the same every time."""
    return hashlib.shake_128(seed.encode()).digest(size)


def subjects(*, quick: bool) -> Iterator[Subject]:
    """8,000 small files and 60 MB that don't compress; 400 MB in six layers (a tenth of it when `quick`)."""
    share = 10 if quick else 1
    files: dict[str, images.Node | bytes | str] = {}
    for number in range(8000 // share):
        files.setdefault(f"d{number // 100}", images.Node(kind=b"5", mode=0o755))
        files[f"d{number // 100}/f{number}"] = f"the text of file {number}\n" * 8
    files["noise"] = noise(60 * MB // share, "small")
    count, size = len(files), 60 // share
    yield Subject(f"image of {count:,} files and {size} MB", "bench-files", (images.layer(files),))
    each = 400 * MB // 6 // share
    layers = [images.layer({f"layer{number}": noise(each, f"layer{number}")}) for number in range(6)]
    yield Subject(f"image of {400 // share} MB in 6 layers", "bench-layers", tuple(layers))


def transfers(engines: Sequence[Engine], *, quick: bool) -> list[Row]:
    """Each subject: load, save, push, pull, rmi, in this order."""
    found: list[Row] = []
    with contextlib.ExitStack() as stack:
        registries = {engine.kind: stack.enter_context(_registry_of(engine)) for engine in engines}
        for subject in subjects(quick=quick):
            found += _moved(engines, subject, registries, times=1 if quick else 3)
    return found


def _registry_of(engine: Engine) -> contextlib.AbstractContextManager[Registry]:
    return registry(netns=engine.netns if isinstance(engine, Dockerd) else None)


def _moved(engines: Sequence[Engine], subject: Subject, registries: Mapping[str, Registry], *, times: int) -> list[Row]:
    rows = {verb: Row(f"{verb}: {subject.label}", "ms", AIM) for verb in ("load", "save", "push", "pull", "rmi")}
    with tempfile.NamedTemporaryFile(prefix="wharf-bench-") as file:
        file.write(subject.archive)
        file.flush()

        def once(engine: Engine) -> None:
            name = f"{subject.name}:1"
            remote = registries[engine.kind].name(f"{subject.name}-{len(rows['push'].samples.get(engine.kind, []))}:1")
            with clock(rows["load"], engine):
                engine.docker("load", "-q", "-i", file.name, timeout=600)
            with tempfile.NamedTemporaryFile(prefix="wharf-bench-") as saved, clock(rows["save"], engine):
                engine.docker("save", "-o", saved.name, name, timeout=600)
            engine.docker("tag", name, remote)
            with clock(rows["push"], engine):
                engine.docker("push", "-q", remote, timeout=600)
            engine.docker("rmi", name, remote, timeout=600)
            with clock(rows["pull"], engine):
                engine.docker("pull", "-q", remote, timeout=600)
            with clock(rows["rmi"], engine):
                engine.docker("rmi", remote, timeout=600)

        in_turn(engines, times, once)
    return list(rows.values())


def made(engines: Sequence[Engine], *, quick: bool) -> list[Row]:
    """An import of a root file system, and a commit of a container that has written 60 MB."""
    size = 6 if quick else 60
    imported, committed = Row(f"import: {size} MB", "ms", AIM), Row(f"commit: {size} MB written", "ms", AIM)
    with tempfile.TemporaryDirectory(prefix="wharf-bench-") as folder:
        archive = Path(folder, "root.tar")
        archive.write_bytes(images.layer({"noise": noise(size * MB, "import")}))
        for engine in engines:
            command = f"head -c {size * MB} /dev/urandom > /noise"
            engine.docker("run", "--name", "bench-commit", "busybox", "sh", "-c", command)

        def once(engine: Engine) -> None:
            with clock(imported, engine):
                engine.docker("import", str(archive), "bench-import:1", timeout=600)
            with clock(committed, engine):
                engine.docker("commit", "bench-commit", "bench-commit:1", timeout=600)
            engine.docker("rmi", "bench-import:1", "bench-commit:1", timeout=600)

        try:
            in_turn(engines, 1 if quick else 3, once)
        finally:
            for engine in engines:
                engine.docker("rm", "-f", "bench-commit", check=False)
    return [imported, committed]
