"""Seccomp profiles in Docker's format, resolved for a container's capabilities, architecture and kernel."""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from engine.common import jsontext
from engine.common.errors import WharfError, internal
from server.containers.spec.host import HostFacts, kernel_version

UNCONFINED = "unconfined"
_NATIVE = {
    "x86": "SCMP_ARCH_X86",
    "amd64": "SCMP_ARCH_X86_64",
    "arm": "SCMP_ARCH_ARM",
    "arm64": "SCMP_ARCH_AARCH64",
    "ppc64le": "SCMP_ARCH_PPC64LE",
    "s390x": "SCMP_ARCH_S390X",
    "riscv64": "SCMP_ARCH_RISCV64",
}

#: The names of JSON types in Go's errors.
_KINDS = {bool: "bool", str: "string", list: "array"}

Json = Mapping[str, object]


@cache
def default_profile() -> Json:
    """Docker's default profile, as published. Read at the first use, then cached."""
    return _object(json.loads(Path(__file__).with_name("seccomp_default.json").read_text()))


@cache
def _default_for(caps: frozenset[str], arch: str, kernel: tuple[int, int]) -> dict[str, object] | None:
    return _resolve(default_profile(), caps, arch, kernel)


def resolve(profile: str, caps: Sequence[str], host: HostFacts) -> dict[str, object] | None:
    """``linux.seccomp`` of a container, None for no filter. The caller must not change it: it is cached.

    :param profile: "" Docker's default, ``unconfined``, or a profile's JSON.
    :param caps: the container's bounding set.
    :raises WharfError: INTERNAL, in dockerd's words: a malformed profile, or a kernel without seccomp.
    """
    if profile == UNCONFINED:
        return None
    if not host.seccomp:
        if profile:
            raise internal("seccomp is not enabled in your kernel, cannot run a custom seccomp profile")
        return None
    if not profile:
        return _default_for(frozenset(caps), host.arch, host.kernel)
    try:
        parsed = jsontext.loads(profile)
        if parsed is not None and not isinstance(parsed, dict):
            kind = _KINDS.get(type(parsed), "number")
            raise ValueError(f"json: cannot unmarshal {kind} into Go value of type seccomp.Seccomp")
        return _resolve(parsed or {}, frozenset(caps), host.arch, host.kernel)
    except (ValueError, RecursionError) as error:
        raise internal(f"Decoding seccomp profile failed: {error}") from None


def _resolve(profile: Json, caps: frozenset[str], arch: str, kernel: tuple[int, int]) -> dict[str, object] | None:
    rules = _objects(profile.get("syscalls"))
    if not profile.get("defaultAction") and not rules:
        return None
    resolved: dict[str, object] = {"defaultAction": profile.get("defaultAction", "")}
    for name in ("defaultErrnoRet", "flags", "listenerPath", "listenerMetadata"):
        if profile.get(name) is not None:
            resolved[name] = profile[name]
    if architectures := _architectures(profile, arch):
        resolved["architectures"] = architectures
    resolved["syscalls"] = [_rule(rule) for rule in rules if _applies(rule, caps, arch, kernel)]
    return resolved


def _architectures(profile: Json, arch: str) -> list[str]:
    plain, by_arch = _strings(profile.get("architectures")), _objects(profile.get("archMap"))
    if plain and by_arch:
        raise _both("architectures", "archMap")
    if plain:
        return plain
    native = _NATIVE.get(arch)
    for entry in by_arch:
        if entry.get("architecture") == native:
            return [str(native), *_strings(entry.get("subArchitectures"))]
    return []


def _applies(rule: Json, caps: frozenset[str], arch: str, kernel: tuple[int, int]) -> bool:
    excludes, includes = _object(rule.get("excludes") or {}), _object(rule.get("includes") or {})
    if arch in _strings(excludes.get("arches")) or not caps.isdisjoint(_strings(excludes.get("caps"))):
        return False
    oldest = str(excludes.get("minKernel") or "")
    if oldest and kernel >= kernel_version(oldest):
        return False
    arches = _strings(includes.get("arches"))
    if (arches and arch not in arches) or not caps.issuperset(_strings(includes.get("caps"))):
        return False
    oldest = str(includes.get("minKernel") or "")
    return not oldest or kernel >= kernel_version(oldest)


def _rule(rule: Json) -> dict[str, object]:
    names, name = _strings(rule.get("names")), str(rule.get("name") or "")
    if name and names:
        raise _both("name", "names")
    resolved: dict[str, object] = {"names": [name] if name else names, "action": rule.get("action", "")}
    if rule.get("errnoRet") is not None:
        resolved["errnoRet"] = rule["errnoRet"]
    if args := _objects(rule.get("args")):
        resolved["args"] = [
            {key: arg[key] for key in ("index", "value", "valueTwo", "op") if arg.get(key) is not None} for arg in args
        ]
    return resolved


def _both(one: str, other: str) -> WharfError:
    return internal(f"both '{one}' and '{other}' are specified in the seccomp profile, use either '{one}' or '{other}'")


def _object(value: object) -> Json:
    if not isinstance(value, dict):
        raise ValueError("a JSON object was expected")
    return value


def _objects(value: object) -> list[Json]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise ValueError("a JSON array was expected")
    return [_object(entry) for entry in value]


def _strings(value: object) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise ValueError("a JSON array of strings was expected")
    return value
