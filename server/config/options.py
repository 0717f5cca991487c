"""All flags and keys, as data: name, type, default, and the attribute of the configuration.

An option with ``refused`` is one of dockerd's that this engine doesn't support: the daemon refuses to start with it and
names it, instead of ignoring it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    TEXT = "string"
    BOOL = "bool"
    INT = "int"
    BYTES = "bytes"
    LIST = "list"
    MAP = "map"
    ULIMITS = "ulimit"
    POOLS = "pool-options"
    RUNTIMES = "runtime"
    NETWORK_OPTS = "mapmap"
    SWITCHES = "name[=bool]"
    BUILDER = "builder"


@dataclass(frozen=True, slots=True)
class Option:
    flag: str
    kind: Kind
    help: str = ""
    # The key in daemon.json, if it differs from the flag.
    key: str = ""
    short: str = ""
    # Why it can't be set to any other value than ``allowed``.
    refused: str = ""
    allowed: object = None
    # SIGHUP applies a change.
    reloads: bool = False
    # It exists only as a flag / only in the file.
    only_flag: bool = False
    only_file: bool = False

    @property
    def name(self) -> str:
        """The key in ``daemon.json``."""
        return self.key or self.flag

    @property
    def attribute(self) -> str:
        return self.name.replace("-", "_")


_SWARM = "swarm mode is not part of this engine"

OPTIONS: Sequence[Option] = (
    Option("add-runtime", Kind.RUNTIMES, "Register an additional OCI compatible runtime", "runtimes", reloads=True),
    Option("allow-nondistributable-artifacts", Kind.LIST, refused="removed from the Engine API in 1.49"),
    Option("api-cors-header", Kind.TEXT, refused="put a proxy that sets CORS headers in front of the API"),
    Option("authorization-plugin", Kind.LIST, key="authorization-plugins", refused="plugins are not supported"),
    Option("bip", Kind.TEXT, "IPv4 address of the default bridge, CIDR notation"),
    Option("bip6", Kind.TEXT, "IPv6 address of the default bridge, CIDR notation"),
    Option("bridge", Kind.TEXT, 'Attach containers to an existing bridge, or "none"', short="b"),
    Option("bridge-name", Kind.TEXT, "Name of the default bridge that the engine makes"),
    Option("builder", Kind.BUILDER, "Clean-up of the build cache", only_file=True),
    Option("cdi-spec-dir", Kind.LIST, "Directories of CDI specifications", "cdi-spec-dirs"),
    Option("cgroup-parent", Kind.TEXT, "Parent cgroup of all containers"),
    Option("config-file", Kind.TEXT, "Configuration file", only_flag=True),
    Option("containerd", Kind.TEXT, "gRPC address of a containerd to use instead of the own supervisor"),
    Option("containerd-namespace", Kind.TEXT, "Namespace to use there"),
    Option("containerd-plugins-namespace", Kind.TEXT, key="containerd-plugin-namespace", refused="no plugins"),
    Option("cpu-rt-period", Kind.INT, refused="set real-time limits on the containers", allowed=0),
    Option("cpu-rt-runtime", Kind.INT, refused="set real-time limits on the containers", allowed=0),
    Option("cri-containerd", Kind.BOOL, refused="the supervisor has no CRI", allowed=False),
    Option("data-root", Kind.TEXT, "Root directory of persistent state"),
    Option("debug", Kind.BOOL, "Debug mode", short="D", reloads=True),
    Option("default-address-pool", Kind.POOLS, "Address pools of networks", "default-address-pools"),
    Option("default-cgroupns-mode", Kind.TEXT, 'Cgroup namespace of containers ("host" | "private")'),
    Option("default-gateway", Kind.TEXT, "Default gateway of containers, IPv4"),
    Option("default-gateway-v6", Kind.TEXT, "Default gateway of containers, IPv6"),
    Option("default-init", Kind.TEXT, only_file=True, refused="name it by init-path"),
    Option("default-ipc-mode", Kind.TEXT, 'IPC mode of containers ("shareable" | "private")'),
    Option("default-network-opt", Kind.NETWORK_OPTS, "Default options of networks", "default-network-opts"),
    Option("default-runtime", Kind.TEXT, "OCI runtime of containers that name none", reloads=True),
    Option("default-shm-size", Kind.BYTES, "Size of /dev/shm", reloads=True),
    Option("default-ulimit", Kind.ULIMITS, "Ulimits of containers", "default-ulimits"),
    Option("dns", Kind.LIST, "DNS servers"),
    Option("dns-opt", Kind.LIST, "DNS options", "dns-opts"),
    Option("dns-search", Kind.LIST, "DNS search domains"),
    Option("exec-opt", Kind.LIST, "Runtime execution options", "exec-opts"),
    Option("exec-root", Kind.TEXT, "Root directory of run-time state"),
    Option("experimental", Kind.BOOL, "Enable experimental features: checkpoints"),
    Option("feature", Kind.SWITCHES, "Feature switches", "features", reloads=True),
    Option("firewall-backend", Kind.TEXT, refused="the engine uses nftables", allowed="nftables"),
    Option("fixed-cidr", Kind.TEXT, "IPv4 subnet of container addresses"),
    Option("fixed-cidr-v6", Kind.TEXT, "IPv6 subnet of container addresses"),
    Option("group", Kind.TEXT, "Group of the unix socket", short="G"),
    Option("help", Kind.BOOL, "Print usage", only_flag=True),
    Option("host", Kind.LIST, "Sockets to listen on", "hosts", short="H"),
    Option("host-gateway-ip", Kind.LIST, "Addresses that host-gateway stands for", "host-gateway-ips"),
    Option("http-proxy", Kind.TEXT, "HTTP proxy of outgoing traffic"),
    Option("https-proxy", Kind.TEXT, "HTTPS proxy of outgoing traffic"),
    Option("icc", Kind.BOOL, "Containers of the default bridge reach each other"),
    Option("init", Kind.BOOL, "Run an init as first process of containers"),
    Option("init-path", Kind.TEXT, "Path of that init"),
    Option("insecure-registry", Kind.LIST, "Registries without TLS", "insecure-registries", reloads=True),
    Option("ip", Kind.TEXT, "Address that published ports bind to"),
    Option("ip-forward", Kind.BOOL, "Switch net.ipv4.ip_forward on"),
    Option("ip-masq", Kind.BOOL, "Masquerade what containers send outward"),
    Option("ip6tables", Kind.BOOL, "Write firewall rules for IPv6"),
    Option("iptables", Kind.BOOL, "Write firewall rules for IPv4"),
    Option("ipv6", Kind.BOOL, "IPv6 on the default bridge"),
    Option("label", Kind.LIST, "Labels of the daemon", "labels", reloads=True),
    Option(
        "live-restore",
        Kind.BOOL,
        "Containers run on without the daemon (always)",
        refused="containers always outlive the daemon",
        allowed=True,
        reloads=True,
    ),
    Option("log-driver", Kind.TEXT, "Log driver of containers"),
    Option("log-format", Kind.TEXT, 'Form of the daemon\'s log ("text" | "json")'),
    Option("log-level", Kind.TEXT, 'Level of the daemon\'s log ("debug" | "info" | "warn" | "error")', short="l"),
    Option("log-opt", Kind.MAP, "Options of the log driver", "log-opts"),
    Option("max-concurrent-downloads", Kind.INT, "Layers pulled at a time", reloads=True),
    Option("max-concurrent-uploads", Kind.INT, "Layers pushed at a time", reloads=True),
    Option("max-download-attempts", Kind.INT, "Attempts for each layer", reloads=True),
    Option("metrics-addr", Kind.TEXT, "Address to serve the metrics on, host:port"),
    Option("mtu", Kind.INT, "MTU of the default bridge"),
    Option("network-control-plane-mtu", Kind.INT, refused=_SWARM, allowed=1500),
    Option("network-diagnostic-port", Kind.INT, only_file=True, refused=_SWARM, allowed=0),
    Option("no-new-privileges", Kind.BOOL, "Set no-new-privileges for containers"),
    Option("no-proxy", Kind.TEXT, "Hosts that are reached without the proxy"),
    Option("node-generic-resource", Kind.LIST, key="node-generic-resources", refused=_SWARM),
    Option("pidfile", Kind.TEXT, "Path of the PID file", short="p"),
    Option("raw-logs", Kind.BOOL, "Accepted: the log has no colours"),
    Option("registry-mirror", Kind.LIST, "Mirrors of Docker Hub", "registry-mirrors", reloads=True),
    Option("resolv-conf", Kind.TEXT, only_file=True, refused="name the servers by dns"),
    Option("rootless", Kind.BOOL, refused="the engine needs root", allowed=False),
    Option("seccomp-profile", Kind.TEXT, 'Seccomp profile of containers, or "unconfined"'),
    Option("selinux-enabled", Kind.BOOL, refused="SELinux labels are not supported", allowed=False),
    Option("shutdown-timeout", Kind.INT, "Seconds that requests get to end when the daemon stops", reloads=True),
    Option("storage-driver", Kind.TEXT, 'Snapshotter ("overlayfs" | "native")', short="s"),
    Option("storage-opt", Kind.LIST, key="storage-opts", refused="the snapshotters have no options"),
    Option("swarm-default-advertise-addr", Kind.TEXT, refused=_SWARM, allowed=""),
    Option("swarm-raft-election-tick", Kind.INT, only_file=True, refused=_SWARM, allowed=0),
    Option("swarm-raft-heartbeat-tick", Kind.INT, only_file=True, refused=_SWARM, allowed=0),
    Option("tls", Kind.BOOL, "Use TLS on tcp sockets; implied by --tlsverify"),
    Option("tlscacert", Kind.TEXT, "Trust clients signed by this CA"),
    Option("tlscert", Kind.TEXT, "Certificate of the daemon"),
    Option("tlskey", Kind.TEXT, "Key of that certificate"),
    Option("tlsverify", Kind.BOOL, "Use TLS and verify the client"),
    Option("userland-proxy", Kind.BOOL, "Forward published ports in user space too"),
    Option("userland-proxy-path", Kind.TEXT, refused="the engine has its own proxy"),
    Option("userns-remap", Kind.TEXT, 'Ids of containers: "default" or "user[:group]", see subuid(5)'),
    Option("validate", Kind.BOOL, "Check the configuration and exit", only_flag=True),
    Option("version", Kind.BOOL, "Print the version and exit", short="v", only_flag=True),
)

BY_FLAG = {option.flag: option for option in OPTIONS if not option.only_file}
BY_SHORT = {option.short: option for option in OPTIONS if option.short}
BY_KEY = {option.name: option for option in OPTIONS if not option.only_flag}
# Objects in the file whose members are keys themselves: "proxies": {"http-proxy": ...}.
FLATTENED = frozenset({"proxies"})
# Keys that may be in the file although the flag is given: both are merged.
MERGED = frozenset({"runtimes"})
