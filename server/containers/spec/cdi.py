"""The Container Device Interface: reads specifications of devices and adds devices to an OCI spec.

A specification (JSON or YAML; https://github.com/cncf-tags/container-device-interface, SPEC.md) declares devices
``vendor.com/class=name`` and the edits of the OCI spec for each device and for all of them. A later directory overrides
an earlier one. A device that two files of one directory declare can't be used.
"""

import os
import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.common import jsontext

Json = dict[str, Any]

_KIND = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*[A-Za-z0-9]/[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?")
_DEVICE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.:-]*[A-Za-z0-9])?")
_HOOKS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
_SUFFIXES = (".json", ".yaml", ".yml")


class CdiError(Exception):
    """A device doesn't exist, or can't be added to a spec."""


@dataclass(frozen=True, slots=True)
class _Device:
    """A declared device. ``common``: the edits for all devices of its file."""

    file: str
    common: Json
    edits: Json


@dataclass(slots=True)
class Registry:
    """The devices of all specifications by qualified name. ``problems``: unusable files and the reasons."""

    devices: dict[str, _Device] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)

    def names(self, kind: str = "") -> list[str]:
        """The qualified names of the devices of one ``vendor.com/class``, or of all."""
        return sorted(name for name in self.devices if not kind or name.partition("=")[0] == kind)

    def nodes(self, name: str) -> frozenset[str]:
        """The paths on the host of the nodes that the edits for this device alone add; none of malformed edits."""
        try:
            nodes = self.devices[name].edits.get("deviceNodes") or ()
            return frozenset(str(node.get("hostPath") or node["path"]) for node in nodes)
        except (KeyError, TypeError, AttributeError):
            return frozenset()


def load(directories: Iterable[str]) -> Registry:
    """Reads the specifications in ``directories``, of which some may not exist. Blocks."""
    registry = Registry()
    for directory in directories:
        try:
            files = sorted(os.listdir(directory))
        except OSError:
            continue
        here: dict[str, _Device] = {}
        duplicates: set[str] = set()
        for name in files:
            if not name.endswith(_SUFFIXES):
                continue
            path = f"{directory}/{name}"
            try:
                found = _read(path)
            except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
                registry.problems[path] = str(error)
                continue
            duplicates |= here.keys() & found.keys()
            here |= found
        for name in duplicates:
            registry.problems[here[name].file] = f"conflicting device {name}"
            here.pop(name)
            registry.devices.pop(name, None)
        registry.devices |= here
    return registry


def _read(path: str) -> dict[str, _Device]:
    with open(path, "rb") as file:
        text = file.read()
    if path.endswith(".json"):
        document = jsontext.loads(text)
    else:
        import yaml  # here, to save its memory without such files

        try:
            document = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ValueError(str(error)) from None
    kind = str(document["kind"])
    if _KIND.fullmatch(kind) is None:
        raise ValueError(f"invalid kind {kind!r}")
    if not str(document["cdiVersion"]):
        raise ValueError("no cdiVersion")
    common = dict(document.get("containerEdits") or {})
    found: dict[str, _Device] = {}
    for device in document["devices"]:
        name = str(device["name"])
        if _DEVICE.fullmatch(name) is None:
            raise ValueError(f"invalid device name {name!r}")
        found[f"{kind}={name}"] = _Device(path, common, dict(device.get("containerEdits") or {}))
    return found


def inject(spec: Json, names: Sequence[str], registry: Registry) -> None:
    """Applies the edits of the devices to ``spec``; those for all devices of a file are applied once, first.

    :raises CdiError: a device doesn't exist, or its node is missing on this host.
    """
    if missing := [name for name in names if name not in registry.devices]:
        raise CdiError(f"unresolvable CDI devices {', '.join(missing)}")
    seen: set[str] = set()
    try:
        for name in names:
            found = registry.devices[name]
            if found.file not in seen:
                seen.add(found.file)
                _apply(spec, found.common)
            _apply(spec, found.edits)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CdiError(f"invalid CDI specification: {error!r}") from None
    spec["mounts"].sort(key=lambda mount: os.path.normpath(mount["destination"]).count("/"))


def _apply(spec: Json, edits: Mapping[str, Any]) -> None:
    process, linux = spec["process"], spec["linux"]
    for entry in edits.get("env") or ():
        name = entry.partition("=")[0]
        process["env"] = [old for old in process["env"] if old.partition("=")[0] != name] + [entry]
    for node in edits.get("deviceNodes") or ():
        _add_node(spec, node)
    for mount in edits.get("mounts") or ():
        inside = mount["containerPath"]
        spec["mounts"] = [old for old in spec["mounts"] if old["destination"] != inside]
        options = list(mount.get("options") or ())
        kind = mount.get("type") or ("bind" if {"bind", "rbind"} & set(options) else "")
        entry = {"destination": inside, "source": mount["hostPath"], "options": options}
        spec["mounts"].append({**entry, "type": kind} if kind else entry)
    for hook in edits.get("hooks") or ():
        if hook["hookName"] not in _HOOKS:
            raise CdiError(f"unknown hook name {hook['hookName']!r}")
        entry = {key: hook[key] for key in ("path", "args", "env", "timeout") if hook.get(key)}
        spec.setdefault("hooks", {}).setdefault(hook["hookName"], []).append(entry)
    for gid in edits.get("additionalGids") or ():
        if gid and gid not in process["user"].setdefault("additionalGids", []):
            process["user"]["additionalGids"].append(gid)
    if rdt := edits.get("intelRdt"):
        linux["intelRdt"] = dict(rdt)


def _add_node(spec: Json, node: Mapping[str, Any]) -> None:
    inside = node["path"]
    source = node.get("hostPath") or inside
    kind, major, minor = node.get("type"), node.get("major"), node.get("minor")
    if not kind or (kind != "p" and major is None):
        try:
            info = os.stat(source)
        except OSError as error:
            raise CdiError(f"failed to stat CDI host device {source!r}: {(error.strerror or '').lower()}") from None
        real = "b" if stat.S_ISBLK(info.st_mode) else "c" if stat.S_ISCHR(info.st_mode) else ""
        if not real:
            raise CdiError(f"{source!r} is not a device node")
        if kind and kind != real:
            raise CdiError(f"CDI device {inside!r}: type is {real!r}, not {kind!r}")
        kind = real
        major, minor = os.major(info.st_rdev), os.minor(info.st_rdev)
    added: Json = {"path": inside, "type": kind, "major": major or 0, "minor": minor or 0}
    if node.get("fileMode") is not None:
        added["fileMode"] = node["fileMode"]
    for key in ("uid", "gid"):
        own = spec["process"]["user"].get(key) or 0
        if node.get(key) is not None:
            added[key] = node[key]
        elif own:
            # The process's user owns the node, unless the specification names an owner.
            added[key] = own
    linux = spec["linux"]
    if source != inside and any(space["type"] == "user" for space in linux.get("namespaces", ())):
        # In a user namespace, which may make no nodes, runtimes bind the host's node of the same path.
        spec["mounts"] = [old for old in spec["mounts"] if old["destination"] != inside]
        spec["mounts"].append(
            {"destination": inside, "source": source, "type": "bind", "options": ["bind", "nosuid", "noexec"]}
        )
    else:
        linux["devices"] = [old for old in linux.get("devices", ()) if old["path"] != inside] + [added]
    if kind in ("b", "c"):
        rule = {"allow": True, "type": kind, "major": added["major"], "minor": added["minor"]}
        linux["resources"].setdefault("devices", []).append({**rule, "access": node.get("permissions") or "rwm"})
