"""The subordinate ids of users: ``/etc/subuid`` and ``/etc/subgid`` (subuid(5))."""

from collections.abc import Collection
from pathlib import Path

from server.config.types import ConfigError

SUBUID, SUBGID = "/etc/subuid", "/etc/subgid"


def entries(path: str) -> list[tuple[str, int, int]]:
    """The lines of a file of ranges: owner, first id, number of ids.

    :raises ConfigError: a malformed line.
    """
    try:
        lines = Path(path).read_text().splitlines()
    except FileNotFoundError:
        return []
    found = []
    for line in map(str.strip, lines):
        if not line or line.startswith("#"):
            continue
        parts = line.split(":")
        if len(parts) != 3 or not (parts[1].isdecimal() and parts[2].isdecimal()):
            raise ConfigError(f"Can't create ID mappings: cannot parse subuid/gid information: invalid line: {line!r}")
        found.append((parts[0], int(parts[1]), int(parts[2])))
    return found


def ranges(path: str, owners: Collection[str] | None = None) -> list[tuple[int, int]]:
    """First id and number of ids of the ranges of ``owners`` (names and numbers; None: of all), in the host's order.

    :raises ConfigError: a malformed line.
    """
    return sorted((first, size) for owner, first, size in entries(path) if owners is None or owner in owners)
