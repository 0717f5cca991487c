"""Limits of the numbers of mounts, devices and networks of one container: each costs time at create and at every start.

dockerd has no such limits; the kernel and the runtimes refuse larger numbers, or need minutes for them.
"""

from collections.abc import Sized

from api_models.container import ContainerConfig, HostConfig
from engine.common import limits


def check_counts(config: ContainerConfig, host: HostConfig, networks: Sized) -> None:
    """Checks mounts, devices and ``networks``, the requested endpoints.

    :raises WharfError: INVALID_ARGUMENT with the limit's name.
    """
    check_mounts(config, host)
    devices = _total(
        host.devices,
        host.device_requests,
        host.device_cgroup_rules,
        host.blkio_weight_device,
        host.blkio_device_read_bps,
        host.blkio_device_write_bps,
        host.blkio_device_read_iops,
        host.blkio_device_write_iops,
    )
    if devices > limits.CONTAINER_DEVICES:
        raise limits.exceeded("CONTAINER_DEVICES", "the number of devices")
    if len(networks) > limits.CONTAINER_NETWORKS:
        raise limits.exceeded("CONTAINER_NETWORKS", "the number of networks")


def check_mounts(config: ContainerConfig, host: HostConfig, *, inherited: int = 0) -> None:
    """Checks the number of mount points. ``inherited``: how many come from other containers (``--volumes-from``).

    :raises WharfError: INVALID_ARGUMENT: more than ``limits.CONTAINER_MOUNTS``.
    """
    if _total(host.binds, host.mounts, host.tmpfs, config.volumes) + inherited > limits.CONTAINER_MOUNTS:
        raise limits.exceeded("CONTAINER_MOUNTS", "the number of mount points")


def _total(*lists: Sized | None) -> int:
    return sum(len(each) for each in lists if each is not None)
