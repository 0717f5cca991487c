"""Merges flags and file into one configuration. A setting in both is refused, as dockerd does."""

import codecs
import os
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_args

from api_models import gojson
from engine.common import jsontext
from server.config import environment
from server.config.check import check
from server.config.flags import Given, parse
from server.config.model import Config
from server.config.option import Kind, Option
from server.config.options import BY_FLAG, BY_KEY, FLATTENED, MERGED
from server.config.types import ConfigError
from server.config.values import from_file, from_flag, kind_of

DEFAULT_FILE = "/etc/wharf/daemon.json"
_FIELDS = frozenset(field.name for field in fields(Config))
_PATHS = frozenset(field.name for field in fields(Config) if Path in get_args(field.type))
_FILES = frozenset({"policy_file", "tlscacert", "tlscert", "tlskey"})
# The features that can be switched; the other known ones are fixed in this engine.
_SWITCHES = frozenset({"cdi", "drop-blobs", "strict-api"})
_FEATURES = {"containerd-snapshotter": True, "buildkit": True}


def load(arguments: Sequence[str]) -> tuple[Config, Given]:
    """The configuration of a command line (without the program's name), and the flags that were given.

    :raises ConfigError: with the sentence to print.
    """
    given = parse(arguments)
    config = _configure(given)
    if "config-file" in given:
        # For a reload: the daemon changes its directory.
        given["config-file"] = [str(config.config_file)]
    return config, given


def reload(given: Given) -> Config:
    """The configuration after a change of the file: the same flags, the file read again.

    :raises ConfigError: with the sentence to log; the running configuration stays.
    """
    return _configure(given)


def _configure(given: Given) -> Config:
    path = given.get("config-file", [DEFAULT_FILE])[-1]
    settings, origin = _from_flags(given)
    try:
        document = _read(path, required="config-file" in given)
        _conflicts(document, given, settings)
        for name, value in document.items():
            option = BY_KEY[name]
            read = from_file(option.kind, name, value)
            if name in MERGED and option.attribute in settings:
                settings[option.attribute] = {**read, **settings[option.attribute]}
            else:
                settings[option.attribute] = read
            origin[name] = "file"
    except ConfigError as error:
        raise ConfigError(f"unable to configure the Docker daemon with file {path}: {error}") from None
    _refuse(settings, origin)
    settings["given"] = origin
    config = environment.apply(_build(settings, path), os.environ)
    try:
        return check(config)
    except ConfigError as error:
        if not document:
            raise
        raise ConfigError(
            f"unable to configure the Docker daemon with file {path}: "
            f"merged configuration validation from file and command line flags failed: {error}"
        ) from None


def _from_flags(given: Given) -> tuple[dict[str, Any], dict[str, str]]:
    settings: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for flag, texts in given.items():
        option = BY_FLAG[flag]
        try:
            value = from_flag(option.kind, texts)
        except ConfigError as error:
            short = f"-{option.short}, " if option.short else ""
            raise ConfigError(f'invalid argument "{texts[-1]}" for "{short}--{flag}" flag: {error}') from None
        settings[option.attribute] = value
        if not option.only_flag:
            origin[option.name] = "flag"
    return settings, origin


def _read(path: str, *, required: bool) -> dict[str, Any]:
    """The members of the file, nested groups flattened; empty if there is no file and none was named."""
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        if required:
            raise ConfigError(f"open {path}: no such file or directory") from None
        return {}
    except OSError as error:
        raise ConfigError(f"open {path}: {(error.strerror or str(error)).lower()}") from None
    text = _decoded(data)
    if not text.strip():
        return {}
    try:
        document = jsontext.loads(text)
    except ValueError:
        raise ConfigError(_syntax(text.encode())) from None
    if not isinstance(document, dict):
        raise ConfigError(f"json: cannot unmarshal {kind_of(document)} into Go value of type map[string]interface {{}}")
    members: dict[str, Any] = {}
    for name, value in document.items():
        if name in FLATTENED and isinstance(value, dict):
            members.update(value)
        elif name == "host-gateway-ip":
            members["host-gateway-ips"] = value
        elif value is not None:
            members[name] = value
    unknown = [name for name in members if name not in BY_KEY]
    if unknown:
        names = ", ".join(unknown)
        raise ConfigError(f"the following directives don't match any configuration option: {names}")
    return members


def _syntax(text: bytes) -> str:
    """The error of invalid JSON, in the words of Go's decoder of whole texts."""
    reason = gojson.explain(text).removeprefix("invalid JSON: ")
    return "unexpected end of JSON input" if reason == "unexpected EOF" else reason


def _decoded(data: bytes) -> str:
    """Decodes the text by its byte order mark, or as UTF-8.

    :raises ConfigError: invalid UTF-8, which dockerd refuses in this file only.
    """
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", "replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        where = f"at offset {error.start}: encoding: invalid UTF-8"
        raise ConfigError(f"failed to decode configuration JSON {where}") from None


def _conflicts(document: Mapping[str, Any], given: Given, settings: Mapping[str, Any]) -> None:
    twice = [
        f"{name}: (from flag: {_shown(name, settings[option.attribute])}, from file: {_shown(name, value)})"
        for name, value in document.items()
        if (option := BY_KEY[name]).flag in given and name not in MERGED and not option.only_file
    ]
    if twice:
        raise ConfigError(
            "the following directives are specified both as a flag and in the configuration file: " + ", ".join(twice)
        )


def _shown(name: str, value: Any) -> str:
    if name in ("http-proxy", "https-proxy"):
        return masked(str(value))
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return f"[{' '.join(map(str, value))}]"
    if isinstance(value, dict):
        return "map[" + " ".join(f"{key}:{_shown(name, each)}" for key, each in value.items()) + "]"
    return str(value)


def masked(url: str) -> str:
    """Mask user and password of a proxy's address, for display."""
    scheme, separator, rest = url.partition("://")
    _, at, host = rest.rpartition("@")
    return f"{scheme}://xxxxx:xxxxx@{host}" if separator and at else url


def _refuse(settings: Mapping[str, Any], origin: Mapping[str, str]) -> None:
    """Refuses to start with an unsupported setting."""
    for name, where in origin.items():
        option = BY_KEY[name]
        value = settings[option.attribute]
        if option.refused and value != option.allowed and value not in ((), {}, None):
            shown = f"--{option.flag}" if where == "flag" else name
            raise ConfigError(f"{shown} is not supported: {option.refused}")
        if option.kind is Kind.SWITCHES:
            _check_features(value)


def _check_features(features: Mapping[str, Any]) -> None:
    for feature, on in features.items():
        if not isinstance(on, bool):
            raise ConfigError("json: cannot unmarshal value into Go struct field Config.features of type bool")
        if feature not in _SWITCHES and _FEATURES.get(feature, False) != on:
            raise ConfigError(f"feature {feature} can't be switched {'on' if on else 'off'} in this engine")


def _pairs(option: Option, texts: Sequence[str]) -> dict[str, str]:
    found = {}
    for text in texts:
        key, separator, value = text.partition("=")
        if not separator:
            raise ConfigError(f"invalid {option.name}: {text}: must be key=value")
        found[key.strip()] = value.strip()
    return found


def _build(settings: dict[str, Any], path: str) -> Config:
    if "exec_opts" in settings:
        settings["exec_opts"] = _pairs(BY_KEY["exec-opts"], settings["exec_opts"])
    values = {name: value for name, value in settings.items() if name in _FIELDS}
    for name in _PATHS & values.keys():
        values[name] = Path(os.path.abspath(values[name]))
    for name in _FILES & values.keys():
        # The daemon changes its directory before it reads them. "" means the default.
        values[name] = values[name] and os.path.abspath(values[name])
    values["config_file"] = Path(os.path.abspath(path))
    if not settings.get("features", {}).get("cdi", True) or values.get("cdi_spec_dirs") == ("",):
        values["cdi_spec_dirs"] = ()
    config = Config(**values)
    if "pidfile" not in values:
        config = replace(config, pidfile=config.exec_root / "wharfd.pid")
    if not config.hosts:
        config = replace(config, hosts=(f"unix://{config.exec_root}/docker.sock",))
    return config
