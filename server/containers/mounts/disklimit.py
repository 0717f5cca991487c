"""``--storage-opt size=``: how much a container may write into its own layer.

It takes project quotas: overlayfs on an XFS that is mounted with ``pquota``. Elsewhere it is refused as by dockerd.
"""

import os
from collections.abc import Mapping, Sequence

from engine.api.types import Mount
from engine.common.errors import internal
from engine.common.system import projectquota
from server.units import parse_size


def set_limit(rootfs: Sequence[Mount], options: Mapping[str, str]) -> None:
    """``HostConfig.StorageOpt`` for a container's fresh snapshot. Blocks.

    :raises WharfError: INTERNAL, with dockerd's words, for an option that isn't known, where it can't be, and for a
        size that is none.
    """
    for key in options:
        if key.lower() != "size":
            raise internal(f"Unknown option {key}")
    found = dict(option.partition("=")[::2] for option in rootfs[0].options)
    upper, work = found.get("upperdir", ""), found.get("workdir", "")
    if rootfs[0].type != "overlay" or not projectquota.supported(upper):
        raise internal("--storage-opt is supported only for overlay over xfs with 'pquota' mount option")
    try:
        size = [parse_size(value) for value in options.values()][-1]
    except ValueError as error:
        raise internal(str(error)) from None
    try:
        # Both, as overlayfs renames from one to the other; and where they are, for what it makes there later.
        projectquota.limit((os.path.dirname(upper), upper, work), size)
    except OSError as error:
        raise internal(f"failed to set the quota of {upper}: {(error.strerror or str(error)).lower()}") from error
