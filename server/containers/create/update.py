"""``docker update``: changes the limits and the restart policy of a container, running or not."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from api_models.container import HostConfig
from api_models.resources import (
    UPDATABLE_FIELDS,
    UPDATABLE_LISTS,
    Resources,
    RestartPolicy,
    ThrottleDevice,
    WeightDevice,
)
from engine.common.errors import Kind, WharfError, conflict
from server.containers.context import ContainerContext
from server.containers.create.resources import check_resources
from server.containers.create.validate import check_restart_policy
from server.containers.model import Container
from server.containers.spec import resources as spec_resources

_DEFAULT_WEIGHT = 100
_NO_RATE = 2**64 - 1


def _check_conflicts(resources: Resources, current: Resources) -> None:
    """Checks an update against the container's limits: ``--cpus`` excludes a CPU period and a CPU quota.

    :raises WharfError: CONFLICT.
    """
    for requested, other, sentence in (
        (resources.nano_cpus, current.cpu_period, "Nano CPUs cannot be updated as CPU Period has already been set"),
        (resources.nano_cpus, current.cpu_quota, "Nano CPUs cannot be updated as CPU Quota has already been set"),
        (resources.cpu_period, current.nano_cpus, "CPU Period cannot be updated as NanoCPUs has already been set"),
        (resources.cpu_quota, current.nano_cpus, "CPU Quota cannot be updated as NanoCPUs has already been set"),
    ):
        if requested > 0 and other > 0:
            raise conflict(f"Conflicting options: {sentence}")
    if resources.memory != 0 and resources.memory_swap == 0 and resources.memory > current.memory_swap != -1:
        raise conflict(
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time"
        )


def merged(current: HostConfig, resources: Resources, policy: RestartPolicy | None) -> HostConfig:
    """The container's configuration after the update. Fields that are 0, "" or None stay unchanged.

    :raises WharfError: CONFLICT: a field conflicts with one that the container has.
    """
    _check_conflicts(resources, current)
    changes: dict[str, Any] = {
        name: value for name in UPDATABLE_FIELDS if (value := getattr(resources, name)) not in (0, "", None)
    }
    changes |= {name: value for name in UPDATABLE_LISTS if (value := getattr(resources, name)) is not None}
    if resources.pids_limit is not None:
        changes["pids_limit"] = resources.pids_limit  # 0: unlimited
    if policy is not None and policy.name:
        if current.auto_remove and policy.name != "no":
            raise conflict("Restart policy cannot be updated because AutoRemove is enabled for the container")
        changes["restart_policy"] = policy
    return replace(current, **changes)


def device_limits(current: Resources, resources: Resources) -> dict[str, Any]:
    """The lists of limits by device that the kernel needs: the requested ones, and for devices that a list no longer
    names the value that removes the limit. The runtimes remove none by themselves."""
    found: dict[str, Any] = {}
    for name in UPDATABLE_LISTS:
        listed = getattr(resources, name)
        if listed is None:
            continue
        paths = {device.path for device in listed}
        rest = [device for device in getattr(current, name) or () if device.path not in paths]
        found[name] = (*listed, *map(_unlimited, rest))
    return found


def _unlimited(device: WeightDevice | ThrottleDevice) -> WeightDevice | ThrottleDevice:
    """``io.max`` and the files of ``blkio.throttle`` take the greatest number as no limit, ``io.max`` refuses 0. A
    weight can't be removed through a runtime: BFQ's default is the weight of a device without one."""
    if isinstance(device, WeightDevice):
        return replace(device, weight=_DEFAULT_WEIGHT)
    return replace(device, rate=_NO_RATE)


async def update(
    context: ContainerContext, container: Container, resources: Resources, policy: RestartPolicy | None
) -> Sequence[str]:
    """Changes the record and the cgroup, or neither; returns the warnings.

    :raises WharfError: INVALID_ARGUMENT: an invalid value; CONFLICT: the container's state or limits.
    """
    resources, warnings = check_resources(resources, context.limits, update=True)
    if context.shares is not None:
        await context.shares.check_update(container.owner, resources)
    if policy is not None and policy.name:
        check_restart_policy(policy.name, policy.maximum_retry_count)
    if resources.pids_limit is not None and resources.pids_limit <= 0:
        resources = replace(resources, pids_limit=0)  # unlimited, as inspect shows it
    async with container.lock:
        try:
            if container.state.removing or container.state.dead:
                raise conflict('container is marked for removal and cannot be "update"')
            updated = merged(container.host_config, resources, policy)
            if container.state.running and not container.state.restarting:
                await _apply(context, container, resources)
        except WharfError as error:
            raise WharfError(error.kind, f"Cannot update container {container.id}: {error.message}") from error
        container.host_config = updated
        await context.save(container)
    context.publish(container, "update")
    return warnings


async def _apply(context: ContainerContext, container: Container, resources: Resources) -> None:
    # The request may have other fields, which the runtime must not get.
    fields: dict[str, Any] = {name: getattr(resources, name) for name in UPDATABLE_FIELDS}
    fields |= device_limits(container.host_config, resources)
    if fields["pids_limit"] == 0:
        fields["pids_limit"] = -1
    limits = spec_resources.build(Resources(**fields), context.facts)
    if not limits:
        return
    try:
        await context.engine.tasks.update(container.id, limits)
    except WharfError as error:
        if error.kind is not Kind.NOT_FOUND:
            raise
        context.check_exit(container)
