"""``docker images`` and the images' part of ``docker system df``: all images at once.

The number of calls does not grow with the number of images: :class:`server.images.trees.Trees` and
:class:`server.images.sizes.Sizes` keep what never changes, and list what is unknown in one call of each kind.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from api_models.filters import Filters
from engine.api.types import ImageRecord
from server.images.context import ImageContext
from server.images.filters import LIST_FILTERS, selector
from server.images.identity import read_all as read_identities
from server.images.manifests import describe, used_manifests
from server.images.model import PARENT_LABEL, is_dangling, owner_of
from server.images.names import repo_names
from server.images.sizes import Sizes
from server.images.store import Facts
from server.images.trees import Tree
from server.registry import oci

Json = dict[str, Any]

#: After this many images, other requests get their turn.
_TURN = 64


class ImageList:
    def __init__(self, context: ImageContext, sizes: Sizes) -> None:
        self._context = context
        self._sizes = sizes

    async def summaries(
        self,
        filters: Filters,
        *,
        show_all: bool = False,
        shared_size: bool = False,
        manifests: bool = False,
        identity: bool = False,
        count: bool = True,
    ) -> list[Json]:
        """Return one summary per target, newest first. ``identity``: show it in the manifests.

        :raises WharfError: INVALID_ARGUMENT for a filter, NOT_FOUND for an image that a filter names.
        """
        filters.validate(LIST_FILTERS)
        context = self._context
        selected = await selector(context, filters, several=True)
        records = await context.names.all()
        hidden = set() if show_all else {r.labels[PARENT_LABEL] for r in records if r.labels.get(PARENT_LABEL)}
        by_digest: dict[str, list[ImageRecord]] = {}
        shown = [r for r in records if not (is_dangling(r) and r.target.digest in hidden)]
        for record in sorted(await selected(shown), key=lambda r: r.name):
            by_digest.setdefault(record.target.digest, []).append(record)
        trees = await context.trees.get_all(group[0].target for group in by_digest.values())
        layers = await self._sizes.layers(chain for tree in trees.values() for chain in tree.chains)
        identities = await read_identities(context.engine, by_digest) if manifests and identity else {}
        users = Counter(user.image_id for user in context.users() if not user.image_manifest)
        manifest_users = used_manifests(context.users())
        found: list[tuple[Json, Tree]] = []
        for number, (digest, group) in enumerate(by_digest.items()):
            if number % _TURN == _TURN - 1:
                await asyncio.sleep(0)
            tree = trees[digest]
            summary = _summary(group, tree, layers)
            summary["Containers"] = _count(tree, users, manifest_users) if count else -1
            if manifests:
                summary["Manifests"] = describe(tree, layers, manifest_users, identity=identities.get(digest))
            found.append((summary, tree))
        if shared_size:
            _share(found, layers)
        return [summary for summary, _ in sorted(found, key=lambda row: -row[0]["Created"])]

    async def layers(self) -> dict[str, list[tuple[str, int]]]:
        """Return the unpacked layers of each image, the lowest first, as pairs of chain id and size, by the image's
        id. Platforms that are not unpacked have none."""
        records = await self._context.names.all()
        trees = await self._context.trees.get_all({r.target.digest: r.target for r in records}.values())
        sizes = await self._sizes.layers(chain for tree in trees.values() for chain in tree.chains)
        return {
            digest: [(chain, sizes[chain]) for chain in dict.fromkeys(_layers(tree, sizes)) if chain in sizes]
            for digest, tree in trees.items()
        }

    async def own_sizes(self) -> dict[str, int]:
        """Return the bytes of the owner's own images, published ones excluded, by name. What several contain is counted
        for the first; what another owner's image contains, too, is counted for each owner."""
        records = sorted(await self._context.names.own(), key=lambda record: record.name)
        trees = await self._context.trees.get_all(record.target for record in records)
        layers = await self._sizes.layers(chain for tree in trees.values() for chain in tree.chains)
        found: dict[str, int] = {}
        counted: set[str] = set()
        for record in records:
            tree = trees[record.target.digest]
            parts = {**tree.blobs, **{chain: layers.get(chain, 0) for chain in tree.chains}}
            found[record.name] = sum(bytes_ for key, bytes_ in parts.items() if key not in counted)
            counted |= parts.keys()
        return found

    async def count(self) -> int:
        """Return the number of images in a list of all images."""
        return len({record.target.digest for record in await self._context.names.all()})

    async def count_by_owner(self) -> dict[str, int]:
        """Return the number of images of each owner, of those that the caller may remove."""
        context = self._context
        digests: dict[str, set[str]] = {}
        for record in await context.names.own():
            digests.setdefault(context.owner or owner_of(record), set()).add(record.target.digest)
        return {owner: len(found) for owner, found in digests.items()}

    async def layers_size(self) -> int:
        """Return the bytes of all images, each blob and layer counted once, including running downloads."""
        blobs: dict[str, int] = {}
        chains: set[str] = set()
        for tree in (await self._context.all_trees()).values():
            blobs.update(tree.blobs)
            chains.update(tree.chains)
        # The init layers, which the containers of an image share.
        tops = {f"{chain}-init" for chain in chains}
        chains |= {info.name async for info in self._context.engine.snapshots.walk(['name~="-init$"'])} & tops
        layers = await self._sizes.layers(chains)
        return sum(blobs.values()) + sum(layers.values()) + await self._sizes.arriving()

    async def chains(self) -> set[str]:
        """Return the chain ids of all layers of all images."""
        return {chain for tree in (await self._context.all_trees()).values() for chain in tree.chains}

    async def children(self, digest: str) -> list[str]:
        """Return the ids of child images: by the parent label of build steps, or because their first layers are
        equal."""
        records = await self._context.names.all()
        labelled = {record.target.digest for record in records if record.labels.get(PARENT_LABEL) == digest}
        trees = await self._context.all_trees()
        base = trees[digest].best if digest in trees else None

        def is_child(tree: Tree) -> bool:
            return base is not None and any(_starts_with(facts, base) for facts in tree.images)

        return [each for each, tree in trees.items() if each != digest and (each in labelled or is_child(tree))]


def _starts_with(facts: Facts, base: Facts) -> bool:
    """Whether an image has all layers of another one and more: a chain id stands for all layers up to it."""
    count = len(base.chains)
    return 0 < count < len(facts.chains) and facts.chains[count - 1] == base.chains[-1]


def _count(tree: Tree, users: Mapping[str, int], manifest_users: Mapping[str, Sequence[str]]) -> int:
    """Return the number of containers that use one of the manifests, by whatever name or index. ``users``: the number
    of those whose manifest is unknown, by the image's id."""
    manifests = {member.descriptor.digest for member in tree.members}
    return users.get(tree.target.digest, 0) + sum(len(manifest_users.get(digest, ())) for digest in manifests)


def _summary(group: list[ImageRecord], tree: Tree, layers: Mapping[str, int]) -> Json:
    record, best = group[0], tree.best
    tags, digests = repo_names(group)
    unpacked = sum(facts.unpacked(layers) for facts in tree.images)
    return {
        "Containers": -1,
        "Created": ((best.created_ns if best is not None else None) or 0) // 1_000_000_000,
        "Id": record.target.digest,
        "Labels": dict(best.labels) if best is not None else {},
        "ParentId": record.labels.get(PARENT_LABEL, ""),
        "Descriptor": oci.to_json(record.target),
        "RepoDigests": digests,
        "RepoTags": tags,
        "SharedSize": -1,
        "Size": unpacked + sum(member.size for member in tree.members),
    }


def _share(found: list[tuple[Json, Tree]], layers: Mapping[str, int]) -> None:
    """Set ``SharedSize``: the size of those blobs and layers that other images or platforms have, too. A layer counts
    once for each unpacked platform that has it, as in the target's size."""
    parts = [_layers(tree, layers) for _, tree in found]
    blobs = Counter(digest for _, tree in found for digest in tree.blobs)
    chains = Counter(chain for each in parts for chain in each)
    for (summary, tree), each in zip(found, parts, strict=True):
        shared = sum(size for digest, size in tree.blobs.items() if blobs[digest] > 1)
        summary["SharedSize"] = shared + sum(layers.get(chain, 0) for chain in each if chains[chain] > 1)


def _layers(tree: Tree, layers: Mapping[str, int]) -> list[str]:
    return [chain for facts in tree.images if facts.unpacked(layers) for chain in facts.chains]
