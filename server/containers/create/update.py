"""``docker update``: limits changed on a living container, and the restart policy."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from api_models.container import HostConfig
from api_models.resources import UPDATABLE_FIELDS, Resources, RestartPolicy
from engine.common.errors import Kind, WharfError, conflict
from server.containers.context import ContainerContext
from server.containers.create.resources import check_resources
from server.containers.create.validate import check_restart_policy
from server.containers.model import Container
from server.containers.spec import resources as spec_resources


def _conflicts(wanted: Resources, now: Resources) -> None:
    """``--cpus`` is a period and a quota in one: they don't mix, also not over time."""
    for asked, other, sentence in (
        (wanted.nano_cpus, now.cpu_period, "Nano CPUs cannot be updated as CPU Period has already been set"),
        (wanted.nano_cpus, now.cpu_quota, "Nano CPUs cannot be updated as CPU Quota has already been set"),
        (wanted.cpu_period, now.nano_cpus, "CPU Period cannot be updated as NanoCPUs has already been set"),
        (wanted.cpu_quota, now.nano_cpus, "CPU Quota cannot be updated as NanoCPUs has already been set"),
    ):
        if asked > 0 and other > 0:
            raise conflict(f"Conflicting options: {sentence}")
    if wanted.memory != 0 and wanted.memory_swap == 0 and wanted.memory > now.memory_swap != -1:
        raise conflict(
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time"
        )


def merged(now: HostConfig, wanted: Resources, policy: RestartPolicy | None) -> HostConfig:
    """What the container's configuration becomes.

    :raises WharfError: CONFLICT for what doesn't go together with what is set.
    """
    _conflicts(wanted, now)
    changes: dict[str, Any] = {
        name: value for name in UPDATABLE_FIELDS if (value := getattr(wanted, name)) not in (0, "", None)
    }
    if wanted.pids_limit is not None:
        changes["pids_limit"] = wanted.pids_limit  # 0: unlimited
    if policy is not None and policy.name:
        if now.auto_remove and policy.name != "no":
            raise conflict("Restart policy cannot be updated because AutoRemove is enabled for the container")
        changes["restart_policy"] = policy
    return replace(now, **changes)


async def update(
    context: ContainerContext, container: Container, wanted: Resources, policy: RestartPolicy | None
) -> Sequence[str]:
    """Changes record and cgroup, or neither; returns the warnings.

    :raises WharfError: INVALID_ARGUMENT for values that make no sense, CONFLICT for the container's state.
    """
    wanted, warnings = check_resources(wanted, context.limits, update=True)
    if policy is not None and policy.name:
        check_restart_policy(policy.name, policy.maximum_retry_count)
    if wanted.pids_limit is not None and wanted.pids_limit <= 0:
        # Unlimited, which is shown as 0.
        wanted = replace(wanted, pids_limit=0)
    async with container.lock:
        try:
            if container.state.removing or container.state.dead:
                raise conflict('container is marked for removal and cannot be "update"')
            before = container.host_config
            after = merged(before, wanted, policy)
            if container.state.running and not container.state.restarting:
                await _apply(context, container, wanted)
        except WharfError as error:
            raise WharfError(error.kind, f"Cannot update container {container.id}: {error.message}") from error
        container.host_config = after
        await context.save(container)
    context.publish(container, "update")
    return warnings


async def _apply(context: ContainerContext, container: Container, wanted: Resources) -> None:
    # Only what update takes over: the runtime shall see nothing else.
    named: dict[str, Any] = {name: getattr(wanted, name) for name in UPDATABLE_FIELDS}
    if named["pids_limit"] == 0:
        named["pids_limit"] = -1
    limits = spec_resources.build(Resources(**named), context.facts)
    if not limits:
        return
    try:
        await context.engine.tasks.update(container.id, limits)
    except WharfError as error:
        if error.kind is not Kind.NOT_FOUND:
            raise
        context.check_exit(container)
