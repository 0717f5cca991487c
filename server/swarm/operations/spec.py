"""Service specs in the form that dockerd stores and shows: defaults that it makes explicit, one mode, one runtime.

:func:`normalize` corresponds to dockerd's conversion of the API's types to SwarmKit's and back.
"""

from collections.abc import Callable
from dataclasses import replace

from api_models.swarm.container import ContainerSpec, DNSConfig
from api_models.swarm.network import EndpointSpec, PortConfig
from api_models.swarm.service import (
    GlobalJob,
    GlobalService,
    ReplicatedJob,
    ReplicatedService,
    ServiceMode,
    ServiceSpec,
    UpdateConfig,
)
from api_models.swarm.task import Placement, ResourceRequirements, RestartPolicy, TaskSpec
from engine.common.errors import Kind, WharfError, invalid

_MOUNT_TYPES = frozenset(("", "bind", "volume", "tmpfs", "npipe", "cluster"))
_PROPAGATIONS = frozenset(("", "rprivate", "private", "rshared", "shared", "rslave", "slave"))
_SECOND = 1_000_000_000
#: What SwarmKit assumes where a spec says nothing (``insertDefaults`` shows it).
STOP_GRACE_PERIOD = 10 * _SECOND
RESTART_DELAY = 5 * _SECOND
UPDATE = UpdateConfig(parallelism=1, failure_action="pause", monitor=5 * _SECOND, order="stop-first")


def normalize(spec: ServiceSpec, *, name: Callable[[], str]) -> ServiceSpec:
    """``name`` returns a random name, for a service without one.

    :raises WharfError: INVALID_ARGUMENT: dockerd can't convert the spec.
    """
    task = _task(spec.task_template)
    if not task.networks:
        task = replace(task, networks=spec.networks)
    return replace(
        spec,
        name=spec.name or name(),
        labels=spec.labels or {},
        task_template=task,
        update_config=_update(spec.update_config),
        rollback_config=_update(spec.rollback_config),
        endpoint_spec=_endpoint(spec.endpoint_spec),
        mode=_mode(spec.mode),
        networks=None,
    )


def with_defaults(spec: ServiceSpec) -> ServiceSpec:
    """With SwarmKit's defaults for everything that is left out."""
    task = spec.task_template
    container = task.container_spec
    if container is not None:
        grace = STOP_GRACE_PERIOD if container.stop_grace_period is None else container.stop_grace_period
        container = replace(container, stop_grace_period=grace, dns_config=container.dns_config or DNSConfig())
    restart = task.restart_policy or RestartPolicy(condition="any", max_attempts=0)
    if restart.delay is None:
        restart = replace(restart, delay=RESTART_DELAY)
    task = replace(
        task,
        container_spec=container,
        resources=task.resources or ResourceRequirements(),
        restart_policy=restart,
        placement=task.placement or Placement(),
    )
    return replace(
        spec,
        task_template=task,
        update_config=_monitored(spec.update_config),
        rollback_config=_monitored(spec.rollback_config),
    )


def _monitored(update: UpdateConfig | None) -> UpdateConfig:
    if update is None:
        return UPDATE
    return update if update.monitor else replace(update, monitor=UPDATE.monitor)


def _task(task: TaskSpec) -> TaskSpec:
    if task.runtime == "plugin":
        raise WharfError(Kind.NOT_IMPLEMENTED, "services of managed plugins are not part of this engine")
    if task.runtime not in ("", "container"):
        raise invalid("unsupported runtime")
    if task.container_spec is None:
        raise invalid("mismatched Runtime and *Spec fields")
    resources = task.resources
    limits = resources.limits if resources is not None else None
    if resources is not None and resources.swap_bytes is not None and (limits is None or not limits.memory_bytes):
        raise invalid("memory swap provided, but no memory-limit was set")
    return replace(
        task,
        container_spec=_container(task.container_spec),
        restart_policy=_restart(task.restart_policy),
        runtime="container",
    )


def _container(container: ContainerSpec) -> ContainerSpec:
    for mount in container.mounts or ():
        if mount.type not in _MOUNT_TYPES:
            raise invalid(f'invalid MountType: "{mount.type}"')
        propagation = mount.bind_options.propagation if mount.bind_options is not None else ""
        if propagation not in _PROPAGATIONS:
            raise invalid(f'invalid MountPropagation: "{propagation}"')
    for config in container.configs or ():
        if config.runtime is None and config.file is None:
            raise invalid("invalid Config: either File or Runtime should be set")
        if config.runtime is not None and config.file is not None:
            raise invalid("invalid Config: cannot specify both File and Runtime")
    return replace(
        container,
        isolation=container.isolation or "default",
        mounts=tuple(
            replace(mount, type=mount.type or "bind", consistency="", image_options=None)
            for mount in container.mounts or ()
        )
        or None,
    )


def _restart(policy: RestartPolicy | None) -> RestartPolicy | None:
    if policy is None:
        return None
    if policy.condition not in ("", "none", "on-failure", "any"):
        raise invalid(f'invalid RestartCondition: "{policy.condition}"')
    return replace(policy, condition=policy.condition or "any", max_attempts=policy.max_attempts or 0)


def _update(update: UpdateConfig | None) -> UpdateConfig | None:
    if update is None:
        return None
    if update.failure_action not in ("", "pause", "continue", "rollback"):
        raise invalid(f"unrecognized update failure action {update.failure_action}")
    if update.order not in ("", "stop-first", "start-first"):
        raise invalid(f"unrecognized update order {update.order}")
    return replace(update, failure_action=update.failure_action or "pause", order=update.order or "stop-first")


def _endpoint(endpoint: EndpointSpec | None) -> EndpointSpec | None:
    if endpoint is None:
        return None
    if endpoint.mode not in ("", "vip", "dnsrr"):
        raise invalid(f'invalid resolution mode: "{endpoint.mode}"')
    return EndpointSpec(mode=endpoint.mode or "vip", ports=tuple(map(_port, endpoint.ports or ())) or None)


def _port(port: PortConfig) -> PortConfig:
    # Unknown words are the default in dockerd, too.
    protocol, mode = port.protocol.lower(), port.publish_mode.lower()
    return replace(
        port,
        protocol=protocol if protocol in ("tcp", "udp", "sctp") else "tcp",
        publish_mode=mode if mode in ("ingress", "host") else "ingress",
    )


def _mode(mode: ServiceMode) -> ServiceMode:
    given = [each for each in (mode.global_, mode.replicated, mode.replicated_job, mode.global_job) if each is not None]
    if len(given) > 1:
        raise invalid("must specify only one service mode")
    match given:
        case [GlobalService() | GlobalJob()]:
            return mode
        case [ReplicatedJob() as job]:
            concurrent = 1 if job.max_concurrent is None else job.max_concurrent
            total = concurrent if job.total_completions is None else job.total_completions
            return ServiceMode(replicated_job=ReplicatedJob(max_concurrent=concurrent, total_completions=total))
        case [ReplicatedService(replicas=int())]:
            return mode
        case _:
            return ServiceMode(replicated=ReplicatedService(replicas=1))
