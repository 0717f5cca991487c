"""Parses an instruction's ``--flags`` and the options of ``RUN --mount``."""

import csv
import json
import posixpath
import re
from collections.abc import Sequence

from server.builder.dockerfile.errors import DockerfileError, Span
from server.builder.dockerfile.instructions import Mount
from server.builder.dockerfile.words import closest


def _boolean(text: str, what: str) -> bool:
    if text.lower() in ("true", "1", "t"):
        return True
    if text.lower() in ("false", "0", "f"):
        return False
    raise DockerfileError(f"expecting boolean value for flag {what}, not: {text}")


class Flags:
    """The flags of one instruction. Each method consumes its flag; :meth:`done` refuses the remaining ones."""

    def __init__(self, instruction: str, words: Sequence[str]) -> None:
        self._instruction = instruction
        self._given: dict[str, list[str | None]] = {}
        self._known: list[str] = []
        for word in words:
            name, equals, value = word[2:].partition("=")
            self._given.setdefault(name, []).append(value if equals else None)

    def list(self, name: str) -> Sequence[str]:
        """Consume a flag that may be repeated, each time with a value."""
        self._known.append(name)
        values = self._given.pop(name, [])
        for value in values:
            if value is None:
                raise DockerfileError(f"missing a value on flag: {name}")
        return [value for value in values if value is not None]

    def text(self, name: str) -> str:
        """Consume a flag with a value; empty if absent."""
        values = self.list(name)
        if len(values) > 1:
            raise DockerfileError(f"duplicate flag specified: {name}")
        return values[0] if values else ""

    def choice(self, name: str, allowed: Sequence[str], *, default: str) -> str:
        """Consume a flag with one of several values."""
        value = self.text(name) or default
        if value not in allowed:
            raise DockerfileError(f"unsupported {name} {json.dumps(value)}")
        return value

    def optional(self, name: str) -> bool | None:
        """Consume a boolean flag; ``None`` if absent."""
        self._known.append(name)
        values = self._given.pop(name, [])
        if not values:
            return None
        if len(values) > 1:
            raise DockerfileError(f"duplicate flag specified: {name}")
        return values[0] is None or _boolean(values[0], name)

    def boolean(self, name: str) -> bool:
        """Consume a boolean flag; false if absent."""
        return self.optional(name) or False

    def done(self) -> None:
        """Raise :class:`DockerfileError` if a flag is left: the instruction has no such flag."""
        for name in self._given:
            meant = closest(name, self._known)
            hint = f" (did you mean {meant}?)" if meant else ""
            raise DockerfileError(f"unknown flag: {name}{hint}")


_TYPES = ("bind", "cache", "tmpfs", "secret", "ssh")
_SHARING = ("shared", "private", "locked")


def check_type(kind: str) -> None:
    """Raise :class:`DockerfileError` for an unknown type of mount."""
    if kind not in _TYPES:
        meant = closest(kind, _TYPES)
        hint = f" (did you mean {meant}?)" if meant else ""
        raise DockerfileError(f"unsupported mount type {json.dumps(kind)}{hint}", numbered=False)


def check_target(type: str, target: str, span: Span) -> None:
    """Raise :class:`DockerfileError` for a mount over the root."""
    if type in ("bind", "cache", "tmpfs") and target and posixpath.normpath(target).strip("/") == "":
        raise DockerfileError('invalid mount target "/"', span)


def check_sharing(sharing: str) -> None:
    """Raise :class:`DockerfileError` for an unknown ``sharing`` mode of a cache."""
    if sharing not in _SHARING:
        meant = closest(sharing, _SHARING)
        hint = f" (did you mean {meant}?)" if meant else ""
        raise DockerfileError(f"unsupported sharing value {json.dumps(sharing)}{hint}", numbered=False)


def mount(text: str) -> Mount:
    """Parse the options of one ``--mount``. Raises :class:`DockerfileError` in BuildKit's words."""
    try:
        fields = next(csv.reader([text]))
    except csv.Error as error:
        raise DockerfileError(f"failed to parse csv mounts: {error}", numbered=False) from None
    found: dict[str, str] = {}
    readonly: bool | None = None
    required = False
    for field in fields:
        key, equals, value = field.partition("=")
        key = key.lower()
        if not equals:
            if key in ("readonly", "ro"):
                readonly = True
                continue
            if key in ("readwrite", "rw"):
                readonly = False
                continue
            if key == "required":
                required = True
                continue
            raise DockerfileError(f"invalid field '{field}' must be a key=value pair", numbered=False)
        if key in ("readonly", "ro"):
            readonly = _boolean(value, key)
        elif key in ("readwrite", "rw"):
            readonly = not _boolean(value, key)
        elif key == "required":
            required = _boolean(value, key)
        elif key in ("type", "from", "id", "sharing", "mode", "uid", "gid", "size", "env"):
            found[key] = value
        elif key in ("source", "src"):
            found["source"] = value
        elif key in ("target", "dst", "destination"):
            found["target"] = value
        else:
            known = (
                "type",
                "from",
                "source",
                "target",
                "readonly",
                "id",
                "sharing",
                "required",
                "mode",
                "uid",
                "gid",
                "env",
            )
            meant = closest(key, known)
            hint = f" (did you mean {meant}?)" if meant else ""
            raise DockerfileError(f"unexpected key '{key}' in '{field}'{hint}", numbered=False)
    kind = found.get("type", "bind")
    kind = kind if "$" in kind else kind.lower()
    if "$" not in kind:
        check_type(kind)
    sharing = found.get("sharing", "shared")
    sharing = sharing if "$" in sharing else sharing.lower()
    if "$" not in sharing:
        check_sharing(sharing)
    if "$" in found.get("from", ""):
        raise DockerfileError("'from' doesn't support variable expansion, define alias stage instead", numbered=False)
    target = found.get("target", "")
    if kind in ("bind", "cache", "tmpfs") and not target:
        raise DockerfileError('invalid mount target "/"', numbered=False)
    for key in ("mode", "uid", "gid"):
        text = found.get(key, "")
        if text and "$" not in text and not re.fullmatch(r"[0-7]+" if key == "mode" else r"\d+", text):
            raise DockerfileError(f"invalid value {text} for {key}", numbered=False)
    if (
        "size" in found
        and "$" not in found["size"]
        and not re.fullmatch(r"(?i)\d+(\.\d+)?\s*[kmgt]?i?b?", found["size"])
    ):
        raise DockerfileError(f"invalid value for size: {found['size']}", numbered=False)
    if kind == "secret" and not (found.get("id") or found.get("source") or target):
        raise DockerfileError("invalid secret mount. one of source, target required", numbered=False)
    return Mount(
        type=kind,
        source=found.get("source", ""),
        target=target,
        from_=found.get("from", ""),
        id=found.get("id", ""),
        sharing=sharing,
        readonly=readonly,
        required=required,
        mode=found.get("mode", ""),
        uid=found.get("uid", ""),
        gid=found.get("gid", ""),
        size=found.get("size", ""),
        env=found.get("env"),
    )
