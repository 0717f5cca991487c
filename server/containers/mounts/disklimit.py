"""``--storage-opt size=``: a limit of the size of a container's writable layer.

It needs project quotas: overlayfs on an XFS that is mounted with ``pquota``. Other hosts refuse it, as with dockerd.
"""

import os
from collections.abc import Mapping, Sequence

from engine.api.types import Mount
from engine.common.errors import internal
from engine.common.system import projectquota
from server.units import parse_size


def set_limit(rootfs: Sequence[Mount], options: Mapping[str, str]) -> None:
    """Applies ``HostConfig.StorageOpt`` to a container's new snapshot. Blocks.

    :raises WharfError: INTERNAL, in dockerd's words: an unknown option, a malformed size, or no support by this host.
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
        # upperdir and workdir need the same project, as overlayfs renames files from one to the other. Their directory
        # has it too, so that a workdir that overlayfs makes again inherits it.
        projectquota.limit((os.path.dirname(upper), upper, work), size)
    except OSError as error:
        raise internal(f"failed to set the quota of {upper}: {(error.strerror or str(error)).lower()}") from error
