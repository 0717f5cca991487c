"""Puts the parts together: ``build`` writes what dockerd would have written to ``config.json``."""

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
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
)
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
_PORT_START = "net.ipv4.ip_unprivileged_port_start"
_PING_GROUPS = "net.ipv4.ping_group_range"
_CRUN_SUBGROUP = "run.oci.systemd.subgroup"


@functools.cache
def masked_paths() -> tuple[str, ...]:
    """What a container that is not privileged must not read of this host: what the kernel counts (interrupts,
    throttling) tells neighbours what runs in other containers (GHSA-6fw5-f8r9-fgfm)."""
    return (*_MASKED_PATHS, *sorted(glob.glob("/sys/devices/system/cpu/cpu[0-9]*/thermal_throttle")))


def check_cgroup_parent(parent: str, driver: str) -> None:
    """
    :raises WharfError: INVALID_ARGUMENT: neither the kernel nor systemd could make it. A slice is one name
        (systemd.slice(5)): with a slash in it, its path would lead out of the hierarchy.
    """
    if "\0" in parent or any(len(os.fsencode(part)) > 255 for part in parent.split("/")):
        raise invalid(f"cgroup-parent {parent!r}: invalid argument")
    if driver == SYSTEMD and parent and (not (parent.endswith(".slice") and len(parent) > 6) or "/" in parent):
        raise invalid('cgroup-parent for systemd cgroup should be a valid slice named as "xxx.slice"')


def cgroups_path(container_id: str, parent: str, driver: str) -> str:
    """``linux.cgroupsPath``: a path for cgroupfs, ``slice:prefix:id`` for systemd. ``parent`` "": the default.

    Scopes have dockerd's names, ``docker-<id>.scope``: monitoring looks for them, and ids are unique on a host.
    """
    if driver == SYSTEMD:
        return f"{parent or 'system.slice'}:docker:{container_id}"
    return os.path.normpath(f"/{parent or 'wharf'}/{container_id}").replace("//", "/")


def _namespaces(inp: SpecInput) -> list[Json]:
    wanted = inp.namespaces
    found: list[Json] = [{"type": "mount"}]
    for kind, choice in (
        ("network", wanted.network),
        ("uts", wanted.uts),
        ("pid", wanted.pid),
        ("ipc", wanted.ipc),
        ("cgroup", wanted.cgroup),
        ("user", wanted.user),
    ):
        if choice == PRIVATE:
            found.append({"type": kind})
        elif choice != HOST:
            found.append({"type": kind, "path": choice})
    return found


def _sysctls(inp: SpecInput) -> dict[str, str]:
    """:raises WharfError: INTERNAL for a value with a NUL, as runc refuses it."""
    found: dict[str, str] = {}
    if inp.domainname:
        found["kernel.domainname"] = inp.domainname
    if inp.namespaces.network != HOST and not inp.namespaces.network_joined:
        # Docker lets unprivileged users open low ports and ping, as the namespace is the container's own.
        if os.path.exists("/proc/sys/net/ipv4/ip_unprivileged_port_start"):
            found[_PORT_START] = "0"
        if inp.id_maps is None and os.path.exists("/proc/sys/net/ipv4/ping_group_range"):
            found[_PING_GROUPS] = "0 2147483647"
    asked = inp.host.sysctls or {}
    for name, value in asked.items():
        if "\0" in value:  # crun would write what comes before it
            raise internal(f"{CREATE_REFUSED}write /proc/sys/{name.replace('.', '/')}: invalid argument: unknown")
    return {**found, **asked}


def _mappings(mappings: tuple[IdMapping, ...]) -> list[Json]:
    return [{"containerID": m.container_id, "hostID": m.host_id, "size": m.size} for m in mappings]


def _linux(inp: SpecInput, host: HostFacts, root_propagation: str) -> Json:
    wanted = inp.host
    nodes, rules = devices.plan(wanted.devices or (), wanted.device_cgroup_rules or (), privileged=wanted.privileged)
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
    masked, readonly = wanted.masked_paths, wanted.readonly_paths
    if not wanted.privileged:
        masked = masked_paths() if masked is None else masked
        readonly = READONLY_PATHS if readonly is None else readonly
    if masked:
        linux["maskedPaths"] = list(masked)
    if readonly:
        linux["readonlyPaths"] = list(readonly)
    if host.selinux and inp.mount_label:
        linux["mountLabel"] = inp.mount_label
    return linux


def build(inp: SpecInput, host: HostFacts) -> Json:
    """The OCI spec of a container.

    :raises WharfError: INTERNAL with dockerd's sentence for what only shows at start: a user, a device or a
        propagation that isn't there, a seccomp profile that can't be read. INVALID_ARGUMENT for what create
        should have refused.
    """
    process = container_process(inp, host)
    all_mounts, root_propagation = mounts.plan(inp, host)
    linux = _linux(inp, host, root_propagation)
    spec: Json = {
        "ociVersion": OCI_VERSION,
        "process": process,
        "root": {"path": inp.rootfs},
        "mounts": all_mounts,
        "linux": linux,
    }
    simple.write(spec, inp.host, cgroup_v2=host.cgroup_v2)
    resources.complete(section(linux, "resources"), inp.host, host)
    # A privileged container has no filter unless one was given by name.
    profile = inp.seccomp or (seccomp.UNCONFINED if inp.host.privileged else "")
    capabilities = process["capabilities"]
    assert isinstance(capabilities, dict)
    if (filters := seccomp.resolve(profile, capabilities["bounding"], host)) is not None:
        linux["seccomp"] = filters
    if inp.namespaces.uts != HOST and inp.hostname:
        spec["hostname"] = inp.hostname
    if host.cgroup_driver == SYSTEMD:
        # crun would put the container one cgroup below its scope, where nobody looks for it.
        section(spec, "annotations").setdefault(_CRUN_SUBGROUP, "")
    return spec
