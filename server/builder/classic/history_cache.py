"""``cachefrom`` of the classic builder: looks steps up in the history of images.

An image's layer matches a step if the image's history is equal up to the step, and if its lower layers are the step's
parents. Copies are compared by the checksum in the history, which Wharf computes differently than dockerd: of an image
that a dockerd built, only the other steps match.
"""

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.api.client import Engine
from engine.api.types import Descriptor
from server.builder.cache.cache_config import CacheHit
from server.builder.plan.imageconfig import parse_utc
from server.builder.plan.llbkey import Key
from server.builder.plan.steps import FILES, Layer, Result, Step
from server.images.model import Image
from server.registry import oci

_COPIED = re.compile(r"(file|dir|multi):[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class HistoryCache:
    """One local image (server.builder.cache.remote.Remote)."""

    engine: Engine
    image: Image

    @property
    def has_llb(self) -> bool:
        return False

    def llb(self, key: Key) -> Sequence[CacheHit]:
        return ()

    def find_by_definition(self, key: str) -> CacheHit | None:
        return None

    def find(self, key: str, step: Step, parent: Result, files: str) -> CacheHit | None:
        entry = self._entry(step.created_by.texts(), parent.diff_ids)
        number = len(parent.diff_ids)
        if entry is None or entry.get("empty_layer") or number >= len(self.image.diff_ids):
            return None
        if entry.get("created_by") != step.created_by.texts()[-1].replace(FILES, files):
            return None
        descriptor = oci.descriptor(self.image.layers[number], "layer")
        return CacheHit(Layer(descriptor, self.image.diff_ids[number], parse_utc(str(entry.get("created", "")))))

    def applied_ns(self, lines: Sequence[str], diff_ids: Sequence[str]) -> int | None:
        """When the image got the last line of a history, which creates no layer; ``None`` if the history differs."""
        entry = self._entry(lines, diff_ids)
        if entry is None or not entry.get("empty_layer") or entry.get("created_by") != lines[-1]:
            return None
        return parse_utc(str(entry.get("created", "")))

    def _entry(self, lines: Sequence[str], diff_ids: Sequence[str]) -> Mapping[str, Any] | None:
        """The image's history line at the position of the last of ``lines``, if all lines below are equal."""
        history: Sequence[Mapping[str, Any]] = self.image.config.get("history") or ()
        at = len(lines) - 1
        if not 0 <= at < len(history):
            return None
        below = zip(history[:at], lines, strict=False)
        if not all(_same(str(entry.get("created_by", "")), text) for entry, text in below):
            return None
        number = sum(not entry.get("empty_layer") for entry in history[:at])
        return history[at] if tuple(self.image.diff_ids[:number]) == tuple(diff_ids) else None

    async def fetch(self, descriptor: Descriptor) -> AsyncIterator[bytes]:
        async for piece in self.engine.content.read(descriptor.digest):
            yield piece


def _same(found: str, expected: str) -> bool:
    """Whether two lines are equal. Copies in lower lines are compared by their layers."""
    return (_COPIED.sub(FILES, found) if FILES in expected else found) == expected
