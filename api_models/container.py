"""Containers: the bodies of create, update and related requests, and the shapes of list and inspect."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any, ClassVar

from pydantic import Field

from api_models.base import OMIT, Go, Int, Int64, Model, Text, Uint
from api_models.mount import Mount
from api_models.network import EndpointSettings, NetworkingConfig
from api_models.oci import Oci, always
from api_models.record import Json, KeySet, Record, StringMap, Strings, StrSlice
from api_models.resources import UPDATABLE_LISTS, Resources, RestartPolicy
from api_models.supported import Version
from api_models.versions import Adapted, Checked, Dropped, Implied, Listed, Shown, Since
from engine.common.errors import invalid

#: Names of predefined networks.
_PREDEFINED = frozenset(("default", "bridge", "host", "none", ""))
_NO_POLICY = RestartPolicy()
Duration = Annotated[int, Field(ge=-(2**63), le=2**63 - 1), Go("time.Duration")]


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthConfig(Record):
    """Durations in nanoseconds; 0 inherits (from the image, then the default)."""

    go_name: ClassVar[str] = "v1.HealthcheckConfig"

    test: Annotated[Strings | None, OMIT] = None
    interval: Annotated[Duration, OMIT] = 0
    timeout: Annotated[Duration, OMIT] = 0
    start_period: Annotated[Duration, OMIT] = 0
    start_interval: Annotated[Duration, OMIT, Since((1, 44))] = 0
    retries: Annotated[Int, OMIT] = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerConfig(Record):
    """The process and its metadata: an image provides defaults, a container may override them."""

    go_name: ClassVar[str] = "container.Config"
    go_embedded: ClassVar[str] = "Config"

    hostname: str = ""
    domainname: str = ""
    user: str = ""
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    exposed_ports: Annotated[KeySet | None, Go("nat.PortSet"), OMIT] = None
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    env: Strings | None = None
    cmd: Annotated[StrSlice | None, Go("string"), Listed((1, 52), ".Cmd")] = None
    healthcheck: Annotated[HealthConfig | None, OMIT] = None
    args_escaped: Annotated[bool, OMIT] = False
    image: str = ""
    volumes: KeySet | None = None
    working_dir: str = ""
    entrypoint: Annotated[StrSlice | None, Go("string"), Listed((1, 52), ".Entrypoint")] = None
    network_disabled: Annotated[bool, OMIT] = False
    mac_address: Annotated[str, OMIT, Dropped((1, 52))] = ""
    on_build: Annotated[Strings | None, Dropped((1, 52), empty_only=True)] = None
    labels: StringMap | None = None
    stop_signal: Annotated[str, OMIT] = ""
    stop_timeout: Annotated[Int | None, OMIT] = None
    shell: Annotated[StrSlice | None, Go("string"), Listed((1, 52), ".Shell"), OMIT] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LogConfig(Record):
    go_name: ClassVar[str] = "container.LogConfig"

    type: str = ""
    config: StringMap | None = None


_NO_LOG_CONFIG = LogConfig()


@dataclass(frozen=True, slots=True, kw_only=True)
class PortBinding(Record):
    go_name: ClassVar[str] = "nat.PortBinding"

    host_ip: str = ""
    host_port: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostConfig(Resources):
    """The host-dependent part: limits, mounts, ports, namespaces, security, lifecycle."""

    go_name: ClassVar[str] = "container.HostConfig"

    binds: Strings | None = None
    container_id_file: Annotated[str, Field(alias="ContainerIDFile")] = ""
    log_config: LogConfig = _NO_LOG_CONFIG
    network_mode: Annotated[str, Go("container.NetworkMode")] = ""
    port_bindings: Annotated[Mapping[str, tuple[PortBinding, ...] | None] | None, Go("nat.PortMap")] = None
    restart_policy: RestartPolicy = _NO_POLICY
    auto_remove: Annotated[bool, Since((1, 25))] = False
    volume_driver: str = ""
    volumes_from: Strings | None = None
    # [height, width]
    console_size: Annotated[tuple[Uint, ...], Go("[2]uint"), Since((1, 42))] = (0, 0)
    annotations: Annotated[StringMap | None, OMIT, Since((1, 43)), Oci("annotations")] = None
    mounts: Annotated[tuple[Mount, ...] | None, OMIT] = None
    cap_add: Annotated[StrSlice | None, Go("string"), Listed((1, 52), ".HostConfig.CapAdd")] = None
    cap_drop: Annotated[StrSlice | None, Go("string"), Listed((1, 52), ".HostConfig.CapDrop")] = None
    # "" means the daemon's default; api_models.changes.CGROUPNS_DEFAULT.
    cgroupns_mode: Annotated[str, Go("container.CgroupnsMode")] = ""
    dns: Strings | None = None
    dns_options: Strings | None = None
    dns_search: Strings | None = None
    extra_hosts: Strings | None = None
    group_add: Strings | None = None
    ipc_mode: Annotated[str, Go("container.IpcMode"), Implied((1, 40), "shareable")] = ""
    cgroup: Annotated[str, Go("container.CgroupSpec")] = ""
    links: Strings | None = None
    oom_score_adj: Annotated[Int, Oci("process.oomScoreAdj", always)] = 0
    pid_mode: Annotated[str, Go("container.PidMode")] = ""
    privileged: bool = False
    publish_all_ports: bool = False
    readonly_rootfs: Annotated[bool, Oci("root.readonly")] = False
    security_opt: Strings | None = None
    storage_opt: Annotated[StringMap | None, OMIT] = None
    tmpfs: Annotated[StringMap | None, OMIT] = None
    uts_mode: Annotated[str, Field(alias="UTSMode"), Go("container.UTSMode")] = ""
    userns_mode: Annotated[str, Go("container.UsernsMode")] = ""
    shm_size: Int64 = 0
    sysctls: Annotated[StringMap | None, OMIT] = None
    runtime: Annotated[str, OMIT] = ""
    isolation: Annotated[str, Go("container.Isolation")] = ""
    # None means the default list; an empty list means no path.
    masked_paths: Strings | None = None
    readonly_paths: Strings | None = None
    init: Annotated[bool | None, OMIT] = None


def _some_key_of_config(body: Model, version: Version) -> None:
    """dockerd distinguishes a body without any key of ContainerConfig from one whose keys are all empty."""
    if not body.model_fields_set - {"host_config", "networking_config"}:
        raise invalid("config cannot be empty in order to create a container")


def _one_endpoint_before_1_44(request: "CreateRequest", version: Version) -> None:
    config = request.networking_config
    endpoints = (config.endpoints_config if config else None) or {}
    if version < (1, 44) and len(endpoints) > 1:
        names = ", ".join(endpoints)
        raise invalid(f"Container cannot be created with multiple network endpoints: {names}")


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateRequest(ContainerConfig):
    """The body of ``POST /containers/create``: a ContainerConfig with two more keys."""

    go_name: ClassVar[str] = "runconfig.ContainerConfigWrapper"
    go_embedded: ClassVar[str] = ""

    host_config: HostConfig | None = None
    networking_config: Annotated[
        NetworkingConfig | None, Checked(_one_endpoint_before_1_44), Checked(_some_key_of_config)
    ] = None

    def config(self) -> ContainerConfig:
        """Returns only the ContainerConfig."""
        return ContainerConfig(**{field.name: getattr(self, field.name) for field in fields(ContainerConfig)})


def _no_pids_limit_before_1_40(body: Any, version: Version) -> None:
    if version < (1, 40):
        body.pids_limit = None


def _no_device_limits_before_1_55(body: Any, version: Version) -> None:
    if version < (1, 55):
        for name in UPDATABLE_LISTS:
            setattr(body, name, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateRequest(Resources):
    """The body of ``POST /containers/{id}/update``. Missing fields keep their values."""

    go_name: ClassVar[str] = "container.UpdateConfig"

    restart_policy: Annotated[
        RestartPolicy, Checked(_no_pids_limit_before_1_40), Checked(_no_device_limits_before_1_55)
    ] = _NO_POLICY


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointRequest(Record):
    """The body of ``POST /containers/{id}/checkpoints``."""

    go_name: ClassVar[str] = "checkpoint.CreateOptions"

    checkpoint_id: Annotated[str, Field(alias="CheckpointID")] = ""
    checkpoint_dir: str = ""
    exit: bool = False


# ---- answers: only the fields whose presence depends on the version; others are passed through ---------------


class SummaryHostConfig(Model):
    network_mode: Annotated[str, OMIT] = ""
    annotations: Annotated[dict[str, Text] | None, OMIT, Shown((1, 46))] = None


class SummaryNetworks(Model):
    networks: dict[str, EndpointSettings] | None = None


class ContainerSummary(Model):
    """One element of ``GET /containers/json``."""

    id: str = ""
    names: list[Text] = Field(default_factory=list)
    image: str = ""
    image_id: Annotated[str, Field(alias="ImageID")] = ""
    image_manifest_descriptor: Annotated[dict[str, Any] | None, OMIT, Shown((1, 48))] = None
    command: str = ""
    created: Int64 = 0
    ports: list[dict[str, Any]] = Field(default_factory=list)
    size_rw: Annotated[Int64, OMIT] = 0
    size_root_fs: Annotated[Int64, OMIT] = 0
    labels: dict[str, Text] = Field(default_factory=dict)
    state: str = ""
    status: str = ""
    host_config: SummaryHostConfig = Field(default_factory=SummaryHostConfig)
    health: Annotated[dict[str, Any] | None, OMIT, Shown((1, 52))] = None
    network_settings: SummaryNetworks = Field(default_factory=SummaryNetworks)
    mounts: list[dict[str, Any]] = Field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSettings(Record):
    """``NetworkSettings`` of inspect. The addresses at the top repeat the default bridge's endpoint."""

    bridge: Annotated[str, Dropped((1, 52))] = ""
    sandbox_id: Annotated[str, Field(alias="SandboxID")] = ""
    sandbox_key: str = ""
    ports: Mapping[str, tuple[PortBinding, ...] | None] | None = None
    hairpin_mode: Annotated[bool, Dropped((1, 52))] = False
    link_local_ipv6_address: Annotated[str, Field(alias="LinkLocalIPv6Address"), Dropped((1, 52))] = ""
    link_local_ipv6_prefix_len: Annotated[Int, Field(alias="LinkLocalIPv6PrefixLen"), Dropped((1, 52))] = 0
    secondary_ip_addresses: Annotated[Strings | None, Field(alias="SecondaryIPAddresses"), Dropped((1, 52))] = None
    secondary_ipv6_addresses: Annotated[Strings | None, Field(alias="SecondaryIPv6Addresses"), Dropped((1, 52))] = None
    endpoint_id: Annotated[str, Field(alias="EndpointID"), Dropped((1, 52))] = ""
    gateway: Annotated[str, Dropped((1, 52))] = ""
    global_ipv6_address: Annotated[str, Field(alias="GlobalIPv6Address"), Dropped((1, 52))] = ""
    global_ipv6_prefix_len: Annotated[Int, Field(alias="GlobalIPv6PrefixLen"), Dropped((1, 52))] = 0
    ip_address: Annotated[str, Field(alias="IPAddress"), Dropped((1, 52))] = ""
    ip_prefix_len: Annotated[Int, Field(alias="IPPrefixLen"), Dropped((1, 52))] = 0
    ipv6_gateway: Annotated[str, Field(alias="IPv6Gateway"), Dropped((1, 52))] = ""
    mac_address: Annotated[str, Dropped((1, 52))] = ""
    networks: Mapping[str, EndpointSettings] | None = None


def _own_names_before_1_45(document: dict[str, Any], version: Version) -> None:
    """Before the change, a container's short id and host name are among its aliases on user-defined networks."""
    if version >= (1, 45):
        return
    own = (document["Id"][:12], document["Config"]["Hostname"])
    for name, endpoint in (document["NetworkSettings"].get("Networks") or {}).items():
        if name not in _PREDEFINED:
            endpoint["Aliases"] = list(dict.fromkeys((*(endpoint.get("Aliases") or ()), *own)))


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerInspect(Record):
    """The answer of ``GET /containers/{id}/json``."""

    id: str = ""
    created: str = ""
    path: str = ""
    args: Strings = ()
    state: Annotated[Mapping[str, Any] | None, Json()] = None
    image: str = ""
    resolv_conf_path: str = ""
    hostname_path: str = ""
    hosts_path: str = ""
    log_path: str = ""
    name: str = ""
    restart_count: Int = 0
    driver: str = ""
    platform: str = ""
    mount_label: str = ""
    process_label: str = ""
    app_armor_profile: str = ""
    exec_ids: Annotated[Strings | None, Field(alias="ExecIDs")] = None
    host_config: HostConfig | None = None
    graph_driver: Annotated[Mapping[str, Any] | None, Json(), Dropped((1, 52))] = None
    storage: Annotated[Mapping[str, Any] | None, Json(), OMIT, Shown((1, 52))] = None
    mounts: Annotated[Sequence[Mapping[str, Any]], Json()] = ()
    config: ContainerConfig | None = None
    network_settings: Annotated[NetworkSettings | None, Adapted(_own_names_before_1_45)] = None
    image_manifest_descriptor: Annotated[Mapping[str, Any] | None, Json(), OMIT, Shown((1, 48))] = None
    size_rw: Annotated[Int64 | None, OMIT] = None
    size_root_fs: Annotated[Int64 | None, OMIT] = None
