"""What secrets and configs have in common. Sentences are SwarmKit's (manager/controlapi/secret.go, config.go)."""

import base64
import binascii
import re
from collections.abc import Sequence
from typing import TypeVar

from api_models.filters import Filters
from api_models.swarm.secret import ConfigSpec, SecretSpec
from engine.common.errors import invalid
from server.swarm.model.objects import Config, Secret
from server.swarm.operations import match
from server.swarm.operations.rpc import malformed
from server.swarm.state.tables import NamedTable

P = TypeVar("P", bound=Secret | Config)

_NAME = re.compile(r"[a-zA-Z0-9]+(?:[a-zA-Z0-9\-_.]*[a-zA-Z0-9])?", re.ASCII)
_MAX_NAME = 64
_BASE64 = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")


def decode(text: str) -> bytes:
    """The bytes of a field that is base64 in JSON.

    :raises WharfError: INVALID_ARGUMENT with Go's sentence.
    """
    encoded = text.encode().translate(None, b"\r\n")
    try:
        return base64.b64decode(encoded, validate=True)
    except binascii.Error:
        wrong = (index for index, each in enumerate(encoded) if each not in _BASE64)
        raise invalid(f"invalid JSON: illegal base64 data at input byte {next(wrong, len(encoded) // 4 * 4)}") from None


def check(noun: str, spec: SecretSpec | ConfigSpec, data: bytes, limit: int) -> None:
    """:raises WharfError: INVALID_ARGUMENT: the name, the size of the data, or the templating driver."""
    if not spec.name:
        raise malformed("name must be provided")
    if len(spec.name) > _MAX_NAME or not _NAME.fullmatch(spec.name):
        raise malformed(
            "invalid name, only 64 [a-zA-Z0-9-_.] characters allowed, and the start and end character must be"
            " [a-zA-Z0-9]"
        )
    if not 0 < len(data) < limit:
        raise malformed(f"{noun} data must be larger than 0 and less than {limit} bytes")
    if spec.templating is not None and spec.templating.name not in ("", "golang"):
        raise malformed(f'templating driver "{spec.templating.name}" is not supported: there is only "golang"')


def check_update(name: str, spec: SecretSpec | ConfigSpec, data: bytes) -> None:
    """:raises WharfError: INVALID_ARGUMENT: it changes more than labels. ``name`` and ``data``: the present ones."""
    if spec.name != name or (spec.data and decode(spec.data) != data):
        raise malformed("only updates to Labels are allowed")


def in_use(noun: str, name: str, services: Sequence[str]) -> None:
    """:raises WharfError: INVALID_ARGUMENT: services, which have these names, use it."""
    if services:
        plural = "s" if len(services) > 1 else ""
        raise malformed(f"{noun} '{name}' is in use by the following service{plural}: {', '.join(services)}")


def select(table: NamedTable[P], filters: Filters) -> list[P]:
    """The objects that match by id or by name, and have the labels."""
    ids, prefixes, names = filters.get("id"), filters.get("name"), filters.get("names")
    every = not (ids or prefixes or names)
    return [
        item
        for item in sorted(table, key=lambda each: each.id)
        if (every or item.id.startswith(tuple(ids)) or item.name.startswith(tuple(prefixes)) or item.name in names)
        and match.labelled(item.spec.labels, filters.get("label"))
    ]
