"""The checks of a service spec that need nothing but the spec; ``references`` checks what it refers to.

The spec is in the form of ``spec.normalize``. Sentences are SwarmKit's (manager/controlapi/service.go).
"""

import re
from collections.abc import Callable, Iterable

from api_models.container import HealthConfig
from api_models.swarm.container import ContainerSpec
from api_models.swarm.network import EndpointSpec
from api_models.swarm.secret import FileTarget
from api_models.swarm.service import ServiceMode, ServiceSpec, UpdateConfig
from api_models.swarm.task import Limit, Resources, RestartPolicy, TaskSpec
from engine.common.errors import WharfError
from server.registry import reference
from server.swarm.operations.rpc import malformed

_NAME = re.compile(r"[a-zA-Z0-9](?:[-_]*[A-Za-z0-9]+)*", re.ASCII)
_MILLISECOND = 1_000_000

#: Parses placement constraints; raises ValueError with SwarmKit's sentence.
ParseConstraints = Callable[[Iterable[str]], object]


def check_spec(spec: ServiceSpec, parse_constraints: ParseConstraints) -> None:
    """:raises WharfError: INVALID_ARGUMENT."""
    check_name(spec.name)
    _check_task(spec.task_template, parse_constraints)
    _check_mode(spec.mode)
    if spec.mode.is_job:
        if spec.update_config is not None:
            raise malformed("Jobs may not have an update config")
    else:
        _check_update(spec.update_config)
    _check_endpoint(spec.endpoint_spec)


def check_name(name: str) -> None:
    """:raises WharfError: INVALID_ARGUMENT: the name of a service or network is no DNS label."""
    if not _NAME.fullmatch(name):
        raise malformed("name must be valid as a DNS name component")
    if len(name) > 63:
        raise malformed("name must be 63 characters or fewer")


def _check_task(task: TaskSpec, parse_constraints: ParseConstraints) -> None:
    if task.resources is not None:
        _check_resources(task.resources.limits)
        _check_resources(task.resources.reservations)
    _check_restart(task.restart_policy)
    if task.placement is not None:
        try:
            parse_constraints(task.placement.constraints or ())
        except ValueError as error:
            raise malformed(str(error)) from None
    assert task.container_spec is not None
    _check_payloads(task.container_spec)
    _check_container(task.container_spec)


def _check_resources(resources: Limit | Resources | None) -> None:
    if resources is None:
        return
    if resources.nano_cpus and resources.nano_cpus < 1_000_000:
        raise malformed(f"invalid cpu value {resources.nano_cpus / 1e9:g}: Must be at least 0.001")
    if resources.memory_bytes and resources.memory_bytes < 4 * 1024 * 1024:
        raise malformed(f"invalid memory value {resources.memory_bytes}: Must be at least 4MiB")


def _check_restart(policy: RestartPolicy | None) -> None:
    if policy is None:
        return
    if policy.delay is not None and policy.delay < 0:
        raise malformed("TaskSpec: restart-delay cannot be negative")
    if policy.window is not None and policy.window < 0:
        raise malformed("TaskSpec: restart-window cannot be negative")


def _check_update(update: UpdateConfig | None) -> None:
    if update is None:
        return
    if update.delay < 0:
        raise malformed("TaskSpec: update-delay cannot be negative")
    if update.monitor < 0:
        raise malformed("TaskSpec: update-monitor cannot be negative")
    if not 0 <= update.max_failure_ratio <= 1:
        raise malformed("TaskSpec: update-maxfailureratio cannot be less than 0 or bigger than 1")


def _check_container(container: ContainerSpec) -> None:
    if not container.image:
        raise malformed("ContainerSpec: image reference must be provided")
    try:
        reference.parse(container.image)
    except WharfError:
        raise malformed(f'ContainerSpec: "{container.image}" is not a valid repository/tag') from None
    targets = set()
    for mount in container.mounts or ():
        if mount.target in targets:
            raise malformed(f"ContainerSpec: duplicate mount point: {mount.target}")
        targets.add(mount.target)
    if container.healthcheck is not None:
        _check_health(container.healthcheck)


def _check_health(health: HealthConfig) -> None:
    for name, duration in (
        ("Interval", health.interval),
        ("Timeout", health.timeout),
        ("StartPeriod", health.start_period),
        ("StartInterval", health.start_interval),
    ):
        if duration != 0 and duration < _MILLISECOND:
            raise malformed(f"ContainerSpec: {name} in HealthConfig cannot be less than 1ms")
    if health.retries < 0:
        raise malformed("ContainerSpec: Retries in HealthConfig cannot be negative")


def _check_payloads(container: ContainerSpec) -> None:
    secrets, configs = container.secrets or (), container.configs or ()
    _check_targets("secret", [(each.secret_id, each.secret_name, each.file) for each in secrets], required=True)
    _check_targets("config", [(each.config_id, each.config_name, each.file) for each in configs], required=False)
    credential = container.privileges.credential_spec if container.privileges is not None else None
    wanted = credential.config if credential is not None else ""
    if wanted and not any(each.runtime and each.config_id == wanted for each in configs):
        raise malformed(
            f"CredentialSpec references config '{wanted}', but that config isn't in config references with"
            " RuntimeTarget"
        )


def _check_targets(noun: str, references: Iterable[tuple[str, str, FileTarget | None]], *, required: bool) -> None:
    """``references``: (id, name, file) of each. ``required``: each must have a file."""
    names: dict[str, str] = {}
    for id, name, file in references:
        if not id or not name:
            raise malformed(f"malformed {noun} reference")
        if file is None:
            if required:
                raise malformed(f"malformed {noun} reference, no target provided")
            continue
        if not file.name:
            raise malformed(f"malformed file {noun} reference, invalid target file name provided")
        if file.name in names:
            raise malformed(
                f"{noun} references '{names[file.name]}' and '{name}' have a conflicting target: '{file.name}'"
            )
        names[file.name] = name


def _check_mode(mode: ServiceMode) -> None:
    limit = 2**63
    if mode.replicated is not None and (mode.replicated.replicas or 0) >= limit:
        raise malformed("Number of replicas must be non-negative")
    job = mode.replicated_job
    if job is not None:
        if (job.max_concurrent or 0) >= limit:
            raise malformed("Maximum concurrent jobs must not be negative")
        if (job.total_completions or 0) >= limit:
            raise malformed("Total completed jobs must not be negative")


def _check_endpoint(endpoint: EndpointSpec | None) -> None:
    if endpoint is None:
        return
    published = set()
    for port in endpoint.ports or ():
        if endpoint.mode == "dnsrr" and not port.on_host:
            raise malformed("EndpointSpec: port published with ingress mode can't be used with dnsrr mode")
        for number in (port.target_port, port.published_port):
            if number > 65535:
                raise malformed(f"EndpointSpec: invalid port {number}")
        if not port.published_port:
            continue
        key = port.published_port, port.protocol
        if key in published:
            raise malformed("EndpointSpec: duplicate published ports provided")
        published.add(key)
