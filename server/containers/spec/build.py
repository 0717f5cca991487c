"""The whole spec from its parts: ``build`` returns the content of ``config.json`` as dockerd writes it."""

import functools
import glob
import os

from engine.common.errors import internal, invalid
from engine.common.ids import IdMapping
from server.containers.spec import devices, mounts, resources, seccomp, simple
from server.containers.spec.host import SYSTEMD, HostFacts
from server.containers.spec.input import HOST, PRIVATE, SpecInput
from server.containers.spec.process import CREATE_REFUSED, container_process
from server.containers.spec.simple import Json, section

OCI_VERSION = "1.1.0"
_MASKED_PATHS = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
_PORT_START = "net.ipv4.ip_unprivileged_port_start"
_PING_GROUPS = "net.ipv4.ping_group_range"
_CRUN_SUBGROUP = "run.oci.systemd.subgroup"


@functools.cache
def masked_paths() -> tuple[str, ...]:
    """The masked paths of a container that isn't privileged. They include the kernel's counters of interrupts and
    throttling, which leak the activity of other containers (GHSA-6fw5-f8r9-fgfm)."""
    return (*_MASKED_PATHS, *sorted(glob.glob("/sys/devices/system/cpu/cpu[0-9]*/thermal_throttle")))


def check_cgroup_parent(parent: str, driver: str) -> None:
    """Checks the cgroup parent for ``driver``. A slice is a name (systemd.slice(5)); as a path with slashes it could
    lead out of the hierarchy.

    :raises WharfError: INVALID_ARGUMENT: the kernel or systemd can't make it.
    """
    if "\0" in parent or any(len(os.fsencode(part)) > 255 for part in parent.split("/")):
        raise invalid(f"cgroup-parent {parent!r}: invalid argument")
    if driver == SYSTEMD and parent and (not (parent.endswith(".slice") and len(parent) > 6) or "/" in parent):
        raise invalid('cgroup-parent for systemd cgroup should be a valid slice named as "xxx.slice"')


def cgroups_path(container_id: str, parent: str, driver: str) -> str:
    """``linux.cgroupsPath``: a path for cgroupfs, ``slice:prefix:id`` for systemd. ``parent`` "": the default.

    Scopes have dockerd's names, ``docker-<id>.scope``, for which monitoring programs search.
    """
    if driver == SYSTEMD:
        return f"{parent or 'system.slice'}:docker:{container_id}"
    return os.path.normpath(f"/{parent or 'wharf'}/{container_id}").replace("//", "/")


def _namespaces(inp: SpecInput) -> list[Json]:
    namespaces = inp.namespaces
    found: list[Json] = [{"type": "mount"}]
    for kind, value in (
        ("network", namespaces.network),
        ("uts", namespaces.uts),
        ("pid", namespaces.pid),
        ("ipc", namespaces.ipc),
        ("cgroup", namespaces.cgroup),
        ("user", namespaces.user),
    ):
        if value == PRIVATE:
            found.append({"type": kind})
        elif value != HOST:
            found.append({"type": kind, "path": value})
    return found


def _sysctls(inp: SpecInput) -> dict[str, str]:
    """``linux.sysctl``.

    :raises WharfError: INTERNAL, in runc's words: a value contains a NUL.
    """
    found: dict[str, str] = {}
    if inp.domainname and inp.id_maps is None:
        found["kernel.domainname"] = inp.domainname
    if inp.namespaces.network != HOST and not inp.namespaces.network_joined:
        # As dockerd: in its own network namespace, unprivileged users may bind low ports and ping.
        if os.path.exists("/proc/sys/net/ipv4/ip_unprivileged_port_start"):
            found[_PORT_START] = "0"
        if inp.id_maps is None and os.path.exists("/proc/sys/net/ipv4/ping_group_range"):
            found[_PING_GROUPS] = "0 2147483647"
    requested = inp.host.sysctls or {}
    for name, value in requested.items():
        if "\0" in value:  # crun would write the part before the NUL
            raise internal(f"{CREATE_REFUSED}write /proc/sys/{name.replace('.', '/')}: invalid argument")
    return {**found, **requested}


def _mappings(mappings: tuple[IdMapping, ...]) -> list[Json]:
    return [{"containerID": m.container_id, "hostID": m.host_id, "size": m.size} for m in mappings]


def _linux(inp: SpecInput, root_propagation: str) -> Json:
    config = inp.host
    nodes, rules = devices.plan(config.devices or (), config.device_cgroup_rules or (), privileged=config.privileged)
    linux: Json = {"resources": {"devices": rules}, "namespaces": _namespaces(inp)}
    if sysctls := _sysctls(inp):
        linux["sysctl"] = sysctls
    if inp.cgroups_path:
        linux["cgroupsPath"] = inp.cgroups_path
    if nodes:
        linux["devices"] = nodes
    if root_propagation:
        linux["rootfsPropagation"] = root_propagation
    if inp.id_maps is not None:
        linux["uidMappings"] = _mappings(inp.id_maps.uids)
        linux["gidMappings"] = _mappings(inp.id_maps.gids)
    masked, readonly = config.masked_paths, config.readonly_paths
    if not config.privileged:
        masked = masked_paths() if masked is None else masked
        readonly = READONLY_PATHS if readonly is None else readonly
    if masked:
        linux["maskedPaths"] = list(masked)
    if readonly:
        linux["readonlyPaths"] = list(readonly)
    return linux


def build(inp: SpecInput, host: HostFacts) -> Json:
    """The OCI spec of a container.

    :raises WharfError: INTERNAL, with the sentences of dockerd's start: a user or a device doesn't exist, a mount's
        source doesn't have the propagation, a seccomp profile is malformed. INVALID_ARGUMENT: conflicting options.
    """
    process = container_process(inp, host)
    all_mounts, root_propagation = mounts.plan(inp, host)
    linux = _linux(inp, root_propagation)
    spec: Json = {
        "ociVersion": OCI_VERSION,
        "process": process,
        "root": {"path": inp.rootfs},
        "mounts": all_mounts,
        "linux": linux,
    }
    simple.write(spec, inp.host, cgroup_v2=host.cgroup_v2)
    resources.complete(section(linux, "resources"), inp.host, host)
    # A privileged container has a seccomp filter only if the request or the daemon names a profile.
    profile = inp.seccomp or (seccomp.UNCONFINED if inp.host.privileged else "")
    capabilities = process["capabilities"]
    assert isinstance(capabilities, dict)
    if (filters := seccomp.resolve(profile, capabilities["bounding"], host)) is not None:
        linux["seccomp"] = filters
    if inp.namespaces.uts != HOST and inp.hostname:
        spec["hostname"] = inp.hostname
    if inp.domainname and inp.id_maps is not None:
        # In a user namespace the sysctl isn't writable, but sethostname(2) and setdomainname(2) are allowed. runc
        # before 1.2 ignores the field.
        spec["domainname"] = inp.domainname
    if host.cgroup_driver == SYSTEMD:
        # Without it crun puts the container into a cgroup below the scope, where monitoring doesn't find it.
        section(spec, "annotations").setdefault(_CRUN_SUBGROUP, "")
    return spec
