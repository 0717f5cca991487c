"""``--change`` of commit and import: applies Dockerfile instructions to a configuration."""

from collections.abc import Mapping, Sequence
from typing import Any


async def apply_changes(config: Mapping[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    """Apply the changes to an image config's ``config`` object; return the new object.

    :raises WharfError: INVALID_ARGUMENT for an instruction that is not allowed.
    """
    lines = [line.strip() for change in changes for line in change.splitlines() if line.strip()]
    if not lines:
        return dict(config)
    from server.builder.instructions import apply_instructions  # imported here, as the builder's modules are large

    return await apply_instructions(config, lines)
