"""How many things of a kind one container may have: each costs work at create and at every start, much of it in turn.

dockerd has no such limits; the kernel and the runtimes refuse, or take minutes for, more than these.
"""

from collections.abc import Sized

from api_models.container import ContainerConfig, HostConfig
from engine.common import limits


def check_counts(config: ContainerConfig, host: HostConfig, networks: Sized) -> None:
    """:raises WharfError: INVALID_ARGUMENT, naming the limit."""
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
    """``inherited``: mount points taken from other containers.

    :raises WharfError: INVALID_ARGUMENT: more than ``limits.CONTAINER_MOUNTS``.
    """
    if _total(host.binds, host.mounts, host.tmpfs, config.volumes) + inherited > limits.CONTAINER_MOUNTS:
        raise limits.exceeded("CONTAINER_MOUNTS", "the number of mount points")


def _total(*lists: Sized | None) -> int:
    return sum(len(each) for each in lists if each is not None)
