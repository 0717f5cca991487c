"""The configuration for the services: immutable, with checked and typed values."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from engine.common.ids import IdMaps


class ConfigError(Exception):
    """An invalid flag or key; the text is for the administrator."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """An OCI runtime registered by name: a program, and arguments that precede every call's."""

    path: str = ""
    args: tuple[str, ...] = ()
    type: str = ""
    options: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ulimit:
    name: str
    soft: int
    hard: int


@dataclass(frozen=True, slots=True)
class AddressPool:
    """Networks without a subnet in their request get one of ``/size`` from ``base``."""

    base: str
    size: int


@dataclass(frozen=True, slots=True)
class GcRule:
    """One rule of ``builder.gc``: which records it affects, and how much of them stays. Sizes are bytes or "10%" of the
    disk.

    ``filters``: (name, value), as in ``docker builder prune --filter``. ``everything``: includes records that others
    are built on. ``reserved``: the size that always stays; ``most``: the maximum size; ``free``: the space to leave
    free on the disk. 0 is no limit.
    """

    filters: tuple[tuple[str, str], ...] = ()
    everything: bool = False
    reserved: int | str = 0
    most: int | str = 0
    free: int | str = 0


@dataclass(frozen=True, slots=True)
class BuilderGc:
    """The garbage collection of the build cache. Without ``rules``: all records, with the sizes given here."""

    enabled: bool = True
    rules: tuple[GcRule, ...] = ()
    reserved: int | str = "10%"
    most: int | str = 0
    free: int | str = 0


@dataclass(frozen=True, slots=True)
class Config:
    """All settings, named like the flags and keys; sizes in bytes, times in seconds."""

    # paths
    data_root: Path = Path("/var/lib/wharf")
    exec_root: Path = Path("/run/wharf")
    pidfile: Path = Path("/run/wharf/wharfd.pid")
    config_file: Path = Path("/etc/wharf/daemon.json")
    containerd: str = ""
    containerd_namespace: str = "moby"

    # the API
    hosts: tuple[str, ...] = ()
    group: str = "docker"
    tls: bool = False
    tlsverify: bool = False
    tlscacert: str = ""
    tlscert: str = ""
    tlskey: str = ""
    debug: bool = False
    log_level: str = "info"
    log_format: str = "text"
    metrics_addr: str = ""
    labels: tuple[str, ...] = ()
    shutdown_timeout: int = 15
    experimental: bool = False

    # containers
    log_driver: str = "json-file"
    log_opts: Mapping[str, str] = field(default_factory=dict)
    runtimes: Mapping[str, Runtime] = field(default_factory=dict)
    # "": crun where the host supports it, else runc.
    default_runtime: str = ""
    exec_opts: Mapping[str, str] = field(default_factory=dict)
    cgroup_parent: str = ""
    default_ulimits: Mapping[str, Ulimit] = field(default_factory=dict)
    default_shm_size: int = 64 * 1024 * 1024
    default_ipc_mode: str = "private"
    # "": private on cgroup v2, host on v1 and hybrid.
    default_cgroupns_mode: str = ""
    init: bool = False
    init_path: str = ""
    seccomp_profile: str = "builtin"
    no_new_privileges: bool = False
    cdi_spec_dirs: tuple[str, ...] = ("/etc/cdi", "/var/run/cdi")
    live_restore: bool = True
    userns_remap: str = ""
    # The parsed ``userns_remap``; None: containers have the host's ids.
    id_maps: IdMaps | None = None

    # images
    registry_mirrors: tuple[str, ...] = ()
    insecure_registries: tuple[str, ...] = ()
    max_concurrent_downloads: int = 3
    max_concurrent_uploads: int = 5
    max_download_attempts: int = 5
    storage_driver: str = ""
    builder: BuilderGc = BuilderGc()
    http_proxy: str = ""
    https_proxy: str = ""
    no_proxy: str = ""

    # "": our own default bridge; "none": no default network; else an existing bridge.
    bridge: str = ""
    # The name of our own default bridge.
    bridge_name: str = "wharf0"
    bip: str = ""
    bip6: str = ""
    fixed_cidr: str = ""
    fixed_cidr_v6: str = ""
    default_gateway: str = ""
    default_gateway_v6: str = ""
    default_address_pools: tuple[AddressPool, ...] = ()
    default_network_opts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    mtu: int = 0
    ip: str = "0.0.0.0"
    icc: bool = True
    ip_forward: bool = True
    ip_masq: bool = True
    iptables: bool = True
    ip6tables: bool = True
    ipv6: bool = False
    userland_proxy: bool = True
    dns: tuple[str, ...] = ()
    dns_opts: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    host_gateway_ips: tuple[str, ...] = ()

    # The settings that were given and their source ("flag" or "file"), by file key: some features act differently if a
    # default is given explicitly.
    given: Mapping[str, str] = field(default_factory=dict)

    @property
    def engine_address(self) -> str:
        """The gRPC address of the supervisor, or of a stock containerd if one is configured."""
        return self.containerd or f"unix://{self.exec_root}/containerd/containerd.sock"

    @property
    def bridge_device(self) -> str:
        """The device of the default bridge."""
        return self.bridge if self.bridge not in ("", "none") else self.bridge_name

    @property
    def network_name(self) -> str:
        """Names the engine's table and marks its links. An engine owns its bridge, so the bridge's name is unique;
        without a bridge, or with an administrator's, which engines may share, the name is derived from its run-time
        directory."""
        if not self.bridge:
            return self.bridge_name
        return f"{self.bridge}-{hashlib.sha256(bytes(self.exec_root)).hexdigest()[:8]}"

    @property
    def embedded(self) -> bool:
        """Whether wharfd starts its own supervisor."""
        return not self.containerd
