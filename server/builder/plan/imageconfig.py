"""An image's configuration while it is built: OCI image-spec config.md, with Docker's additional fields.

The configuration is kept as JSON, so unknown fields of a base image are preserved. Values are replaced, never changed
in place, so a shallow copy is enough. Whatever grows with the number of instructions (history, environment, labels,
ports, volumes, triggers) is kept in journals, which are copied in O(1).
"""

import datetime
import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import orjson

from server.builder.plan.journal import Journal, JournalMap

Json = dict[str, object]


@functools.lru_cache(maxsize=256)
def utc(ns: int) -> str:
    """Format a time as RFC 3339 with nanoseconds, as Go does (trailing zeros dropped)."""
    seconds, rest = divmod(ns, 10**9)
    stamp = datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S")
    fraction = f".{rest:09d}".rstrip("0") if rest else ""
    return f"{stamp}{fraction}Z"


def parse_utc(text: str) -> int:
    """Parse a UTC time in the format of :func:`utc` to nanoseconds; 0 for anything else."""
    stamp, _, rest = text.rstrip("Z").partition(".")
    try:
        moment = datetime.datetime.fromisoformat(f"{stamp}+00:00")
        return int(moment.timestamp()) * 10**9 + int(f"{rest:0<9.9}" if rest else 0)
    except ValueError:
        return 0


@dataclass(frozen=True, slots=True)
class History:
    """One line of ``docker history``. ``created_ns``: 0 until it is known; the layer below then provides it."""

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
    """``document``: the base image's configuration without ``rootfs`` and ``history``, which are stored separately."""

    document: Json
    base_diff_ids: tuple[str, ...] = ()
    base_history: tuple[Json, ...] = ()
    history: Journal[History] = field(default_factory=Journal)
    _maps: dict[str, JournalMap[object]] = field(default_factory=dict)
    """Objects of ``config`` with additions, by key; ``config`` itself keeps the base image's entries."""
    _env: JournalMap[str] | None = None
    _env_changed: bool = False
    _triggers: Journal[str] | None = None

    @classmethod
    def scratch(cls, *, os: str, architecture: str, variant: str = "") -> "ImageConfig":
        """Return the configuration of ``FROM scratch``."""
        document: Json = {"architecture": architecture, "os": os, "config": {}}
        if variant:
            document["variant"] = variant
        config = cls(document)
        config.set_env("PATH", _WINDOWS_PATH if os == "windows" else _PATH)
        return config

    @classmethod
    def of_image(cls, document: Mapping[str, object]) -> "ImageConfig":
        """Parse the JSON of a base image's configuration."""
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
        """Set the default PATH if the base image has none, as an imported root file system; ENV may refer to it."""
        if "PATH" not in self.env and self.document.get("os") != "windows":
            self.set_env("PATH", _PATH)

    def clone(self) -> "ImageConfig":
        """Copy the configuration for a stage that starts from another one. O(1) in the number of instructions."""
        return ImageConfig(
            {**self.document, "config": dict(self.config)},
            self.base_diff_ids,
            self.base_history,
            self.history.copy(),
            {key: values.copy() for key, values in self._maps.items()},
            None if self._env is None else self._env.copy(),
            self._env_changed,
            None if self._triggers is None else self._triggers.copy(),
        )

    @property
    def config(self) -> Json:
        """The ``config`` object of the base image, without additions to its lists and objects."""
        config = self.document["config"]
        assert isinstance(config, dict)
        return config

    @property
    def entries(self) -> int:
        """The approximate number of entries in the document: a measure of the cost of encoding it."""
        variables = self.config.get("Env")
        return len(self.base_history) + len(self.history) + (len(variables) if isinstance(variables, list) else 0)

    def container(self) -> Json:
        """Return the complete ``config`` object as a new dict."""
        added: Json = {key: values.to_dict() for key, values in self._maps.items()}
        if self._env is not None and self._env_changed:
            added["Env"] = [f"{name}={value}" for name, value in self._env.to_dict().items()]
        if self._triggers is not None:
            added["OnBuild"] = list(self._triggers)
        return {**self.config, **added}

    def _strings(self, key: str) -> list[str]:
        value = self.config.get(key)
        return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []

    def _variables(self) -> JournalMap[str]:
        if self._env is None:
            self._env = JournalMap(dict(item.partition("=")[::2] for item in self._strings("Env")))
        return self._env

    @property
    def env(self) -> Mapping[str, str]:
        """The environment, in order: a live view."""
        return self._variables().values

    def set_env(self, name: str, value: str) -> None:
        """Set a variable in place, or append it."""
        self._variables()[name] = value
        self._env_changed = True

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
        """The words before the text of the shell form."""
        windows = self.document.get("os") == "windows"
        return self._strings("Shell") or (["cmd", "/S", "/C"] if windows else ["/bin/sh", "-c"])

    def _map(self, key: str) -> JournalMap[object]:
        if key not in self._maps:
            old = self.config.get(key)
            self._maps[key] = JournalMap(old if isinstance(old, dict) else {})
        return self._maps[key]

    @property
    def volumes(self) -> Sequence[str]:
        value = self._maps["Volumes"].values if "Volumes" in self._maps else self.config.get("Volumes")
        return list(value) if isinstance(value, Mapping) else []

    @property
    def onbuild(self) -> Sequence[str]:
        return self._strings("OnBuild") if self._triggers is None else list(self._triggers)

    def add_trigger(self, text: str) -> None:
        """Append an ``ONBUILD`` instruction."""
        if self._triggers is None:
            self._triggers = Journal(self.onbuild)
        self._triggers.append(text)

    def clear_triggers(self) -> None:
        self.config.pop("OnBuild", None)
        self._triggers = None

    def merge_map(self, key: str, values: Mapping[str, object]) -> None:
        """Add entries to an object of the configuration: ``Labels``, ``ExposedPorts``, ``Volumes``."""
        known = self._map(key)
        for name, value in values.items():
            known[name] = value

    @property
    def created_by(self) -> "CreatedBy":
        """The texts of the history so far."""
        return CreatedBy(self.base_history, self.history.copy())

    def encode(self, diff_ids: Sequence[str], *, created_ns: int, history: Iterable[History] | None = None) -> bytes:
        """Encode the image's configuration as canonical JSON, so that equal builds give equal digests.

        ``history`` replaces this object's history, which lacks times.
        """
        document = dict(self.document)
        document["created"] = utc(created_ns)
        entries = self.history if history is None else history
        document["history"] = [*self.base_history, *(entry.to_json() for entry in entries)]
        document["rootfs"] = {"type": "layers", "diff_ids": list(diff_ids)}
        config = self.container()
        document["config"] = {key: value for key, value in config.items() if value not in (None, "", [], {})}
        try:
            return orjson.dumps(document, option=orjson.OPT_SORT_KEYS)
        except TypeError:
            # A base image may contain values that orjson rejects, such as numbers of more than 64 bits.
            return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


@dataclass(frozen=True, slots=True)
class CreatedBy:
    """The texts of an image's history, one per entry. Created in O(1), read in O(n)."""

    base: tuple[Json, ...] = ()
    entries: Journal[History] = field(default_factory=Journal)

    def __len__(self) -> int:
        return len(self.base) + len(self.entries)

    def texts(self) -> tuple[str, ...]:
        below = (str(entry.get("created_by", "")) for entry in self.base)
        return (*below, *(entry.created_by for entry in self.entries))


_WINDOWS_PATH = "c:\\Windows\\System32;c:\\Windows"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
