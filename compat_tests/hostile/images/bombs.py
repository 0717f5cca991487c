"""python -m compat_tests.hostile.images.bombs --gib 10: archives that decompress to a thousand times their size.

Every path that accepts an archive is tried.

A bomb is a tar with one file of zeros (``file``: it uses disk space, as in dockerd), or one followed by zeros
(``padding``: it uses only time). For each path and each compression the program prints the duration, the slowest
concurrent ping, the added memory, and the disk space that was not freed. It fails if the ping, the memory or the disk
exceeds its limit.
"""

from __future__ import annotations

import argparse
import bz2
import contextlib
import gzip
import hashlib
import http.client
import json
import lzma
import signal
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import zstandard

from compat_tests.hostile.side_effects import MIB, SideEffects, monitored, send
from compat_tests.support import engines
from compat_tests.support.disk import files
from compat_tests.support.engines import Engine
from compat_tests.support.images import config, descriptor, layer
from compat_tests.support.polling import until
from compat_tests.support.servers.registry import Registry, registry

ADDED = 400  # MiB of memory that a bomb may add; xz alone may take 65
LEFT = 16  # MiB of disk that may stay: logs, databases
_PIECE = 64 * MIB
_END = bytes(1024)
TAR = {"Content-Type": "application/x-tar"}

PACK: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data, 6, mtime=0),
    "zstd": lambda data: zstandard.ZstdCompressor(level=3).compress(data),
    "xz": lambda data: lzma.compress(data, preset=1),
    "bzip2": lambda data: bz2.compress(data, 9),
}


@dataclass(frozen=True, slots=True)
class Bomb:
    """``packed``: the compressed tar; the digest of its content is computed for small ones only."""

    kind: str
    packed: bytes
    diff_id: str


def bomb(kind: str, shape: str, size: int) -> Bomb:
    """Create a tar of about ``size`` bytes from compressed members of 64 MiB each, which is fast."""
    head = tarfile.TarInfo("zeros")
    head.size = size if shape == "file" else 0
    begin, end = head.tobuf(tarfile.GNU_FORMAT), _END
    if shape == "padding":
        begin, end = begin + _END, b""
    pack, zeros = PACK[kind], bytes(min(size, _PIECE))
    count = max(1, size // len(zeros))
    packed = pack(begin) + pack(zeros) * count + (pack(end) if end else b"")
    digest = hashlib.sha256(begin)
    if size <= 1 << 30:
        for _ in range(count):
            digest.update(zeros)
        digest.update(end)
    return Bomb(kind, packed, f"sha256:{digest.hexdigest()}")


def _document(bomb: Bomb) -> bytes:
    document = json.loads(config([b""]))
    document["rootfs"]["diff_ids"] = [bomb.diff_id]
    return json.dumps(document).encode()


Way = Callable[[Engine, Registry, Bomb], tuple[int, bytes]]


def _post(engine: Engine, url: str, body: bytes, method: str = "POST", **query: object) -> tuple[int, bytes]:
    def pieces() -> Iterator[bytes]:
        for at in range(0, len(body), 1 << 16):
            yield body[at : at + (1 << 16)]

    return send(engine, method, url, query=query, body=pieces(), headers=TAR, seconds=900)


def load_whole(engine: Engine, _: Registry, bomb: Bomb) -> tuple[int, bytes]:
    """An archive that is no image."""
    return _post(engine, "/images/load", bomb.packed)


def load_layer(engine: Engine, _: Registry, bomb: Bomb) -> tuple[int, bytes]:
    """A compressed layer in an image archive."""
    document = _document(bomb)
    manifest = json.dumps([{"Config": "config.json", "RepoTags": ["bomb:1"], "Layers": ["layer.tar"]}])
    archive = layer({"config.json": document, "layer.tar": bomb.packed, "manifest.json": manifest})
    return _post(engine, "/images/load", archive)


def import_(engine: Engine, _: Registry, bomb: Bomb) -> tuple[int, bytes]:
    return _post(engine, "/images/create", bomb.packed, fromSrc="-", repo="bomb", tag="1")


def context(engine: Engine, _: Registry, bomb: Bomb) -> tuple[int, bytes]:
    """A compressed context; only its end shows that it has no Dockerfile."""
    return _post(engine, "/build", bomb.packed)


def add(engine: Engine, _: Registry, bomb: Bomb) -> tuple[int, bytes]:
    """``ADD`` extracts it."""
    archive = layer({"Dockerfile": "FROM scratch\nADD bomb /x/\n", "bomb": bomb.packed})
    return _post(engine, "/build", archive, t="bomb:1")


def put(engine: Engine, _: Registry, bomb: Bomb) -> tuple[int, bytes]:
    """``docker cp`` into a container."""
    created = engine.api.post("/containers/create", {"Image": "busybox", "Cmd": ["true"]}, name="bomb").json()["Id"]
    return _post(engine, f"/containers/{created}/archive", bomb.packed, method="PUT", path="/tmp")


def pull(engine: Engine, source: Registry, bomb: Bomb) -> tuple[int, bytes]:
    """A registry's layer. For xz and bzip2, which have no media type, its media type is gzip's."""
    name = source.name("bomb")
    host, _, repository = name.partition("/")
    document = _document(bomb)
    packed = bomb.kind if bomb.kind == "zstd" else "gzip"
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor(document, "application/vnd.oci.image.config.v1+json"),
        "layers": [descriptor(bomb.packed, f"application/vnd.oci.image.layer.v1.tar+{packed}")],
    }
    connection = http.client.HTTPConnection(host, timeout=60)
    with contextlib.closing(connection):
        for data in (document, bomb.packed):
            connection.request("POST", f"/v2/{repository}/blobs/uploads/")
            answer = connection.getresponse()
            answer.read()
            location = answer.headers["Location"]
            digest = hashlib.sha256(data).hexdigest()
            connection.request("PUT", f"{location}{'&' if '?' in location else '?'}digest=sha256:{digest}", body=data)
            answer = connection.getresponse()
            assert answer.status == 201, answer.read()
            answer.read()
        kind = {"Content-Type": str(manifest["mediaType"])}
        connection.request("PUT", f"/v2/{repository}/manifests/1", body=json.dumps(manifest), headers=kind)
        answer = connection.getresponse()
        assert answer.status == 201, answer.read()
        answer.read()
    return send(engine, "POST", "/images/create", query={"fromImage": name, "tag": "1"}, seconds=900)


WAYS: dict[str, Way] = {
    "load": load_whole,
    "layer": load_layer,
    "import": import_,
    "context": context,
    "add": add,
    "put": put,
    "pull": pull,
}


def clear(engine: Engine) -> None:
    """Remove what a bomb has created."""
    engine.remove_all()
    for image in engine.api.get("/images/json").json():
        if not any(tag.startswith("busybox:") for tag in image["RepoTags"] or ()):
            engine.api.delete(f"/images/{image['Id']}", force=1)
    engine.api.post("/build/prune", all=1)


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one bomb. ``disk``: MiB that were not freed."""

    seconds: float
    status: int
    answer: bytes
    effects: SideEffects
    disk: int


def try_bomb(engine: Engine, source: Registry, way: str, bomb_file: Bomb) -> Result:
    """Try one bomb on one path. Fails beyond the limits of this module."""
    before = _used(engine)
    begin = time.monotonic()
    with monitored(engine, added=ADDED) as effects:
        status, answer = WAYS[way](engine, source, bomb_file)
    seconds = time.monotonic() - begin
    clear(engine)
    until(lambda: _used(engine) - before < LEFT * MIB, seconds=60)
    disk = (_used(engine) - before) // MIB
    assert status, f"{way}: no answer"
    assert b"internal error" not in answer, answer
    assert disk < LEFT, f"{way}: {disk} MiB of disk stay"
    return Result(seconds, status, answer, effects, disk)


def _used(engine: Engine) -> int:
    return sum(files(engine).values())


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m compat_tests.hostile.images.bombs", description=__doc__)
    parser.add_argument("--gib", type=float, default=10, help="of plain data (10)")
    parser.add_argument("--kind", choices=PACK, action="append", help="compressions (all)")
    parser.add_argument("--way", choices=WAYS, action="append", help="ways in (all)")
    parser.add_argument("--shape", choices=("file", "padding"), action="append", help="of the tar (both)")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # ends the engine too
    failed = 0
    with registry() as source, engines.wharf("bombs") as engine:
        engine.load_busybox()
        for shape in options.shape or ("file", "padding"):
            for kind in options.kind or PACK:
                bomb_file = bomb(kind, shape, int(options.gib * (1 << 30)))
                for way in options.way or WAYS:
                    name = f"{way:8} {kind:6} {shape:8}"
                    try:
                        result = try_bomb(engine, source, way, bomb_file)
                    except AssertionError as error:
                        failed += 1
                        print(f"{name} FAILED {error}", flush=True)
                        continue
                    answer = result.answer.splitlines()[-1][:100] if result.answer else b""
                    effects = result.effects
                    print(
                        f"{name} {result.seconds:6.1f} s, ping {effects.slowest:.2f} s, +{effects.added} MiB, "
                        f"{result.disk} MiB left, {result.status} {answer!r}",
                        flush=True,
                    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
