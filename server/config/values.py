"""Parses the values of options from a flag's text and from the file's JSON, with dockerd's sentences."""

import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from server import units
from server.config.option import Kind
from server.config.types import AddressPool, BuilderGc, ConfigError, GcRule, Runtime, Ulimit

_TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_FALSE = frozenset({"0", "f", "F", "false", "FALSE", "False"})
ULIMITS = frozenset(
    {
        "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio",
        "rttime", "sigpending", "stack",
    }
)  # fmt: skip


def parse_bool(text: str) -> bool:
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ConfigError(f'strconv.ParseBool: parsing "{text}": invalid syntax')


def parse_int(text: str) -> int:
    if not re.fullmatch(r"[+-]?\d{1,18}", text):
        raise ConfigError(f'strconv.ParseInt: parsing "{text}": invalid syntax')
    return int(text)


def parse_size(text: str) -> int:
    """ "64m", "1GiB", "1048576" → bytes."""
    try:
        return units.parse_size(text)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def parse_ulimit(text: str) -> Ulimit:
    """ "nofile=1024:2048" or "nofile=1024"; -1 is unlimited."""
    name, separator, limits = text.partition("=")
    if not separator or not limits:
        raise ConfigError(f"invalid ulimit argument: {text}")
    if name not in ULIMITS:
        raise ConfigError(f"invalid ulimit type: {name}")
    soft_text, colon, hard_text = limits.partition(":")
    soft = parse_int(soft_text)
    hard = parse_int(hard_text) if colon else soft
    if hard != -1 and (soft > hard or soft == -1):
        raise ConfigError(f"ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}")
    return Ulimit(name, soft, hard)


def parse_pool(text: str) -> AddressPool:
    """ "base=172.30.0.0/16,size=24"."""
    fields = {}
    for part in text.split(","):
        key, separator, value = part.partition("=")
        if not separator:
            raise ConfigError(f"invalid field '{part}' must be a key=value pair")
        fields[key.strip().lower()] = value.strip()
    if unknown := fields.keys() - {"base", "size"}:
        raise ConfigError(f"unexpected key '{min(unknown)}' in '{text}'")
    return pool(fields.get("base", ""), fields.get("size", ""))


def pool(base: str, size: object) -> AddressPool:
    try:
        network = ipaddress.ip_network(base, strict=False)
    except ValueError:
        raise ConfigError(f"invalid CIDR address: {base}") from None
    bits = size if isinstance(size, int) else parse_int(str(size))
    if not network.prefixlen <= bits <= network.max_prefixlen:
        raise ConfigError(f"invalid size of the address pool {base}: {bits}")
    return AddressPool(str(network), bits)


def _pairs(texts: Sequence[str]) -> dict[str, str]:
    found = {}
    for text in texts:
        key, _, value = text.partition("=")
        found[key] = value
    return found


def _network_opts(texts: Sequence[str]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for text in texts:
        driver, separator, rest = text.partition("=")
        key, equals, value = rest.partition("=")
        if not separator or not equals:
            raise ConfigError(f"invalid default network option: {text}")
        found.setdefault(driver, {})[key] = value
    return found


def _runtimes(texts: Sequence[str]) -> dict[str, Runtime]:
    found = {}
    for text in texts:
        name, separator, path = text.partition("=")
        if not separator or not name or not path:
            raise ConfigError(f"invalid runtime argument: {text}")
        if name.lower() == "runc":
            raise ConfigError("runtime name 'runc' is reserved")
        found[name.strip()] = Runtime(path=path.strip())
    return found


def _switches(texts: Sequence[str]) -> dict[str, bool]:
    found = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not name:
            raise ConfigError(f"invalid option name: {text}")
        found[name] = parse_bool(value) if separator else True
    return found


def from_flag(kind: Kind, texts: Sequence[str]) -> Any:
    """The value of a flag given once or several times.

    :raises ConfigError: with dockerd's sentence.
    """
    last = texts[-1]
    match kind:
        case Kind.TEXT:
            return last
        case Kind.BOOL:
            return parse_bool(last)
        case Kind.INT:
            return parse_int(last)
        case Kind.BYTES:
            return parse_size(last)
        case Kind.LIST:
            return tuple(texts)
        case Kind.MAP:
            return _pairs(texts)
        case Kind.ULIMITS:
            return {each.name: each for each in map(parse_ulimit, texts)}
        case Kind.POOLS:
            return tuple(map(parse_pool, texts))
        case Kind.RUNTIMES:
            return _runtimes(texts)
        case Kind.NETWORK_OPTS:
            return _network_opts(texts)
        case Kind.SWITCHES:
            return _switches(texts)
    raise ConfigError("not a flag")


def kind_of(value: object) -> str:
    """The JSON type of a value, as Go's errors name it."""
    kinds: Sequence[tuple[type, str]] = (
        (bool, "bool"),
        (int, "number"),
        (float, "number"),
        (str, "string"),
        (list, "array"),
    )
    return next((word for each, word in kinds if isinstance(value, each)), "object")


def _wrong(name: str, value: object, go_type: str) -> ConfigError:
    return ConfigError(f"json: cannot unmarshal {kind_of(value)} into Go struct field Config.{name} of type {go_type}")


def _typed(name: str, value: Any, kind: type, go_type: str) -> Any:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise _wrong(name, value, go_type)
    return value


def _texts(name: str, value: Any) -> tuple[str, ...]:
    return tuple(_typed(name, each, str, "string") for each in _typed(name, value, list, "[]string"))


def _text_map(name: str, value: Any) -> dict[str, str]:
    members = _typed(name, value, dict, "map[string]string").items()
    return {key: _typed(name, each, str, "string") for key, each in members}


def _file_runtimes(name: str, value: Any) -> dict[str, Runtime]:
    found = {}
    for runtime, entry in _typed(name, value, dict, "map[string]system.Runtime").items():
        entry = _typed(name, entry, dict, "system.Runtime")
        if unknown := entry.keys() - {"path", "runtimeArgs", "runtimeType", "options"}:
            raise ConfigError(f"runtime {runtime}: unknown key {min(unknown)}")
        found[runtime] = Runtime(
            path=_typed(name, entry.get("path", ""), str, "string"),
            args=_texts(name, entry.get("runtimeArgs") or []),
            type=_typed(name, entry.get("runtimeType", ""), str, "string"),
            options=_typed(name, entry.get("options") or {}, dict, "map[string]interface {}"),
        )
    return found


def _file_ulimits(name: str, value: Any) -> dict[str, Ulimit]:
    found = {}
    for key, entry in _typed(name, value, dict, "map[string]*units.Ulimit").items():
        entry = {each.lower(): number for each, number in _typed(name, entry, dict, "units.Ulimit").items()}
        soft, hard = entry.get("soft", 0), entry.get("hard", 0)
        for number in (soft, hard):
            _typed(name, number, int, "int64")
        kind = entry.get("name", key)
        if kind not in ULIMITS:
            raise ConfigError(f"invalid ulimit type: {kind}")
        if hard != -1 and soft > hard:
            raise ConfigError(f"ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}")
        found[kind] = Ulimit(kind, soft, hard)
    return found


def _file_pools(name: str, value: Any) -> tuple[AddressPool, ...]:
    return tuple(
        pool(str(_typed(name, each, dict, "ipamutils.NetworkToSplit").get("base", "")), each.get("size", 0))
        for each in _typed(name, value, list, "[]*ipamutils.NetworkToSplit")
    )


def _sized(name: str, entry: dict[str, Any], *keys: str) -> int | str:
    """The value of the first existing key: "20GB", "10%" of the disk, or bytes; 0 if there is none."""
    for key in keys:
        value = entry.get(key)
        if isinstance(value, str) and re.fullmatch(r"\d{1,2}%", value):
            return value
        if isinstance(value, str) and value:
            return parse_size(value)
        if value:
            return int(_typed(name, value, int, "int64"))
    return 0


_GC_KEYS = {"enabled", "policy", "defaultKeepStorage", "defaultReservedSpace", "defaultMaxUsedSpace"}
_RULE_KEYS = {"all", "filter", "keepStorage", "reservedSpace", "maxUsedSpace", "minFreeSpace"}


def _known(name: str, entry: Any, keys: set[str]) -> dict[str, Any]:
    entry = _typed(name, entry or {}, dict, "config.BuilderConfig")
    if unknown := entry.keys() - keys:
        raise ConfigError(f"{name}.{min(unknown)} is not supported")
    return dict(entry)


def _rule(entry: Any) -> GcRule:
    name = "builder.gc.policy"
    entry = _known(name, entry, _RULE_KEYS)
    given = entry.get("filter") or []
    # Also in the API's form of filters: {"unused-for": {"48h": true}}.
    pairs = (
        [f"{key}={value}" for key, values in given.items() for value in values] if isinstance(given, dict) else given
    )
    filters = [text.replace("==", "=").partition("=") for text in _texts(name, pairs)]
    return GcRule(
        filters=tuple((key, value) for key, _, value in filters),
        everything=_typed(name, entry.get("all", False), bool, "bool"),
        reserved=_sized(name, entry, "reservedSpace", "keepStorage"),
        most=_sized(name, entry, "maxUsedSpace"),
        free=_sized(name, entry, "minFreeSpace"),
    )


def _file_builder(name: str, value: Any) -> BuilderGc:
    entry = _known("builder.gc", _known(name, value, {"gc"}).get("gc"), {*_GC_KEYS, "defaultMinFreeSpace"})
    return BuilderGc(
        enabled=_typed("builder.gc", entry.get("enabled", True), bool, "bool"),
        rules=tuple(
            _rule(each) for each in _typed("builder.gc", entry.get("policy") or [], list, "[]config.BuilderGCRule")
        ),
        reserved=_sized("builder.gc", entry, "defaultReservedSpace", "defaultKeepStorage") or "10%",
        most=_sized("builder.gc", entry, "defaultMaxUsedSpace"),
        free=_sized("builder.gc", entry, "defaultMinFreeSpace"),
    )


def from_file(kind: Kind, name: str, value: Any) -> Any:
    """The value of a key of ``daemon.json``.

    :raises ConfigError: with the sentence of Go's JSON decoder.
    """
    readers: Mapping[Kind, Callable[[], Any]] = {
        Kind.TEXT: lambda: _typed(name, value, str, "string"),
        Kind.BOOL: lambda: _typed(name, value, bool, "bool"),
        Kind.INT: lambda: _typed(name, value, int, "int"),
        Kind.BYTES: lambda: parse_size(value) if isinstance(value, str) else _typed(name, value, int, "opts.MemBytes"),
        Kind.LIST: lambda: (value,) if name in _ONE_OR_MANY and isinstance(value, str) else _texts(name, value),
        Kind.MAP: lambda: _text_map(name, value),
        Kind.ULIMITS: lambda: _file_ulimits(name, value),
        Kind.POOLS: lambda: _file_pools(name, value),
        Kind.RUNTIMES: lambda: _file_runtimes(name, value),
        Kind.NETWORK_OPTS: lambda: {
            driver: _text_map(name, options)
            for driver, options in _typed(name, value, dict, "map[string]map[string]string").items()
        },
        Kind.BUILDER: lambda: _file_builder(name, value),
        Kind.SWITCHES: lambda: _typed(name, value, dict, "map[string]bool"),
    }
    return readers[kind]()


_ONE_OR_MANY = frozenset({"host-gateway-ips"})
