"""Images: load, save, push, rmi, pull, import and commit, of one with many small files and of one with six layers.

Each image is new, of bytes that neither engine nor registry has seen: uncollected content and earlier rounds help
neither engine. A round starts only when the files of the previous image are gone.
"""

from __future__ import annotations

import os
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from compat_tests.bench.measure import Aim, Row, at_most, clock, in_turn, within
from compat_tests.support import images
from compat_tests.support.engines import Dockerd, Engine
from compat_tests.support.servers.registry import Registry, registry

MB = 1_000_000
AIM = at_most(0.6)
VERBS = ("load", "save", "push", "pull")
Nodes = dict[str, images.Node | bytes | str]


@dataclass(frozen=True, slots=True)
class Subject:
    """A kind of image to transfer."""

    label: str
    flat_label: str  # the same content in one layer
    files: int  # small files, in the first layer
    noise: tuple[int, ...]  # per layer, the size of a file of incompressible bytes
    aim: Aim = AIM  # of what unpacks layers

    def nodes(self, mark: str) -> list[Nodes]:
        """Return the files of each layer; the names of incompressible files contain the mark."""
        small: Nodes = {}
        for number in range(self.files):
            small.setdefault(f"d{number // 100}", images.Node(kind=b"5", mode=0o755))
            small[f"d{number // 100}/f{number}"] = f"the text of file {number}\n" * 8
        found: list[Nodes] = [{f"{mark}-{number}": os.urandom(size)} for number, size in enumerate(self.noise)]
        return [{**small, **found[0]}, *found[1:]]

    @contextmanager
    def archive(self, tag: str, mark: str) -> Iterator[Path]:
        """Write a new image of this kind as a docker-archive."""
        with _file(images.docker_archive(tag, [images.layer(nodes) for nodes in self.nodes(mark)])) as path:
            yield path

    @contextmanager
    def flat(self, mark: str) -> Iterator[Path]:
        """Write a root file system of this kind as a tar."""
        with _file(images.layer({name: node for nodes in self.nodes(mark) for name, node in nodes.items()})) as path:
            yield path


@contextmanager
def _file(data: bytes) -> Iterator[Path]:
    with tempfile.NamedTemporaryFile(prefix="wharf-bench-") as file:
        file.write(data)
        file.flush()
        yield Path(file.name)


@contextmanager
def _on_idle_disk(row: Row, engine: Engine) -> Iterator[None]:
    """``clock`` after what earlier steps, also those of the other engine, have written."""
    os.sync()
    with clock(row, engine):
        yield


def subjects(*, quick: bool) -> list[Subject]:
    """8,000 small files and 60 MB of incompressible data; 400 MB in six layers (a tenth of it when `quick`)."""
    share = 10 if quick else 1
    small, large = f"{8000 // share:,} files and {60 // share} MB", f"{400 // share} MB"
    return [
        Subject(small, small, 8000 // share, (60 * MB // share,), at_most(0.15)),
        Subject(f"{large} in 6 layers", large, 0, (400 * MB // 6 // share,) * 6, at_most(0.35)),
    ]


def registry_of(engine: Engine) -> AbstractContextManager[Registry]:
    """Run a registry on the engine's loopback."""
    return registry(netns=engine.netns if isinstance(engine, Dockerd) else None)


def transfers(engines: Sequence[Engine], *, quick: bool) -> Iterator[Row]:
    """Wall time of the CLI's whole command. skopeo has put the pulled image into the registry, for both engines.

    `rmi` is measured until its answer, and until the large files are gone: our collector starts three seconds later.
    """
    with ExitStack() as stack:
        registries = {engine.kind: stack.enter_context(registry_of(engine)) for engine in engines}
        for subject in subjects(quick=quick):
            aims = {verb: subject.aim if verb in ("load", "pull") else AIM for verb in (*VERBS, "rmi")}
            rows = {verb: Row(f"{verb}: {subject.label}", "ms", aim) for verb, aim in aims.items()}
            freed = Row(f"rmi until the disk is free: {subject.label}", "ms", within(6000))

            def once(
                engine: Engine, subject: Subject = subject, rows: dict[str, Row] = rows, freed: Row = freed
            ) -> None:
                mark, server = f"noise-{uuid.uuid4().hex}", registries[engine.kind]
                local, pushed, pulled = f"{mark}:1", server.name(f"pushed/{mark}:1"), server.name(f"pulled/{mark}:1")
                with subject.archive(local, mark) as path, _on_idle_disk(rows["load"], engine):
                    engine.docker("load", "-q", "-i", str(path), timeout=600)
                with tempfile.NamedTemporaryFile(prefix="wharf-bench-") as saved, clock(rows["save"], engine):
                    engine.docker("save", "-o", saved.name, local, timeout=600)
                engine.docker("tag", local, pushed)
                with clock(rows["push"], engine):
                    engine.docker("push", "-q", pushed, timeout=600)
                remove(engine, laid_out(engine, mark), local, pushed)
                mark = f"noise-{uuid.uuid4().hex}"
                with subject.archive(f"{mark}:1", mark) as path:
                    server.copy_archive(path, f"pulled/{local}")
                with _on_idle_disk(rows["pull"], engine):
                    engine.docker("pull", "-q", pulled, timeout=600)
                remove(engine, laid_out(engine, mark), pulled, answer=rows["rmi"], freed=freed)

            in_turn(engines, 1 if quick else 5, once, seconds=120)
            yield from rows.values()
            yield freed


def made(engines: Sequence[Engine], *, quick: bool) -> Iterator[Row]:
    """Wall time of `docker import` of a root file system, and of `docker commit` of one written to a container."""
    for subject in subjects(quick=quick):
        imported = Row(f"import: {subject.flat_label}", "ms", subject.aim)
        committed = Row(f"commit: {subject.flat_label}", "ms", AIM)

        def once(engine: Engine, subject: Subject = subject, rows: tuple[Row, Row] = (imported, committed)) -> None:
            mark = f"noise-{uuid.uuid4().hex}"
            with subject.flat(mark) as path, _on_idle_disk(rows[0], engine):
                engine.docker("import", str(path), f"{mark}:1", timeout=600)
            remove(engine, laid_out(engine, mark), f"{mark}:1")
            mark = f"noise-{uuid.uuid4().hex}"
            engine.docker("create", "--name", mark, "busybox", "true")
            with subject.flat(mark) as path:
                engine.docker("cp", "-", f"{mark}:/", input=path.read_bytes(), timeout=600)
            with _on_idle_disk(rows[1], engine):
                engine.docker("commit", mark, f"{mark}:1", timeout=600)
            files = laid_out(engine, mark)  # the container's: an engine need not unpack what it commits
            engine.docker("rm", mark)
            remove(engine, files, f"{mark}:1")

        in_turn(engines, 1 if quick else 5, once, seconds=60)
        yield imported
        yield committed


def laid_out(engine: Engine, mark: str) -> list[Path]:
    """Return the files in the data root whose names contain the mark."""
    argv = ["find", str(engine.resources.root / "data"), "-name", f"{mark}-*"]
    files = [Path(line) for line in engine.run(*argv, check=False).stdout.splitlines()]
    assert files, f"no file of {mark} in the data root"
    return files


def remove(
    engine: Engine, files: Sequence[Path], *names: str, answer: Row | None = None, freed: Row | None = None
) -> None:
    """Remove an image by its names and wait until its files are gone."""
    begin = time.perf_counter()
    engine.docker("rmi", *names, timeout=600)
    if answer is not None:
        answer.add(engine.kind, (time.perf_counter() - begin) * 1000)
    while any(file.exists() for file in files):
        assert time.perf_counter() < begin + 120, f"{files} still there"
        time.sleep(0.005)
    if freed is not None:
        freed.add(engine.kind, (time.perf_counter() - begin) * 1000)
