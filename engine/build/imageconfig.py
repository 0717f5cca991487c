"""An image's configuration while it is built: OCI image-spec config.md, with Docker's additional fields.

Kept as the JSON that it is: what a base image carries and we don't know is passed on. Values are replaced and never
changed in place, so that a copy needs to be no deeper than that.
"""

import datetime
import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import orjson

Json = dict[str, object]


@functools.lru_cache(maxsize=256)
def utc(ns: int) -> str:
    """RFC 3339 with nanoseconds, as Go writes times (trailing zeros dropped)."""
    seconds, rest = divmod(ns, 10**9)
    stamp = datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S")
    fraction = f".{rest:09d}".rstrip("0") if rest else ""
    return f"{stamp}{fraction}Z"


def ns_of(text: str) -> int:
    """The nanoseconds of a time in UTC as :func:`utc` writes it; 0 for anything else."""
    stamp, _, rest = text.rstrip("Z").partition(".")
    try:
        moment = datetime.datetime.fromisoformat(f"{stamp}+00:00")
        return int(moment.timestamp()) * 10**9 + int(f"{rest:0<9.9}" if rest else 0)
    except ValueError:
        return 0


@dataclass(frozen=True, slots=True)
class History:
    """One line of ``docker history``. ``created_ns`` is 0 where it has yet to be known: then the layer below tells."""

    created_by: str
    empty_layer: bool
    created_ns: int = 0
    comment: str = ""
    author: str = ""

    def to_json(self) -> Json:
        entry: Json = {"created": utc(self.created_ns), "created_by": self.created_by}
        if self.author:
            entry["author"] = self.author
        if self.comment:
            entry["comment"] = self.comment
        if self.empty_layer:
            entry["empty_layer"] = True
        return entry


@dataclass(slots=True)
class ImageConfig:
    """``document``: the base image's configuration without ``rootfs`` and ``history``, which are kept apart."""

    document: Json
    base_diff_ids: tuple[str, ...] = ()
    base_history: tuple[Json, ...] = ()
    history: list[History] = field(default_factory=list)

    @classmethod
    def scratch(cls, *, os: str, architecture: str, variant: str = "") -> "ImageConfig":
        """The configuration of ``FROM scratch``."""
        document: Json = {"architecture": architecture, "os": os, "config": {}}
        if variant:
            document["variant"] = variant
        config = cls(document)
        config.set_env("PATH", _WINDOWS_PATH if os == "windows" else _PATH)
        return config

    @classmethod
    def of_image(cls, document: Mapping[str, object]) -> "ImageConfig":
        """The configuration of a base image, from its JSON."""
        own = dict(document)
        rootfs = own.pop("rootfs", None)
        history = own.pop("history", None)
        diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
        lines = history if isinstance(history, list) else []
        for key in ("container", "container_config", "docker_version", "id", "parent"):
            own.pop(key, None)
        config = own.get("config")
        own["config"] = dict(config) if isinstance(config, dict) else {}
        return cls(own, tuple(diff_ids or ()), tuple(lines))

    def ensure_path(self) -> None:
        """A base image that says nothing, such as an imported root file system, gets a PATH that ENV may add to."""
        if "PATH" not in self.env and self.document.get("os") != "windows":
            self.set_env("PATH", _PATH)

    def clone(self) -> "ImageConfig":
        """A copy that can be changed: a stage that starts from another."""
        document: Json = {**self.document, "config": dict(self.config)}
        return ImageConfig(document, self.base_diff_ids, self.base_history, list(self.history))

    @property
    def config(self) -> Json:
        """The ``config`` object: what a container gets."""
        config = self.document["config"]
        assert isinstance(config, dict)
        return config

    def _strings(self, key: str) -> list[str]:
        value = self.config.get(key)
        return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []

    @property
    def env(self) -> dict[str, str]:
        """The environment, in order."""
        return dict(item.partition("=")[::2] for item in self._strings("Env"))

    def set_env(self, name: str, value: str) -> None:
        """Sets a variable in place, or adds it at the end."""
        env = self.env
        env[name] = value
        self.config["Env"] = [f"{key}={text}" for key, text in env.items()]

    @property
    def workdir(self) -> str:
        value = self.config.get("WorkingDir")
        return value if isinstance(value, str) and value else "/"

    @property
    def user(self) -> str:
        value = self.config.get("User")
        return value if isinstance(value, str) else ""

    @property
    def shell(self) -> Sequence[str]:
        """The words in front of a shell form's text."""
        windows = self.document.get("os") == "windows"
        return self._strings("Shell") or (["cmd", "/S", "/C"] if windows else ["/bin/sh", "-c"])

    @property
    def volumes(self) -> Sequence[str]:
        value = self.config.get("Volumes")
        return list(value) if isinstance(value, dict) else []

    @property
    def onbuild(self) -> Sequence[str]:
        return self._strings("OnBuild")

    def merge_map(self, key: str, values: Mapping[str, object]) -> None:
        """Adds to an object of the configuration, such as ``Labels`` or ``ExposedPorts``."""
        old = self.config.get(key)
        self.config[key] = {**(old if isinstance(old, dict) else {}), **values}

    @property
    def told(self) -> tuple[str, ...]:
        """The texts of the history so far."""
        below = (str(entry.get("created_by", "")) for entry in self.base_history)
        return (*below, *(entry.created_by for entry in self.history))

    def finished(self, diff_ids: Sequence[str], *, created_ns: int) -> bytes:
        """The image's configuration: canonical JSON, so that the same build gives the same digest."""
        document = dict(self.document)
        document["created"] = utc(created_ns)
        document["history"] = [*self.base_history, *(entry.to_json() for entry in self.history)]
        document["rootfs"] = {"type": "layers", "diff_ids": list(diff_ids)}
        config = document["config"]
        assert isinstance(config, dict)
        document["config"] = {key: value for key, value in config.items() if value not in (None, "", [], {})}
        try:
            return orjson.dumps(document, option=orjson.OPT_SORT_KEYS)
        except TypeError:
            # What a base image may have, such as numbers of more than 64 bits.
            return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


_WINDOWS_PATH = "c:\\Windows\\System32;c:\\Windows"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
