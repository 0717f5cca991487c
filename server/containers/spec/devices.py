"""Device nodes, and the rules of the device cgroup for them."""

import errno
import os
import re
import stat
from collections.abc import Iterator, Sequence

from api_models.resources import DeviceMapping
from engine.common.errors import internal

Json = dict[str, object]

_RULE = re.compile(r"([acb]) ([0-9]+|\*):([0-9]+|\*) ([rwm]{1,3})")
#: zero, null, urandom, random, tty, console. The runtimes add the devices that they make themselves (full, ptys).
_DEFAULT = ((1, 5), (1, 3), (1, 9), (1, 8), (5, 0), (5, 1))
_SKIPPED = frozenset(("pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev"))


def default_rules() -> list[Json]:
    """The rules for the standard devices. The first rule denies all: later rules override earlier ones."""
    rules: list[Json] = [{"allow": False, "access": "rwm"}]
    for major, minor in _DEFAULT:
        rules.append({"allow": True, "type": "c", "major": major, "minor": minor, "access": "rwm"})
    return rules


def parse_rule(text: str) -> Json:
    """The rule of ``--device-cgroup-rule``, such as ``c 42:* rmw``. In the spec a missing number means all.

    :raises WharfError: INTERNAL, as in dockerd: a malformed rule.
    """
    match = _RULE.fullmatch(text)
    if match is None:
        raise internal(f"invalid device cgroup rule format: '{text}'")
    kind, major, minor, access = match.groups()
    rule: Json = {"allow": True, "type": kind, "access": access}
    if major != "*":
        rule["major"] = int(major)
    if minor != "*":
        rule["minor"] = int(minor)
    return rule


def _node(path: str, inside: str) -> Json | None:
    info = os.lstat(path)
    if stat.S_ISBLK(info.st_mode):
        kind = "b"
    elif stat.S_ISCHR(info.st_mode):
        kind = "c"
    else:
        return None
    return {
        "path": inside,
        "type": kind,
        "major": os.major(info.st_rdev),
        "minor": os.minor(info.st_rdev),
        "fileMode": stat.S_IMODE(info.st_mode) & 0o777,
        "uid": info.st_uid,
        "gid": info.st_gid,
    }


def _walk(root: str, inside: str, *, skip: bool) -> Iterator[Json]:
    try:
        entries = sorted(os.scandir(root), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        below = f"{inside}/{entry.name}"
        try:
            if entry.is_dir(follow_symlinks=False):
                if not (skip and entry.name in _SKIPPED):
                    yield from _walk(entry.path, below, skip=skip)
                continue
            if entry.is_symlink() or (skip and entry.name == "console"):
                continue
            if (node := _node(entry.path, below)) is not None:
                yield node
        except FileNotFoundError:
            continue  # it was removed meanwhile


def host_devices() -> list[Json]:
    """All device nodes below ``/dev``, for a privileged container."""
    return list(_walk("/dev", "/dev", skip=True))


def rule_for(node: Json, permissions: str) -> Json:
    return {
        "allow": True,
        "type": node["type"],
        "major": node["major"],
        "minor": node["minor"],
        "access": permissions,
    }


def _inside(device: DeviceMapping) -> str:
    return device.path_in_container or device.path_on_host


def resolve(device: DeviceMapping) -> tuple[list[Json], list[Json]]:
    """The nodes and the cgroup rules of one ``--device``; a directory stands for all nodes below it.

    :raises WharfError: INTERNAL, with the sentence of dockerd's start: there is no such device.
    """
    problem, inside = "not a device node", _inside(device)
    nodes: list[Json] = []
    try:
        if not device.path_on_host.startswith("/"):  # not relative to the daemon's working directory
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        path = os.path.realpath(device.path_on_host)
        if (node := _node(path, inside)) is not None:
            nodes = [node]
        elif os.path.isdir(path):
            nodes = list(_walk(path, inside.rstrip("/"), skip=False))
    except OSError as error:
        problem = (error.strerror or str(error)).lower()
    if not nodes:
        where = device.path_on_host
        raise internal(f'error gathering device information while adding custom device "{where}": {problem}')
    return nodes, [rule_for(node, device.cgroup_permissions or "rwm") for node in nodes]


def plan(devices: Sequence[DeviceMapping], rules: Sequence[str], *, privileged: bool) -> tuple[list[Json], list[Json]]:
    """``linux.devices`` and ``linux.resources.devices`` of a container."""
    nodes: list[Json] = []
    if privileged:
        nodes = host_devices()
        known = {node["path"] for node in nodes}
        for device in devices:
            # A privileged container has all of the host's nodes; add only those at other paths.
            if _inside(device) not in known:
                nodes += resolve(device)[0]
        return nodes, [{"allow": True, "access": "rwm"}]
    allowed = default_rules()
    for device in devices:
        device_nodes, device_rules = resolve(device)
        nodes += device_nodes
        allowed += device_rules
    return nodes, allowed + [parse_rule(text) for text in rules]
