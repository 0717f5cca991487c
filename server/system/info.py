"""The parts of the answer of ``GET /info`` at the newest API version."""

import asyncio
import math
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from engine.runtime.probe import Probe
from server.config import Config
from server.config.genericresources import parse_generic_resources
from server.config.hosts import parse_host
from server.config.load import masked
from server.containers.host.limits import HostLimits
from server.containers.host.runtimes import SHIM
from server.containers.spec.host import HostFacts
from server.logdrivers.drivers import DRIVERS
from server.registry.reference import DEFAULT_DOMAIN
from server.system import host
from server.system.features import Features
from server.version import SERVER_VERSION

if TYPE_CHECKING:
    from server.access.policy import Role

INDEX = "https://index.docker.io/v1/"


def storage(config: Config, snapshotter: str) -> dict[str, Any]:
    """The storage driver; clients recognize an engine with containerd's image store by ``driver-type``."""
    return {
        "Driver": snapshotter,
        "DriverStatus": [
            ["driver-type", "io.containerd.snapshotter.v1"],
            ["Backing Filesystem", host.backing_filesystem(str(config.data_root))],
        ],
    }


def limits(found: HostLimits) -> dict[str, Any]:
    """The limits that the host's cgroups support."""
    return {
        "MemoryLimit": found.memory,
        "SwapLimit": found.swap,
        "CpuCfsPeriod": found.cpu_cfs,
        "CpuCfsQuota": found.cpu_cfs,
        "CPUShares": found.cpu_shares,
        "CPUSet": found.cpuset,
        "PidsLimit": found.pids,
        "OomKillDisable": found.oom_kill_disable,
        **({"KernelMemoryTCP": True} if found.kernel_memory_tcp else {}),
    }


def shares(role: "Role", cpus: int, memory: int) -> dict[str, Any]:
    """What of the machine's CPUs and memory (bytes) a user with this role has."""
    return {
        "NCPU": min(cpus, math.ceil(role.cpus)) if role.cpus is not None else cpus,
        "MemTotal": min(memory, role.memory) if role.memory is not None else memory,
    }


def limit_warnings(found: HostLimits) -> list[str]:
    """The limits that the host's cgroups don't support, in dockerd's words."""
    named = (
        (found.memory, "memory limit"),
        (found.swap, "swap limit"),
        (found.cpu_cfs, "cpu cfs quota"),
        (found.cpu_shares, "cpu shares"),
        (found.cpuset, "cpuset"),
        (found.pids, "pids limit"),
    )
    warnings = [f"WARNING: No {name} support" for can, name in named if not can]
    if found.unified and not (found.blkio_read_bps and found.blkio_weight):
        warnings.append("WARNING: No io controller support")
    return warnings


def insecure_sockets(config: Config) -> list[str]:
    """Warnings about tcp sockets without TLS: every client of theirs has root's power."""
    if config.tls or config.tlsverify:
        return []
    return [
        f"[DEPRECATION NOTICE]: API is accessible on http://{host.address}:{host.port} without encryption.\n"
        "         Access to the remote API is equivalent to root access on the host."
        for host in map(parse_host, config.hosts)
        if host.scheme == "tcp"
    ]


def security(config: Config, facts: HostFacts) -> list[str]:
    """``SecurityOptions``: the confinement that containers have by default."""
    options = []
    if facts.apparmor:
        options.append("name=apparmor")
    if facts.seccomp:
        profile = config.seccomp_profile if config.seccomp_profile != "" else "builtin"
        options.append(f"name=seccomp,profile={profile}")
    if facts.cgroup_v2:
        options.append("name=cgroupns")
    if config.id_maps is not None:
        options.append("name=userns")
    if config.no_new_privileges:
        options.append("name=no-new-privileges")
    return options


def registries(config: Config) -> dict[str, Any]:
    """``RegistryConfig``: mirrors, and registries without TLS."""
    networks = [item for item in config.insecure_registries if "/" in item]
    mirrors = list(dict.fromkeys(mirror.removesuffix("/") + "/" for mirror in config.registry_mirrors))
    indexes: dict[str, Any] = {
        DEFAULT_DOMAIN: {"Name": DEFAULT_DOMAIN, "Mirrors": mirrors, "Secure": True, "Official": True}
    }
    for name in config.insecure_registries:
        if "/" not in name:
            indexes[name] = {"Name": name, "Mirrors": [], "Secure": False, "Official": False}
    return {
        "InsecureRegistryCIDRs": [*networks, "::1/128", "127.0.0.0/8"],
        "IndexConfigs": indexes,
        "Mirrors": mirrors or None,
    }


def host_facts(facts: HostFacts) -> dict[str, Any]:
    """The host: kernel, operating system, processors, memory, cgroups."""
    return {
        "KernelVersion": platform.release(),
        "OperatingSystem": host.operating_system(),
        "OSVersion": host.os_release().get("VERSION_ID", ""),
        "OSType": "linux",
        "Architecture": platform.machine(),
        "NCPU": facts.cpus,
        "MemTotal": facts.memory,
        "Name": platform.node(),
        "SystemTime": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        "CgroupVersion": "2" if facts.cgroup_v2 else "1",
        "CgroupDriver": facts.cgroup_driver,
        "IPv4Forwarding": host.switched_on("/proc/sys/net/ipv4/ip_forward"),
        "BridgeNfIptables": host.switched_on("/proc/sys/net/bridge/bridge-nf-call-iptables"),
        "BridgeNfIp6tables": host.switched_on("/proc/sys/net/bridge/bridge-nf-call-ip6tables"),
    }


def process(config: Config, listeners: int) -> dict[str, Any]:
    """The daemon's own process."""
    return {
        "Debug": config.debug or config.log_level == "debug",
        "NFd": host.open_files(),
        "NGoroutines": len(asyncio.all_tasks()),
        "NEventsListener": listeners,
    }


def configured(config: Config) -> dict[str, Any]:
    """Settings of the configuration; user and password in a proxy's address are masked."""
    return {
        "LoggingDriver": config.log_driver,
        "IndexServerAddress": INDEX,
        "DockerRootDir": str(config.data_root),
        "HttpProxy": masked(config.http_proxy or os.environ.get("HTTP_PROXY", "")),
        "HttpsProxy": masked(config.https_proxy or os.environ.get("HTTPS_PROXY", "")),
        "NoProxy": config.no_proxy or os.environ.get("NO_PROXY", ""),
        "Labels": list(config.labels),
        "ExperimentalBuild": config.experimental,
        "ServerVersion": SERVER_VERSION,
        "LiveRestoreEnabled": config.live_restore,
        "Isolation": "",
        "CDISpecDirs": list(config.cdi_spec_dirs),
        "GenericResources": parse_generic_resources(config.node_generic_resources),
        "DefaultAddressPools": [{"Base": pool.base, "Size": pool.size} for pool in config.default_address_pools],
    }


def plugins(config: Config, volumes: Sequence[str], networks: Sequence[str]) -> dict[str, Any]:
    """The drivers of volumes, networks and logs, and the authorization plugins in the order of their calls.

    ``volumes``, ``networks``: the names of their drivers."""
    return {
        "Volume": list(volumes),
        "Network": list(networks),
        "Authorization": list(config.authorization_plugins) or None,
        "Log": sorted(name for name in DRIVERS if name != "none"),
    }


async def runtimes(paths: Mapping[str, str], default: str, features: Features) -> dict[str, Any]:
    """The OCI runtimes of ``--runtime``; containerd's name of runc's shim means the default one."""
    found: dict[str, Any] = {}
    for name, path in {**paths, SHIM: paths.get(default, default)}.items():
        found[name] = {"path": path}
        if status := await features.get(path):
            found[name]["status"] = status
    return {"Runtimes": dict(sorted(found.items())), "DefaultRuntime": default}


def commits(engine: str, probe: Probe, facts: HostFacts) -> dict[str, Any]:
    """The programs that this daemon runs, with their commits."""
    runtime = probe.usable.get("runc") or probe.default
    commit = runtime.commit or runtime.version if runtime is not None else ""
    return {
        "InitBinary": os.path.basename(facts.init_path) or "docker-init",
        "ContainerdCommit": {"ID": engine},
        "RuncCommit": {"ID": commit},
        "InitCommit": {"ID": ""},
    }
