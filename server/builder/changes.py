"""``--change`` of commit and import: instructions of a Dockerfile applied to a configuration."""

from collections.abc import Mapping, Sequence
from typing import Any


async def apply_changes(config: Mapping[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    """The configuration (an image config's ``config`` object) with the changes.

    :raises WharfError: INVALID_ARGUMENT for what is no such instruction.
    """
    lines = [line.strip() for change in changes for line in change.splitlines() if line.strip()]
    if not lines:
        return dict(config)
    from server.builder.instructions import applied  # the builder's modules are large

    return await applied(config, lines)
