"""What lists show of many images at once: the manifests below each target, their blobs and their layers.

Documents never change: what lists need of them is kept while a name refers to the target, also in the database, so that
a daemon that was restarted reads only the documents of new targets. A target is kept as a whole
when all of its blobs are local; a removal of images, the event of a deleted or dropped blob and a break of the event
stream discard that. Targets that are not kept cost one call, which lists all blobs, however many they are.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from engine.api.client import Engine
from engine.api.types import Descriptor
from engine.common.errors import Kind, WharfError
from engine.common.system.task_groups import run_all
from server.images.model import Image
from server.images.names import Names
from server.images.resolve import Resolver
from server.images.store import Facts, Known, KnownStore
from server.images.timestamps import parse_ns
from server.registry import documents, oci

#: How many targets are read concurrently: each reads its documents one after the other.
CONCURRENT = 8
#: Up to this number of targets, blobs are requested one by one.
_FEW = 1

#: Returns the bytes that a blob takes in the store; ``None`` if it is not local.
_SizeOf = Callable[[str], Awaitable[int | None]]


@dataclass(frozen=True, slots=True)
class Member:
    """One manifest below a target. ``facts``: None if it is no image, or not local. ``size``: the bytes of its local
    blobs: itself, config and layers. ``available``: all are local but layers that must not be distributed.
    ``no_image``: it is known that none of its layers is a part of a file system."""

    descriptor: Descriptor
    facts: Facts | None = None
    size: int = 0
    available: bool = False
    no_image: bool = False


@dataclass(frozen=True, slots=True)
class Tree:
    """``members``: the manifests, in the order of the indexes. ``blobs``: the sizes of all local blobs. ``images``: the
    local images of all platforms; ``best``: the one that this host runs, else the first; None if there is none.
    ``chains``: the chain ids of all layers of all images, each once."""

    target: Descriptor
    members: tuple[Member, ...]
    blobs: Mapping[str, int]
    images: tuple[Facts, ...]
    best: Facts | None
    chains: tuple[str, ...]


@dataclass(slots=True)
class _Walk:
    """One walk through the documents of a target."""

    target: Descriptor
    known: Known
    size_of: _SizeOf
    members: list[Member] = field(default_factory=list)
    blobs: dict[str, int] = field(default_factory=dict)


def _facts_of(image: Image) -> Facts:
    chains = tuple(oci.chain_ids(image.diff_ids))
    return Facts(image.platform, parse_ns(image.config.get("created")), dict(image.labels), chains)


class Trees:
    def __init__(self, engine: Engine, names: Names, resolver: Resolver, store: KnownStore) -> None:
        self._engine = engine
        self._names = names
        self._resolver = resolver
        self._store = store
        self._known: dict[str, Known] = {}  # by target
        self._stored: dict[str, int] = {}  # by target: the length of what the store has
        self._loading: asyncio.Task[None] | None = None
        self._complete: dict[str, Tree] = {}  # by target
        self._generation = 0

    def forget(self) -> None:
        """Blobs were removed: targets may be incomplete now."""
        self._generation += 1
        self._complete.clear()

    async def get(self, target: Descriptor) -> Tree:
        return (await self.get_all((target,)))[target.digest]

    async def get_all(self, targets: Iterable[Descriptor]) -> dict[str, Tree]:
        """Return the trees of some targets by digest."""
        if not self._names.followed:
            self.forget()
        wanted = {target.digest: target for target in targets}
        found = {digest: tree for digest in wanted if (tree := self._complete.get(digest)) is not None}
        missing = [target for digest, target in wanted.items() if digest not in found]
        if missing:
            if self._loading is None:
                self._loading = asyncio.create_task(self._load())
            await asyncio.shield(self._loading)
            await self._discard_unnamed()
            found |= await self._read_all(missing)
            await self._record(missing)
        return found

    async def _load(self) -> None:
        """Read what an earlier daemon knew, once."""
        self._known = await self._store.load()
        self._stored = {digest: len(known) for digest, known in self._known.items()}

    async def _record(self, targets: Iterable[Descriptor]) -> None:
        """Store what was read of these targets."""
        news = {
            digest: known
            for digest in {target.digest for target in targets}
            if (known := self._known.get(digest)) is not None and len(known) > self._stored.get(digest, 0)
        }
        if news:
            self._stored |= {digest: len(known) for digest, known in news.items()}
            await self._store.put(news)

    async def _discard_unnamed(self) -> None:
        named = {record.target.digest for record in await self._names.all()}
        for digest in self._complete.keys() - named:
            del self._complete[digest]
        for digest in self._known.keys() - named:
            del self._known[digest]
        if gone := self._stored.keys() - named:
            for digest in gone:
                del self._stored[digest]
            await self._store.delete(gone)

    async def _read_all(self, targets: Collection[Descriptor]) -> dict[str, Tree]:
        generation = self._generation
        size_of: _SizeOf = self._size_of
        if len(targets) > _FEW:
            sizes = {info.digest: info.stored async for info in self._engine.content.walk()}

            async def size_of(digest: str) -> int | None:
                return sizes.get(digest)

        found: dict[str, Tree] = {}
        left = iter(targets)

        async def read() -> None:
            for target in left:
                walk = _Walk(target, self._known.setdefault(target.digest, Known()), size_of)
                whole = await self._walk(walk, target)
                tree = found[target.digest] = self._tree(walk)
                if whole and generation == self._generation:
                    self._complete[target.digest] = tree
                await asyncio.sleep(0)  # documents that are known need no other wait

        await run_all(read() for _ in range(min(CONCURRENT, len(targets))))
        return found

    def _tree(self, walk: _Walk) -> Tree:
        def distance(facts: Facts) -> int:
            rank = oci.rank(self._resolver.host, facts.platform)
            return 1000 if rank is None else rank

        images = tuple(member.facts for member in walk.members if member.facts is not None)
        chains = dict.fromkeys(chain for facts in images for chain in facts.chains)
        best = min(images, key=distance, default=None)
        return Tree(walk.target, tuple(walk.members), walk.blobs, images, best, tuple(chains))

    async def _size_of(self, digest: str) -> int | None:
        return await documents.stored(self._engine, digest)

    async def _walk(self, walk: _Walk, desc: Descriptor) -> bool:
        """Add what is below a descriptor; return whether all of it is local."""
        index = oci.is_index(desc.media_type)
        if index and desc.digest in walk.blobs:
            return True
        size = await walk.size_of(desc.digest)
        children = await self._children(walk, desc) if size is not None else None
        if size is None or children is None:
            if not index:
                walk.members.append(Member(desc))
            return False
        walk.blobs[desc.digest] = size
        if index:
            return all([await self._walk(walk, child) for child in children])
        return await self._add_member(walk, desc, size, children)

    async def _add_member(self, walk: _Walk, desc: Descriptor, size: int, children: tuple[Descriptor, ...]) -> bool:
        blobs = {desc.digest: size}
        whole = available = True
        for child in children:
            if (found := await walk.size_of(child.digest)) is not None:
                blobs[child.digest] = found
            else:
                whole = False
                available = available and oci.is_foreign(child.media_type)
        walk.blobs.update(blobs)
        layers = children[1:]  # the first is the config
        no_image = bool(layers) and not any(oci.is_layer(layer.media_type) for layer in layers)
        facts = await self._facts(walk, desc, children) if children and children[0].digest in blobs else None
        walk.members.append(Member(desc, facts, sum(blobs.values()), available, no_image))
        return whole

    async def _children(self, walk: _Walk, desc: Descriptor) -> tuple[Descriptor, ...] | None:
        """The descriptors in an index or a manifest, none in other blobs and in documents that are not valid; ``None``
        if the document was removed meanwhile."""
        known = walk.known.children
        if desc.digest not in known:
            if not (oci.is_index(desc.media_type) or oci.is_manifest(desc.media_type)):
                return ()
            try:
                image = await self._resolver.image(walk.target, desc)
                document = image.manifest if image is not None else await documents.read(self._engine, desc)
                known[desc.digest] = oci.children(dict(document), desc.media_type)
            except WharfError as error:
                if error.kind is Kind.NOT_FOUND:
                    return None
                if error.kind is not Kind.INVALID_ARGUMENT:
                    raise
                known[desc.digest] = ()
        return known[desc.digest]

    async def _facts(self, walk: _Walk, desc: Descriptor, children: tuple[Descriptor, ...]) -> Facts | None:
        """The facts of a manifest whose config is local; ``None`` if it is no image."""
        config, *layers = children
        if not oci.Manifest(config, tuple(layers), {}).is_image:
            return None
        found = walk.known.facts.get(desc.digest)
        if found is None and (image := await self._resolver.image(walk.target, desc)) is not None:
            found = walk.known.facts[desc.digest] = _facts_of(image)
        return found
