"""The checks of a create request, before anything is made: in dockerd's order, with its sentences and warnings.

Other modules have the checks of endpoints, addresses and links (the network service), mounts (``mountspec``), limits
(``resources``) and namespace modes (``values.modes``).
"""

import ipaddress
import os
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from api_models.container import ContainerConfig, HealthConfig, HostConfig, PortBinding
from engine.common.errors import WharfError, invalid
from server.containers.create.resources import check_resources
from server.containers.host.limits import HostLimits
from server.containers.mounts import mountspec
from server.containers.spec import caps
from server.containers.spec.build import check_cgroup_parent
from server.containers.spec.host import CGROUPFS, SYSTEMD
from server.containers.values import modes, signals

_MIN_DURATION = 1_000_000


@dataclass(frozen=True, slots=True)
class Rules:
    """The parts of the checks that depend on the host and on the daemon's configuration.

    ``runtime`` raises INVALID_ARGUMENT for the name of an unknown runtime.
    """

    limits: HostLimits
    systemd_cgroup: bool
    runtime: Callable[[str], None]
    userns_remap: bool = False


def check_request(config: ContainerConfig, host: HostConfig, rules: Rules) -> None:
    """The checks that dockerd makes while it decodes a request.

    :raises WharfError: INVALID_ARGUMENT.
    """
    _check_numbers(config.exposed_ports or {}, host.port_bindings or {})
    modes.check_network_mode(config, host)
    if host.isolation.lower() not in ("", "default"):
        raise invalid(f"invalid isolation ({host.isolation}): linux only supports 'default'")
    if host.io_maximum_bandwidth:
        raise invalid("invalid option: QoS maximum bandwidth configuration is not supported on linux")
    if host.io_maximum_iops:
        raise invalid("invalid option: QoS maximum IOPs configuration is not supported on linux")
    if host.cpu_shares < 0:
        raise invalid(f"invalid CPU shares ({host.cpu_shares}): value must be a positive integer")
    if (host.cpu_realtime_period or host.cpu_realtime_runtime) and not rules.limits.cpu_realtime:
        raise invalid("Your kernel does not support CPU real-time scheduler")
    if host.cpu_realtime_period and 0 != host.cpu_realtime_runtime > host.cpu_realtime_period:
        raise invalid("cpu real-time runtime cannot be higher than cpu real-time period")


def check_config(config: ContainerConfig) -> ContainerConfig:
    """Checks the configuration and returns it with the working directory normalized.

    :raises WharfError: INVALID_ARGUMENT.
    """
    if config.working_dir:
        if not config.working_dir.startswith("/"):
            raise invalid(f"the working directory '{config.working_dir}' is invalid, it needs to be an absolute path")
        config = replace(config, working_dir="/" + posixpath.normpath(config.working_dir).lstrip("/"))
    if config.stop_signal:
        signals.parse(config.stop_signal)
    for variable in config.env or ():
        if variable.partition("=")[0] == "":
            raise invalid(f"invalid environment variable: {variable}")
    if config.healthcheck is not None:
        _check_health(config.healthcheck)
    return config


def check_paths(config: ContainerConfig, host: HostConfig) -> None:
    """Checks every string that is used as a path on this host or in the container, including those of the image.

    :raises WharfError: INVALID_ARGUMENT: a path contains a NUL, which system calls can't take.
    """
    device_limits = (
        host.blkio_weight_device,
        host.blkio_device_read_bps,
        host.blkio_device_write_bps,
        host.blkio_device_read_iops,
        host.blkio_device_write_iops,
    )
    paths = {
        "WorkingDir": [config.working_dir],
        "Volumes": list(config.volumes or ()),
        "Binds": list(host.binds or ()),
        "Tmpfs": list(host.tmpfs or ()),
        "Devices": [path for each in host.devices or () for path in (each.path_on_host, each.path_in_container)],
        "BlkioDevice": [each.path for devices in device_limits for each in devices or ()],
        "Mounts": [text for mount in host.mounts or () for text in _strings(mount.wire())],
    }
    for name, values in paths.items():
        for value in values:
            if "\0" in value:
                raise invalid(f"{name} {value!r}: invalid argument: it contains a NUL")


def _strings(value: object) -> Iterator[str]:
    """The strings of a JSON value at any depth, without those of ``Labels``, which are no paths."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, each in value.items():
            if name != "Labels":
                yield from _strings(each)
    elif isinstance(value, Sequence):
        for each in value:
            yield from _strings(each)


def _check_health(health: HealthConfig) -> None:
    for name, value in (
        ("Interval", health.interval),
        ("Timeout", health.timeout),
        ("Retries", health.retries),
        ("StartPeriod", health.start_period),
        ("StartInterval", health.start_interval),
    ):
        if name == "Retries":
            if value < 0:
                raise invalid("Retries in Healthcheck cannot be negative")
        elif value != 0 and value < _MIN_DURATION:
            raise invalid(f"{name} in Healthcheck cannot be less than 1ms")


def check_host_config(
    host: HostConfig, rules: Rules, exists: mountspec.Exists = os.path.lexists
) -> tuple[HostConfig, list[str]]:
    """Checks the host configuration; returns it without the limits that this host can't enforce, and the warnings.
    Blocks on the sources of binds. ``exists``: whether one does.

    :raises WharfError: INVALID_ARGUMENT.
    """
    if host.auto_remove and host.restart_policy.name not in ("", "no"):
        raise invalid("can't create 'AutoRemove' container with restart policy")
    for mount in host.mounts or ():
        mountspec.check_mount(mount.wire(), exists)
    for entry in host.extra_hosts or ():
        _check_extra_host(entry)
    _check_host_ports(host.port_bindings or {})
    check_restart_policy(host.restart_policy.name, host.restart_policy.maximum_retry_count)
    for field, names in (("CapAdd", host.cap_add), ("CapDrop", host.cap_drop)):
        try:
            caps.normalize(names)
        except WharfError as error:
            raise invalid(f"invalid {field}: {error.message}") from None
    for key in host.annotations or ():
        if not key:
            raise invalid("invalid Annotations: the empty string is not permitted as an annotation key")
    host, warnings = check_resources(host, rules.limits)
    modes.check_namespaces(host)
    if not -1000 <= host.oom_score_adj <= 1000:
        raise invalid(f"Invalid value {host.oom_score_adj}, range for oom score adj is [-1000, 1000]")
    if host.network_mode == "host" and host.port_bindings:
        warnings.append("Published ports are discarded when using host network mode")
    _check_userns(host, rules)
    check_cgroup_parent(host.cgroup_parent, SYSTEMD if rules.systemd_cgroup else CGROUPFS)
    rules.runtime(host.runtime)
    for destination in host.tmpfs or ():
        mountspec.check_destination(destination)
    modes.check_cgroupns(host.cgroupns_mode)
    if host.cgroupns_mode == "private" and not rules.limits.cgroup_namespaces:
        warnings.append("Your kernel does not support cgroup namespaces.  Cgroup namespace setting discarded.")
    return host, warnings


def _check_userns(host: HostConfig, rules: Rules) -> None:
    if host.userns_mode not in ("", "host"):
        raise invalid(f"invalid user namespace mode: {host.userns_mode}")
    if not rules.userns_remap or host.userns_mode == "host":
        return
    if host.privileged:
        raise invalid(
            "privileged mode is incompatible with user namespaces.  You must run the container in the host "
            "namespace when running privileged mode"
        )
    if host.network_mode == "host":
        raise invalid("cannot share the host's network namespace when user namespaces are enabled")
    if host.pid_mode == "host":
        raise invalid("cannot share the host PID namespace when user namespaces are enabled")


def _check_extra_host(entry: str) -> None:
    # Split at the first colon: an IPv6 address contains more.
    name, colon, address = entry.partition(":")
    if not colon or not name:
        raise invalid(f'bad format for add-host: "{entry}"')
    if address != "host-gateway":
        try:
            ipaddress.ip_address(address.strip())
        except ValueError:
            raise invalid(f'invalid IP address in add-host: "{address}"') from None


_PORT_RANGE = re.compile(r"([0-9]+)(?:-([0-9]+))?")


def _valid_range(text: str) -> bool:
    if text == "":
        return True
    match = _PORT_RANGE.fullmatch(text)
    if match is None:
        return False
    first, last = int(match[1]), int(match[2] or match[1])
    return first <= last <= 65535


def _check_number(text: str) -> None:
    """Check the number of a port in the sentences of dockerd 29, whose JSON decoder refuses it."""
    if text == "":
        why = "value is empty"
    elif not (text.isascii() and text.isdecimal()):
        why = "invalid syntax"
    elif len(text.lstrip("0")) > 5 or int(text) > 65535:
        why = "value out of range"
    else:
        return
    raise invalid(f"invalid JSON: invalid port '{text}': {why}")


def _check_numbers(exposed: Iterable[str], bound: Iterable[str]) -> None:
    """Check the container's ports. Ranges can be exposed, as dockerd accepted before version 29."""
    for port in bound:
        _check_number(port.partition("/")[0])
    for port in exposed:
        number = port.partition("/")[0]
        if "-" not in number or not _valid_range(number):
            _check_number(number)


def _check_host_ports(bindings: Mapping[str, Sequence[PortBinding] | None]) -> None:
    for hosts in bindings.values():
        for binding in hosts or ():
            if not _valid_range(binding.host_port.partition("/")[0]):
                raise invalid(f'invalid port specification: "{binding.host_port}"')


def check_restart_policy(name: str, retries: int) -> None:
    """:raises WharfError: INVALID_ARGUMENT: an unknown policy, or a retry count that the policy doesn't allow."""
    if name in ("always", "unless-stopped", "no"):
        if retries:
            raise invalid(
                "invalid restart policy: maximum retry count can only be used with 'on-failure'"
                + (" and cannot be negative" if retries < 0 else "")
            )
    elif name == "on-failure":
        if retries < 0:
            raise invalid("invalid restart policy: maximum retry count cannot be negative")
    elif name:
        raise invalid(
            f"invalid restart policy: unknown policy '{name}'; "
            "use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
        )
