"""The progress messages of pulls and pushes, compared line by line with dockerd's."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from compat_tests.support.engines import Dockerd, Engine
from compat_tests.support.images import oci_archive
from compat_tests.support.servers.registry import registry
from compat_tests.support.transfers import progress_messages, unique_layers

MIB = 1 << 20


def shape(message: dict[str, Any], hidden: Mapping[str, str]) -> tuple[object, ...]:
    """Normalise a message: names, sizes, digests and progress differ."""
    text = str(message.get("status", ""))
    for name, word in hidden.items():
        text = text.replace(name, word)
    for word in ("Digest: sha256:", "1: digest: sha256:"):
        if text.startswith(word):
            text = word
    detail = message.get("progressDetail")
    kind = None if detail is None else tuple(sorted(detail))
    return text, kind, tuple(sorted(message.get("aux", ())))


@dataclass(slots=True)
class Messages:
    """The messages of an operation: of the whole and of each layer, in order; and the forms of progress bars, whose
    number depends on time."""

    whole: list[tuple[object, ...]] = field(default_factory=list)
    layers: list[list[tuple[object, ...]]] = field(default_factory=list)
    bars: set[tuple[object, ...]] = field(default_factory=set)

    @classmethod
    def of(cls, messages: list[dict[str, Any]], hidden: Mapping[str, str]) -> Messages:
        result = cls()
        layers: dict[str, list[tuple[object, ...]]] = {}
        for message in messages:
            id = str(message.get("id", ""))
            line = shape(message, hidden)
            if "progress" in message:
                result.bars.add(line)
            elif len(id) == 12:
                layers.setdefault(id, []).append(line)
            else:
                result.whole.append((*line, id))
        result.layers = sorted(layers.values(), key=str)
        return result


def session(engine: Engine, archive: bytes) -> list[Messages]:
    name = f"progress-{uuid.uuid4().hex[:8]}"
    netns = engine.netns if isinstance(engine, Dockerd) else None
    found: list[Messages] = []
    with registry(netns=netns) as source, registry(netns=netns) as target:
        source.copy_archive(archive, f"{name}:1", format="oci-archive")
        near, other, far = source.name(name), source.name(f"{name}-other"), target.name(name)
        hidden = {name: "name", source.address: "here", target.address: "there"}

        def note(method: str, path: str, **query: object) -> None:
            found.append(Messages.of(progress_messages(engine, method, path, **query), hidden))

        try:
            note("POST", "/images/create", fromImage=near, tag="1")
            note("POST", "/images/create", fromImage=near, tag="1")
            note("POST", f"/images/{near}/push", tag="1")
            for repository in (other, far):
                engine.docker("tag", f"{near}:1", f"{repository}:1")
                note("POST", f"/images/{repository}/push", tag="1")
            note("POST", f"/images/{near}/push", tag="2")
        finally:
            for repository in (near, other, far):
                engine.docker("rmi", f"{repository}:1", check=False)
    return found


def test_progress_equals_dockerds(engine: Engine, oracle: Dockerd) -> None:
    # Large enough for progress bars in both directions, even on a loaded machine.
    archive = oci_archive("x:1", unique_layers(3, 9 * MIB))
    for ours, theirs in zip(session(engine, archive), session(oracle, archive), strict=True):
        assert ours.whole == theirs.whole
        assert ours.bars >= theirs.bars
        assert len(ours.layers) == len(theirs.layers)
        for mine, other in zip(ours.layers, theirs.layers, strict=True):
            # dockerd sends only the newest state, so it may omit a short one.
            rest = iter(mine)
            assert all(line in rest for line in other), (mine, other)
            assert mine[-1] == other[-1]
