"""Parses ``-v`` strings and ``--mount`` objects to mount points, with dockerd's rules and sentences.

A ``--mount`` object is a dict with the API's field names (``Type``, ``Source``, ``Target``, ``BindOptions`` …). A
``-v`` string is converted to one, so that the same checks apply to both.
"""

import os
import posixpath
from collections.abc import Callable
from typing import Any

from engine.common.errors import Kind, WharfError, internal, invalid
from server.containers.plan import MountPoint

#: Whether a path of the host exists. Blocks.
Exists = Callable[[str], bool]

_RW = frozenset(("rw", "ro"))
_LABEL = frozenset(("z", "Z"))
_PROPAGATION = frozenset(("private", "rprivate", "slave", "rslave", "shared", "rshared"))
_CONSISTENCY = frozenset(("consistent", "cached", "delegated", "default"))
_COPY = frozenset(("nocopy",))
_GROUPS = (_RW, _LABEL, _PROPAGATION, _COPY, _CONSISTENCY)
_OPTIONS_OF = {
    "bind": "BindOptions",
    "volume": "VolumeOptions",
    "tmpfs": "TmpfsOptions",
    "image": "ImageOptions",
    "cluster": "ClusterOptions",
}


class MountError(WharfError):
    """An invalid mount; the sentence has the mount's type."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(Kind.INVALID_ARGUMENT, f'invalid mount config for type "{kind}": {text}')


def valid_mode(mode: str) -> bool:
    """Whether ``mode`` is a list with at most one word of each of ``_GROUPS``; "" is valid."""
    if not mode:
        return True
    seen: set[int] = set()
    for word in mode.split(","):
        group = next((number for number, words in enumerate(_GROUPS) if word in words), None)
        if group is None or group in seen:
            return False
        seen.add(group)
    return True


def writable(mode: str) -> bool:
    return valid_mode(mode) and "ro" not in mode.split(",")


def parse_volumes_from(text: str) -> tuple[str, str]:
    """The container and the mode of ``--volumes-from container[:mode]``.

    :raises WharfError: INVALID_ARGUMENT.
    """
    if not text:
        raise invalid("volumes-from specification cannot be an empty string")
    container, _, mode = text.partition(":")
    if not mode:
        return container, "rw"
    words = mode.split(",")
    if not valid_mode(mode) or any(word in _PROPAGATION or word in _COPY for word in words):
        raise invalid(f"invalid mode: {mode}")
    return container, mode


def parse_bind(text: str, volume_driver: str) -> MountPoint:
    """The mount point of an entry of ``HostConfig.Binds``: ``source:target[:mode]``, or only a target.

    :raises WharfError: INTERNAL, as in dockerd: a malformed entry.
    """
    bad = f"invalid volume specification: '{text}'"
    parts = text.split(":", 3)
    if parts[0] == "" or len(parts) > 3:
        raise internal(bad)
    source, target, mode = "", parts[0], ""
    if len(parts) == 2:
        if valid_mode(parts[1]):
            raise internal(bad)
        source, target = parts
    elif len(parts) == 3:
        source, target, mode = parts
    if not valid_mode(mode):
        raise internal(f"invalid mode: {mode}")
    spec: dict[str, Any] = {
        "Type": "bind" if source.startswith("/") else "volume",
        "Source": source,
        "Target": target,
        "ReadOnly": not writable(mode),
    }
    words = mode.split(",")
    options: dict[str, Any] = {}
    if volume_driver and spec["Type"] == "volume":
        options["DriverConfig"] = {"Name": volume_driver}
    if "nocopy" in words:
        options["NoCopy"] = True  # parse_mount refuses it for a bind
    if options:
        spec["VolumeOptions"] = options
    propagation = next((word for word in words if word in _PROPAGATION), "")
    if propagation:
        spec["BindOptions"] = {"Propagation": propagation}
    try:
        point = parse_mount(spec, lambda source: True)
    except WharfError as error:
        raise internal(f"{bad}: {error.message}") from None
    point.mode = mode
    point.create_source = True
    return point


def parse_mount(spec: dict[str, Any], exists: Exists = os.path.lexists) -> MountPoint:
    """The mount point of an entry of ``HostConfig.Mounts``. ``exists``: whether the source of a bind does.

    :raises WharfError: INVALID_ARGUMENT.
    """
    check_mount(spec, exists)
    kind = spec["Type"]
    point = MountPoint(
        kind=kind,
        destination=posixpath.normpath(spec["Target"]),
        rw=not spec.get("ReadOnly"),
        spec=spec,
    )
    if kind == "volume":
        options = spec.get("VolumeOptions") or {}
        point.name = spec.get("Source") or ""
        point.anonymous = not point.name
        point.driver = (options.get("DriverConfig") or {}).get("Name") or ""
        point.copy_data = not options.get("NoCopy")
    elif kind == "bind":
        options = spec.get("BindOptions") or {}
        point.source = posixpath.normpath(spec["Source"])
        point.propagation = options.get("Propagation") or "rprivate"
        point.create_source = bool(options.get("CreateMountpoint"))
    elif kind == "image":
        point.name = spec["Source"]
        point.rw = False
    return point


def check_mount(spec: dict[str, Any], exists: Exists = os.path.lexists) -> None:
    """Checks an entry of ``HostConfig.Mounts``. ``exists``: whether the source of a bind does.

    :raises MountError: INVALID_ARGUMENT.
    """
    kind = spec.get("Type") or ""
    target = spec.get("Target") or ""
    source = spec.get("Source") or ""
    if not target:
        raise MountError(kind, "field Target must not be empty")
    try:
        check_destination(target)
    except WharfError as error:
        raise MountError(kind, error.message) from None
    if kind == "bind":
        _check_bind(spec, source, exists)
    elif kind == "volume":
        _check_volume(spec, source)
    elif kind == "tmpfs":
        if spec.get("BindOptions"):
            raise MountError(kind, "field BindOptions must not be specified")
        if source:
            raise MountError(kind, "field Source must not be specified")
        tmpfs_options(spec)
    elif kind == "image":
        if spec.get("BindOptions"):
            raise MountError(kind, "field BindOptions must not be specified")
        if spec.get("VolumeOptions"):
            raise MountError(kind, "field VolumeOptions must not be specified")
        if not source:
            raise MountError(kind, "field Source must not be empty")
        _check_subpath(kind, (spec.get("ImageOptions") or {}).get("Subpath") or "")
    elif kind == "cluster":
        # As in dockerd on a node that isn't part of a swarm.
        raise MountError(kind, "cluster volumes need a swarm, and this node is not part of one")
    else:
        raise MountError(kind, "mount type unknown")


def check_destination(target: str) -> None:
    """:raises WharfError: INVALID_ARGUMENT: ``target`` isn't an absolute path, or is the root."""
    slashed = target.replace("\\", "/")
    if posixpath.normpath(slashed) in ("/", "//"):
        raise invalid("invalid specification: destination can't be '/'")
    if not slashed.startswith("/"):
        raise invalid(f"invalid mount path: '{target}' mount path must be absolute")


def _check_bind(spec: dict[str, Any], source: str, exists: Exists) -> None:
    options = spec.get("BindOptions") or {}
    if not source:
        raise MountError("bind", "field Source must not be empty")
    propagation = options.get("Propagation") or ""
    if propagation and propagation not in _PROPAGATION:
        raise MountError("bind", f"invalid propagation mode: {propagation}")
    if spec.get("VolumeOptions"):
        raise MountError("bind", "field VolumeOptions must not be specified")
    if not source.startswith("/"):
        raise MountError("bind", f"invalid mount path: '{source}' mount path must be absolute")
    if not options.get("CreateMountpoint") and not exists(source):
        raise MountError("bind", f"bind source path does not exist: {source}")


def _check_volume(spec: dict[str, Any], source: str) -> None:
    if spec.get("BindOptions"):
        raise MountError("volume", "field BindOptions must not be specified")
    subpath = (spec.get("VolumeOptions") or {}).get("Subpath") or ""
    if subpath and not source:
        raise MountError("volume", "must not set Subpath when using anonymous volumes")
    _check_subpath("volume", subpath)
    if spec.get("ReadOnly") and not source:
        raise MountError("volume", "must not set ReadOnly mode when using anonymous volumes")


def _check_subpath(kind: str, subpath: str) -> None:
    if subpath and (subpath.startswith("/") or posixpath.normpath(subpath).split("/")[0] == ".."):
        raise MountError(kind, "subpath must be a relative path within the volume")


def tmpfs_options(spec: dict[str, Any]) -> list[str]:
    """The options of a tmpfs mount for mount(8), in dockerd's spelling.

    :raises MountError: INVALID_ARGUMENT: an option that the API doesn't allow (``TmpfsOptions.Options``, API 1.46).
    """
    options = spec.get("TmpfsOptions") or {}
    words = ["ro"] if spec.get("ReadOnly") else []
    if mode := options.get("Mode"):
        words.append(f"mode={mode:o}")
    if size := options.get("SizeBytes"):
        for suffix, divisor in (("g", 1 << 30), ("m", 1 << 20), ("k", 1 << 10), ("", 1)):
            if size % divisor == 0:
                words.append(f"size={size // divisor}{suffix}")
                break
    for pair in options.get("Options") or ():
        if not 1 <= len(pair) <= 2:
            raise MountError("tmpfs", "invalid option array length")
        if pair[0] not in ("exec", "noexec"):
            raise MountError("tmpfs", f"invalid option: {pair[0]}")
        words.append("=".join(pair))
    return words


def options_misplaced(spec: dict[str, Any]) -> str:
    """The name of an options object of another type than the mount's, or ``""`` (checked from API 1.42 on)."""
    for kind, name in _OPTIONS_OF.items():
        if spec.get(name) is not None and spec.get("Type") != kind:
            return name
    return ""
