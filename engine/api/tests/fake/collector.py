"""Collects the blobs and snapshots that no image, container, lease or label ``containerd.io/gc.root`` references."""

import re
from collections.abc import Iterator, Mapping

from engine.api.labels import GC_ROOT
from engine.api.tests.fake.snapshots import Snapshots
from engine.api.tests.fake.state import Namespace

_REFERENCE = re.compile(r"containerd\.io/gc\.ref\.(?:(content)(?:[./].*)?|snapshot\.([^/]+)(?:/.*)?)")

#: ("content", digest) or ("snapshots/<snapshotter>", key).
Node = tuple[str, str]


def collect(space: Namespace, snapshots: Snapshots) -> None:
    """Deletes the blobs and snapshots that are garbage."""
    live: set[Node] = set()
    pending = list(_roots(space))
    while pending:
        node = pending.pop()
        if node not in live:
            live.add(node)
            pending += _following(space, node)
    for digest in [digest for digest in space.blobs if ("content", digest) not in live]:
        del space.blobs[digest]
    for (name, key), snapshot in list(space.snapshots.items()):
        if (f"snapshots/{name}", key) not in live:
            snapshots.discard(space, name, snapshot)


def _roots(space: Namespace) -> Iterator[Node]:
    for lease in space.leases.values():
        yield from lease.resources
    for image in space.images.values():
        yield "content", image.target.digest
        yield from _references(image.labels)
    for container in space.containers.values():
        yield f"snapshots/{container.snapshotter}", container.snapshot_key
    for digest, blob in space.blobs.items():
        if GC_ROOT in blob.info.labels:
            yield "content", digest
    for (name, key), snapshot in space.snapshots.items():
        if GC_ROOT in snapshot.info.labels:
            yield f"snapshots/{name}", key


def _following(space: Namespace, node: Node) -> Iterator[Node]:
    kind, id = node
    if kind == "content" and id in space.blobs:
        yield from _references(space.blobs[id].info.labels)
    name = kind.partition("/")[2]
    if (name, id) in space.snapshots:
        info = space.snapshots[name, id].info
        yield from _references(info.labels)
        if info.parent:
            yield kind, info.parent


def _references(labels: Mapping[str, str]) -> Iterator[Node]:
    for label, value in labels.items():
        if found := _REFERENCE.fullmatch(label):
            yield ("content" if found[1] else f"snapshots/{found[2]}"), value
