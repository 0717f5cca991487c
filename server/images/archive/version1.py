"""Image archives of Docker before 1.10: no manifest; a directory per layer, with its config and its parent's id.

``<id>/json`` is the config (image specification v1), ``<id>/layer.tar`` the layer, and ``repositories`` has the names:
``{repository: {tag: id}}``.
"""

import asyncio
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.api.client import Engine
from engine.api.types import Descriptor
from engine.common import limits
from engine.common.errors import invalid
from server.images.archive.asynctar import plain
from server.images.archive.contents_reader import REPOSITORIES
from server.registry import oci

_ID = re.compile(r"[a-f0-9]{64}")
#: Fields of a v1 config about the layer's position; an image's config has none of them.
_PLACED = ("id", "parent", "parent_id", "layer_id", "Size", "throwaway")


@dataclass(frozen=True, slots=True)
class Layer:
    """The directory of one layer."""

    id: str
    parent: str
    document: oci.Json


@dataclass(frozen=True, slots=True)
class Archive:
    """Layers by id, and the names of images."""

    layers: Mapping[str, Layer]
    tags: Mapping[str, Sequence[str]]

    def images(self) -> list[str]:
        """Return the ids that have a name, or are no other layer's parent."""
        parents = {layer.parent for layer in self.layers.values()}
        return [id for id in self.layers if id in self.tags or id not in parents]

    def names(self, id: str) -> Sequence[str]:
        return self.tags.get(id, ())

    def chain(self, id: str) -> list[Layer]:
        """Return a layer with all its ancestors, lowest first.

        :raises WharfError: INVALID_ARGUMENT for a parent that is missing or its own ancestor.
        """
        found: dict[str, Layer] = {}
        while id:
            if id in found:
                raise invalid(f"invalid parent ID: {id} is its own ancestor")
            if len(found) == limits.IMAGE_LAYERS:
                raise limits.exceeded("IMAGE_LAYERS", f"the number of layers below {next(iter(found))}")
            if id not in self.layers:
                raise invalid(f"invalid parent ID: no layer {id} in the archive")
            found[id] = self.layers[id]
            id = found[id].parent
        return list(reversed(found.values()))


def parse(documents: Mapping[str, bytes]) -> Archive:
    """Parse the archive's small files.

    :raises WharfError: INVALID_ARGUMENT for an invalid document, and for a name of an unknown layer.
    """
    layers: dict[str, Layer] = {}
    for name in sorted(documents):
        id, slash, file = name.partition("/")
        if not slash or file != "json":
            continue
        document = oci.load(documents[name], name)
        parent = document.get("parent") or ""
        if document.get("id") != id or not _ID.fullmatch(id):
            raise invalid(f"image ID {str(document.get('id'))!r} is invalid")
        if not isinstance(parent, str) or (parent and not _ID.fullmatch(parent)):
            raise invalid(f"{name}: invalid parent ID")
        if (system := document.get("os") or "linux") != "linux":
            raise invalid(f"cannot load {system} image on linux")
        layers[id] = Layer(id, parent, document)
    tags: dict[str, list[str]] = {}
    for repository, named in oci.load(documents[REPOSITORIES], REPOSITORIES).items():
        if not isinstance(named, dict):
            raise invalid(f"{REPOSITORIES}: not an object of tags")
        for tag, id in named.items():
            if not isinstance(id, str) or id not in layers:
                raise invalid(f"invalid target ID: {id}")
            tags.setdefault(id, []).append(f"{repository}:{tag}")
    if not layers:
        raise invalid("unrecognized image format")
    return Archive(layers, tags)


def config(chain: Sequence[Layer], diff_ids: Sequence[str]) -> bytes:
    """Return the image config: the last layer's, with the root file system and the history of all layers."""
    last = chain[-1].document
    document = {key: value for key, value in last.items() if key not in _PLACED}
    document.setdefault("os", "linux")
    document["rootfs"] = {"type": "layers", "diff_ids": list(diff_ids)}
    document["history"] = [_history(layer.document) for layer in chain]
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def _history(document: Mapping[str, Any]) -> oci.Json:
    made = document.get("container_config")
    command = made.get("Cmd") if isinstance(made, Mapping) else None
    row = {
        "created": document.get("created"),
        "author": document.get("author"),
        "created_by": " ".join(map(str, command)) if isinstance(command, list) else "",
        "comment": document.get("comment"),
    }
    return {key: value for key, value in row.items() if isinstance(value, str) and value}


async def diff_id(engine: Engine, layer: Descriptor) -> str:
    """Compute the digest of a layer's decompressed bytes.

    :raises WharfError: INVALID_ARGUMENT for broken compression.
    """
    if layer.media_type == oci.DOCKER_LAYER:
        return layer.digest
    found = hashlib.sha256()
    async for piece in plain(engine.content.read(layer.digest)):
        await asyncio.to_thread(found.update, piece)
    return f"sha256:{found.hexdigest()}"
