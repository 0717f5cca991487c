"""What a node reports of its images: a short key of each name and digest, for the scheduler."""

import hashlib
from collections.abc import Iterable

from engine.common.errors import WharfError
from server.registry.reference import parse
from server.swarm.model.objects import NodeImages

#: The most keys of a node, and the characters of each. Two images may have the same key: nothing but a choice between
#: equal nodes depends on it.
MAX_KEYS, _DIGITS = 512, 8


def key_of(reference: str) -> str:
    """``reference``: a digest, or a full name with a tag."""
    return hashlib.sha256(reference.encode()).hexdigest()[:_DIGITS]


def keys_of(references: Iterable[str]) -> str:
    """The keys in order, with spaces between them: at most ``MAX_KEYS``."""
    return " ".join(sorted({key_of(each) for each in references})[:MAX_KEYS])


def wanted(image: str) -> str:
    """The key of a task's image; "": it is no reference."""
    try:
        reference = parse(image).tagged()
    except WharfError:
        return ""
    return key_of(reference.digest or str(reference))


def has(images: NodeImages | None, key: str) -> bool:
    """Whether a node seems to have the image with this key."""
    return images is not None and key != "" and key in images.keys


def valid(keys: str) -> bool:
    """Whether a text is one of ``keys_of``."""
    parts = keys.split(" ") if keys else []
    return len(parts) <= MAX_KEYS and all(len(each) == _DIGITS and each.isalnum() for each in parts)
