"""The checks of a service spec that need nothing but the spec; ``references`` checks what it refers to.

The spec is in the form of ``spec.normalize``. Sentences are SwarmKit's (manager/controlapi/service.go).
"""

import re
from collections.abc import Callable, Iterable

from api_models.container import HealthConfig
from api_models.swarm.container import ContainerSpec
from api_models.swarm.network import EndpointSpec
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
    _check_name(spec.name)
    _check_task(spec.task_template, parse_constraints)
    _check_mode(spec.mode)
    if spec.mode.replicated_job is not None or spec.mode.global_job is not None:
        if spec.update_config is not None:
            raise malformed("Jobs may not have an update config")
    else:
        _check_update(spec.update_config)
    _check_endpoint(spec.endpoint_spec)


def _check_name(name: str) -> None:
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
    _check_secrets(task.container_spec)
    _check_configs(task.container_spec)
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


def _check_secrets(container: ContainerSpec) -> None:
    targets: dict[str, str] = {}
    for secret in container.secrets or ():
        if not secret.secret_id or not secret.secret_name:
            raise malformed("malformed secret reference")
        if secret.file is None:
            raise malformed("malformed secret reference, no target provided")
        if not secret.file.name:
            raise malformed("malformed file secret reference, invalid target file name provided")
        if secret.file.name in targets:
            raise malformed(
                f"secret references '{targets[secret.file.name]}' and '{secret.secret_name}' have a conflicting target:"
                f" '{secret.file.name}'"
            )
        targets[secret.file.name] = secret.secret_name


def _check_configs(container: ContainerSpec) -> None:
    targets: dict[str, str] = {}
    for config in container.configs or ():
        if not config.config_id or not config.config_name:
            raise malformed("malformed config reference")
        if config.file is None:
            continue
        if not config.file.name:
            raise malformed("malformed file config reference, invalid target file name provided")
        if config.file.name in targets:
            raise malformed(
                f"config references '{targets[config.file.name]}' and '{config.config_name}' have a conflicting target:"
                f" '{config.file.name}'"
            )
        targets[config.file.name] = config.config_name
    credential = container.privileges.credential_spec if container.privileges is not None else None
    wanted = credential.config if credential is not None else ""
    if wanted and not any(each.runtime and each.config_id == wanted for each in container.configs or ()):
        raise malformed(
            f"CredentialSpec references config '{wanted}', but that config isn't in config references with"
            " RuntimeTarget"
        )


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
        if endpoint.mode == "dnsrr" and port.publish_mode == "ingress":
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
