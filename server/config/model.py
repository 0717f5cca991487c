"""The configuration for the services: immutable, with checked and typed values.

Each option is declared once, as a field of :class:`Config`: its name is the key in ``daemon.json`` (with dashes), its
type decides how flag and key are read, and the mark :class:`~server.config.option.Option` has the rest.
``server.config.options`` derives the table of flags and keys from it.
"""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from api_models.supported import MINIMUM, Version, parse_version
from engine.common.ids import IdMaps
from server.config.option import Kind, Option
from server.config.types import AddressPool, BuilderGc, Runtime, Ulimit

_Texts = tuple[str, ...]
_Map = Mapping[str, str]
_Bytes = Annotated[int, Kind.BYTES]
# Given as a list of "key=value".
_Pairs = Annotated[Mapping[str, str], Kind.LIST]


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """All settings; sizes in bytes, times in seconds."""

    # paths
    data_root: Annotated[Path, Option("Root directory of persistent state")] = Path("/var/lib/wharf")
    exec_root: Annotated[Path, Option("Root directory of run-time state")] = Path("/run/wharf")
    pidfile: Annotated[Path, Option("Path of the PID file", short="p")] = Path("/run/wharf/wharfd.pid")
    config_file: Annotated[Path, Option("Configuration file", only_flag=True)] = Path("/etc/wharf/daemon.json")
    containerd: Annotated[str, Option("gRPC address of a containerd to use instead of the own supervisor")] = ""
    containerd_namespace: Annotated[str, Option("Namespace to use there")] = "moby"

    # the API
    hosts: Annotated[_Texts, Option("Sockets to listen on", "host", short="H")] = ()
    group: Annotated[str, Option("Group of the unix socket", short="G")] = "docker"
    # In the order of their calls.
    authorization_plugins: Annotated[
        _Texts, Option("Plugins that allow or deny each request", "authorization-plugin", reloads=True)
    ] = ()
    # Without the file every client is an administrator.
    policy_file: Annotated[str, Option('Who may use the engine, and how much of it; "": everybody all')] = (
        "/etc/wharf/policy.toml"
    )
    tls: Annotated[bool, Option("Use TLS on tcp sockets; implied by --tlsverify")] = False
    tlsverify: Annotated[bool, Option("Use TLS and verify the client")] = False
    tlscacert: Annotated[str, Option("Trust clients signed by this CA")] = ""
    tlscert: Annotated[str, Option("Certificate of the daemon")] = ""
    tlskey: Annotated[str, Option("Key of that certificate")] = ""
    debug: Annotated[bool, Option("Debug mode", short="D", reloads=True)] = False
    log_level: Annotated[str, Option('Level of the daemon\'s log ("debug" | "info" | "warn" | "error")', short="l")] = (
        "info"
    )
    log_format: Annotated[str, Option('Form of the daemon\'s log ("text" | "json")')] = "text"
    metrics_addr: Annotated[str, Option("Address to serve the metrics on, host:port")] = ""
    ui: Annotated[str, Option("Address to serve the page for browsers on, 127.0.0.1:port or unix:///path")] = ""
    ui_names: Annotated[_Texts, Option("Name under which browsers reach the page through a proxy", "ui-name")] = ()
    otlp_endpoint: Annotated[str, Option("URL of an OpenTelemetry collector (OTLP over HTTP) that gets traces")] = ""
    metrics_labels: Annotated[
        _Texts, Option("Labels of containers that become labels of their metrics", "metrics-label")
    ] = (
        "com.docker.compose.project",
        "com.docker.compose.service",
        "com.docker.compose.container-number",
        "com.docker.stack.namespace",
        "com.docker.swarm.service.name",
    )
    labels: Annotated[_Texts, Option("Labels of the daemon", "label", reloads=True)] = ()
    node_generic_resources: Annotated[
        _Texts,
        Option("Resources that services of a swarm can reserve: kind=value", "node-generic-resource"),
    ] = ()
    swarm_default_advertise_addr: Annotated[
        str, Option("The address or interface that this node of a swarm advertises, if init names none")
    ] = ""
    swarm_store: Annotated[
        str,
        Option('Where managers keep a swarm\'s state ("auto" | "sqlite" | "etcd" | https://host:port of an etcd, ...)'),
    ] = "auto"
    swarm_store_ca: Annotated[str, Option("Trust an etcd signed by this CA, with --swarm-store=https://...")] = ""
    swarm_store_cert: Annotated[str, Option("Certificate for that etcd")] = ""
    swarm_store_key: Annotated[str, Option("Key of that certificate")] = ""
    swarm_etcd_peer_port: Annotated[int, Option("Port on which the managers' own etcd members reach each other")] = 2380
    shutdown_timeout: Annotated[int, Option("Seconds that requests get to end when the daemon stops", reloads=True)] = (
        15
    )
    experimental: Annotated[bool, Option("Enable experimental features: checkpoints")] = False
    # By name; ``server.config.load`` refuses names that can't be switched.
    features: Annotated[
        Mapping[str, bool],
        Kind.SWITCHES,
        Option("Feature switches (cdi, drop-blobs, strict-api)", "feature", reloads=True),
    ] = field(default_factory=dict)
    # "": the oldest that the engine knows.
    min_api_version: Annotated[str, Option("Oldest API version that clients may name", only_file=True)] = ""

    # containers
    log_driver: Annotated[str, Option("Log driver of containers")] = "json-file"
    log_opts: Annotated[_Map, Option("Options of the log driver", "log-opt")] = field(default_factory=dict)
    runtimes: Annotated[
        Mapping[str, Runtime], Option("Register an additional OCI compatible runtime", "add-runtime", reloads=True)
    ] = field(default_factory=dict)
    # "": crun where the host supports it, else runc.
    default_runtime: Annotated[str, Option("OCI runtime of containers that name none", reloads=True)] = ""
    exec_opts: Annotated[_Pairs, Option("Runtime execution options", "exec-opt")] = field(default_factory=dict)
    cgroup_parent: Annotated[str, Option("Parent cgroup of all containers")] = ""
    default_ulimits: Annotated[Mapping[str, Ulimit], Option("Ulimits of containers", "default-ulimit")] = field(
        default_factory=dict
    )
    default_shm_size: Annotated[_Bytes, Option("Size of /dev/shm", reloads=True)] = 64 * 1024 * 1024
    default_ipc_mode: Annotated[str, Option('IPC mode of containers ("shareable" | "private")')] = "private"
    # "": private on cgroup v2, host on v1 and hybrid.
    default_cgroupns_mode: Annotated[str, Option('Cgroup namespace of containers ("host" | "private")')] = ""
    init: Annotated[bool, Option("Run an init as first process of containers")] = False
    init_path: Annotated[str, Option("Path of that init")] = ""
    seccomp_profile: Annotated[str, Option('Seccomp profile of containers, or "unconfined"')] = "builtin"
    no_new_privileges: Annotated[bool, Option("Set no-new-privileges for containers")] = False
    cdi_spec_dirs: Annotated[_Texts, Option("Directories of CDI specifications", "cdi-spec-dir")] = (
        "/etc/cdi",
        "/var/run/cdi",
    )
    restart: Annotated[
        bool, Option("Apply restart policies when the daemon starts (deprecated)", short="r", only_flag=True)
    ] = True
    live_restore: Annotated[
        bool,
        Option(
            "Containers run on without the daemon (always)",
            refused="containers always outlive the daemon",
            allowed=True,
            reloads=True,
        ),
    ] = True
    default_stop_timeout: Annotated[int, Option("Seconds from a container's stop signal to SIGKILL", reloads=True)] = 10
    userns_remap: Annotated[str, Option('Ids of containers: "default" or "user[:group]", see subuid(5)')] = ""
    # The parsed ``userns_remap``; None: containers have the host's ids.
    id_maps: IdMaps | None = None

    # images
    registry_mirrors: Annotated[_Texts, Option("Mirrors of Docker Hub", "registry-mirror", reloads=True)] = ()
    insecure_registries: Annotated[_Texts, Option("Registries without TLS", "insecure-registry", reloads=True)] = ()
    max_concurrent_downloads: Annotated[int, Option("Layers pulled at a time", reloads=True)] = 3
    max_concurrent_uploads: Annotated[int, Option("Layers pushed at a time", reloads=True)] = 5
    max_download_attempts: Annotated[int, Option("Attempts for each layer", reloads=True)] = 5
    storage_driver: Annotated[
        str, Option('Snapshotter ("overlayfs" | "native", or a name of --proxy-snapshotter)', short="s")
    ] = ""
    proxy_snapshotters: Annotated[
        _Map, Option("Snapshotter of another process: name=path of its unix socket", "proxy-snapshotter")
    ] = field(default_factory=dict)
    builder: Annotated[BuilderGc, Option("Clean-up of the build cache", only_file=True)] = field(
        default_factory=BuilderGc
    )
    http_proxy: Annotated[str, Option("HTTP proxy of outgoing traffic")] = ""
    https_proxy: Annotated[str, Option("HTTPS proxy of outgoing traffic")] = ""
    no_proxy: Annotated[str, Option("Hosts that are reached without the proxy")] = ""
    # The directory of each registry's certificates and hosts.toml: no option, as in dockerd.
    certs_dir: Path = Path("/etc/docker/certs.d")

    # "": our own default bridge; "none": no default network; else an existing bridge.
    bridge: Annotated[str, Option('Attach containers to an existing bridge, or "none"', short="b")] = ""
    bridge_name: Annotated[str, Option("Name of the default bridge that the engine makes")] = "wharf0"
    bip: Annotated[str, Option("IPv4 address of the default bridge, CIDR notation")] = ""
    bip6: Annotated[str, Option("IPv6 address of the default bridge, CIDR notation")] = ""
    fixed_cidr: Annotated[str, Option("IPv4 subnet of container addresses")] = ""
    fixed_cidr_v6: Annotated[str, Option("IPv6 subnet of container addresses")] = ""
    default_gateway: Annotated[str, Option("Default gateway of containers, IPv4")] = ""
    default_gateway_v6: Annotated[str, Option("Default gateway of containers, IPv6")] = ""
    default_address_pools: Annotated[
        tuple[AddressPool, ...], Option("Address pools of networks", "default-address-pool")
    ] = ()
    default_network_opts: Annotated[
        Mapping[str, Mapping[str, str]], Option("Default options of networks", "default-network-opt")
    ] = field(default_factory=dict)
    mtu: Annotated[int, Option("MTU of the default bridge")] = 0
    ip: Annotated[str, Option("Address that published ports bind to")] = "0.0.0.0"
    icc: Annotated[bool, Option("Containers of the default bridge reach each other")] = True
    ip_forward: Annotated[bool, Option("Switch net.ipv4.ip_forward on")] = True
    ip_forward_no_drop: Annotated[
        bool, Option("Route between other interfaces, too, when forwarding is switched on")
    ] = False
    ip_masq: Annotated[bool, Option("Masquerade what containers send outward")] = True
    bridge_accept_fwmark: Annotated[
        str, Option("Accept packets with this firewall mark on bridge networks, mark[/mask]")
    ] = ""
    allow_direct_routing: Annotated[
        bool, Option("Accept remote packets to published ports at containers' own addresses")
    ] = False
    iptables: Annotated[bool, Option("Write firewall rules for IPv4")] = True
    ip6tables: Annotated[bool, Option("Write firewall rules for IPv6")] = True
    ipv6: Annotated[bool, Option("IPv6 on the default bridge")] = False
    userland_proxy: Annotated[bool, Option("Forward published ports in user space too")] = True
    dns: Annotated[_Texts, Option("DNS servers")] = ()
    dns_opts: Annotated[_Texts, Option("DNS options", "dns-opt")] = ()
    dns_search: Annotated[_Texts, Option("DNS search domains")] = ()
    host_gateway_ips: Annotated[_Texts, Option("Addresses that host-gateway stands for", "host-gateway-ip")] = ()

    # The settings that were given and their source ("flag" or "file"), by file key: some features act differently if a
    # default is given explicitly.
    given: Mapping[str, str] = field(default_factory=dict)

    @property
    def has_policy(self) -> bool:
        """Whether the file of the policy exists."""
        return os.path.isfile(self.policy_file)

    @property
    def engine_address(self) -> str:
        """The gRPC address of the supervisor, or of a stock containerd if one is configured."""
        return self.containerd or f"unix://{self.exec_root}/containerd/containerd.sock"

    @property
    def oldest_version(self) -> Version:
        """The oldest API version that clients may name."""
        if not self.min_api_version:
            return MINIMUM
        major, minor = parse_version(self.min_api_version)
        return major, minor

    @property
    def strict_api(self) -> bool:
        """Whether answers drop deprecated fields as the reference does (the feature ``strict-api``)."""
        return self.features.get("strict-api", False)

    @property
    def drops_blobs(self) -> bool:
        """Whether layers that are unpacked and can be re-created are kept once (the feature ``drop-blobs``)."""
        return self.features.get("drop-blobs", False)

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
