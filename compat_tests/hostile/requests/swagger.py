"""Generates requests from the published description of the API (Swagger 2.0), valid and invalid ones, by a seed.

Not schemathesis: it uses HTTP over TCP, waits for the end of every answer (attach, events, logs and statistics have
none), knows no names of existing objects, and depends on twenty packages.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes

#: Groups that are refused completely, as they need a swarm.
REFUSED = ("/swarm", "/nodes", "/services", "/tasks", "/secrets", "/configs", "/plugins")
#: Values that are invalid everywhere, or nearly.
HOSTILE: tuple[Any, ...] = (
    None,
    "",
    " ",
    "\0",
    "a\0b",
    "\ud800",
    "a\u202eb\n\r\t\x1b[31m",
    "\U0001f600" * 50,
    "a" * 5000,
    "/" * 300,
    "../../../etc/passwd",
    "%00%2e%2e%2f",
    "[a-z",
    "(((((",
    "*" * 40,
    "{{.Name}}{{range",
    "$(reboot)",
    "${A:-${B:-",
    "sha256:" + "0" * 64,
    "sha256:zz",
    "127.0.0.1:1/a/b:c@sha256:" + "f" * 64,
    "-1",
    "0",
    "1e999",
    "18446744073709551616",
    "0x10",
    "true",
    "a=b=c",
    "=",
    ":",
    ",",
    "::1",
    "999.999.999.999/99",
    -1,
    0,
    1,
    2**31,
    2**53 + 1,
    2**63 - 1,
    -(2**63),
    2**64,
    10**400,
    1.5,
    1e308,
    True,
    False,
    [],
    {},
    [None],
    [[]],
    {"": ""},
    {"a": None},
    {"\0": {"\ud800": []}},
)
_METHODS = ("get", "post", "put", "delete", "head")
#: Fields that could harm this host or disturb other tests: left out of every body.
_LEFT_OUT = frozenset(
    {
        "ArgsEscaped",
        "Sysctls",
        "CgroupParent",
        "Privileged",
        "PidMode",
        "UTSMode",
        "Devices",
        "DeviceCgroupRules",
        "CapAdd",
    }
)
#: Fields that a body needs to pass its first checks.
_LIKELY: dict[str, dict[str, Any]] = {
    "ContainerExec": {"Cmd": ["true"], "ConsoleSize": None},
    "NetworkConnect": {"Container": "fuzz-running"},
    "NetworkDisconnect": {"Container": "fuzz-running"},
    "VolumeCreate": {"ClusterVolumeSpec": None, "Driver": "local"},
}


@dataclass(frozen=True, slots=True)
class Request:
    """One request. ``operation``: its name in the description."""

    operation: str
    method: str
    target: str
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        headers = "".join(f" {name}={value[:60]!r}" for name, value in self.headers.items())
        return f"{self.operation}: {self.method} {self.target[:300]}{headers} {self.body[:400]!r}"


class Description:
    """The parts of the API description that requests need."""

    def __init__(self, path: Path) -> None:
        import yaml

        self._document: dict[str, Any] = yaml.load(
            path.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        )
        self.operations = [
            (method.upper(), route, operation)
            for route, methods in self._document["paths"].items()
            for method, operation in methods.items()
            if method in _METHODS
        ]

    def resolved(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        while "$ref" in schema:
            at: Any = self._document
            for part in schema["$ref"].removeprefix("#/").split("/"):
                at = at[part]
            schema = at
        if "allOf" not in schema:
            return schema
        merged: dict[str, Any] = {"type": "object", "properties": {}}
        for part in schema["allOf"]:
            merged["properties"] |= self.resolved(part).get("properties", {})
        return merged


class Generator:
    """Generates requests in an order by the seed. ``names``: existing objects by the first segment of the path."""

    def __init__(self, description: Description, seed: int, names: Mapping[str, Sequence[str]]) -> None:
        self._description = description
        self._random = random.Random(seed)
        self._names = names
        self._spoilt = 0.0

    def endless(self) -> Iterator[Request]:
        """Yield every operation once, in random order, repeatedly."""
        while True:
            operations = list(self._description.operations)
            self._random.shuffle(operations)
            for method, route, operation in operations:
                if route.startswith(REFUSED) and self._random.random() < 0.8:
                    continue  # a third of the API, and always the same answer
                if route.endswith("/push") and self._random.random() < 0.8:
                    continue  # retried for seconds
                yield self._request(method, route, operation)

    def _request(self, method: str, route: str, operation: Mapping[str, Any]) -> Request:
        chance = self._random
        # Most requests have few faults: many faults would all fail the first check.
        self._spoilt = chance.choice((0.0, 0.03, 0.1, 0.5))
        target, query, headers, body = route, [], {}, b""
        for parameter in operation.get("parameters", ()):
            name, location = parameter["name"], parameter["in"]
            if location == "path":
                target = target.replace(f"{{{name}}}", quoted(self._name(route)))
            elif location == "body":
                body = self._body(operation["operationId"], parameter.get("schema", {}))
            elif chance.random() < 0.5:
                value = self._parameter(name, parameter)
                if location == "query":
                    query.append(f"{name}={quoted(value)}")
                else:
                    headers[name] = quoted(value)[:4000]
        if body:
            kinds = ["application/json", *operation.get("consumes", ())]
            headers["Content-Type"] = "application/json" if "application/json" in kinds[1:] else kinds[-1]
            if chance.random() < 0.02:
                headers["Content-Type"] = chance.choice(("", "text/plain", "application/json; charset", "\xff"))
        if chance.random() < 0.2:
            target = f"/v1.{chance.choice((24, 30, 41, 44, 47, 51))}{target}"
        return Request(
            operation["operationId"], method, target + ("?" + "&".join(query) if query else ""), body, headers
        )

    def _name(self, route: str) -> str:
        chance = self._random
        known = self._names.get(route.split("/")[1], ())
        if known and chance.random() < 0.85:
            return chance.choice(known)
        value = text(chance.choice(HOSTILE))
        return "x" if value in ("", ".", "..") else value

    def _parameter(self, name: str, parameter: Mapping[str, Any]) -> str:
        chance = self._random
        if name == "container" and chance.random() < 0.8:
            return "fuzz-stopped"
        if name == "t":  # the timeout of a stop, in seconds
            return chance.choice(("0", "1", "-1", "x"))
        if name in ("fromImage", "repo", "remote", "fromSrc"):  # keep requests on this host
            return chance.choice(("127.0.0.1:1/a", "fuzz", "http://127.0.0.1:1/x", "-", "127.0.0.1:1/\0"))
        if name in ("filters", "buildargs", "labels", "cachefrom") and chance.random() < 0.8:
            keys = ("label", "name", "id", "status", "until", "reference", "type", "driver", "dangling", "a", "label!")
            values: Any = [text(self._value({"type": "string"}, 3)) for _ in range(chance.randrange(3))]
            if name in ("buildargs", "labels"):
                values = text(chance.choice(HOSTILE))
            elif chance.random() < 0.3:
                values = dict.fromkeys(values, True)
            return json.dumps({chance.choice(keys): values})
        return text(self._value(parameter, 0))

    def _body(self, operation: str, schema: Mapping[str, Any]) -> bytes:
        chance = self._random
        if schema.get("format") == "binary":
            return chance.randbytes(chance.choice((0, 1, 511, 512, 5000)))
        value = self._value(schema, 0)
        if isinstance(value, dict) and chance.random() < 0.9:
            value |= _LIKELY.get(operation, {})
        if operation == "NetworkCreate" and isinstance(value, dict) and chance.random() < 0.8:
            value["Name"] = f"fuzz-{chance.randrange(1000)}"
        if operation == "ContainerCreate" and isinstance(value, dict):
            value["Image"] = chance.choice(("busybox", "busybox", "busybox", text(chance.choice(HOSTILE))))
            value["Cmd"] = chance.choice((["true"], ["sleep", "100"], ["cat"], value.get("Cmd")))
            value.pop("Entrypoint", None)
            host = value.get("HostConfig")
            if isinstance(host, dict):
                host["NetworkMode"] = chance.choice(("none", "default", "fuzz-network", "container:fuzz-running"))
                host["Binds"] = chance.choice(([], ["fuzz-volume:/data"], [text(chance.choice(HOSTILE)) + ":/x"]))
        data = json.dumps(value, ensure_ascii=chance.random() < 0.8).encode("utf-8", "surrogatepass")
        if chance.random() < 0.08:
            at = chance.randrange(len(data) + 1)
            data = chance.choice((data[:at], data[:at] + b"\xff\x00" + data[at:], data + data, b"[" * 3000, b""))
        return data

    def _value(self, schema: Mapping[str, Any], depth: int) -> Any:
        """Return a value of this schema, or another one."""
        chance = self._random
        if chance.random() < self._spoilt or depth > 8:
            return chance.choice(HOSTILE)
        schema = self._description.resolved(schema)
        match schema.get("type"):
            case "object":
                found: dict[str, Any] = {}
                often = chance.choice((0.03, 0.1, 0.4))
                for name, each in schema.get("properties", {}).items():
                    if name not in _LEFT_OUT and chance.random() < often:
                        found[name] = self._value(each, depth + 1)
                more = schema.get("additionalProperties")
                for _ in range(chance.randrange(3) if isinstance(more, dict) else 0):
                    key = chance.choice(("a", "80/tcp", "/data", "fuzz-network", text(chance.choice(HOSTILE))))
                    found[key] = self._value(more, depth + 1) if isinstance(more, dict) else {}
                return found
            case "array":
                return [self._value(schema.get("items", {}), depth + 1) for _ in range(chance.randrange(3))]
            case "integer":
                return chance.choice((0, 1, 2, 10, 100, 5_000_000, 64 << 20))
            case "number":
                return chance.choice((0, 0.5, 1))
            case "boolean":
                return chance.random() < 0.5
        if "enum" in schema:
            return chance.choice(schema["enum"])
        plain = ("", "a", "fuzz", "fuzz-volume", "fuzz-network", "busybox", "1", "/data", "10.11.12.0/24", "tcp", "10")
        return schema["example"] if "example" in schema and chance.random() < 0.2 else chance.choice(plain)


def text(value: Any) -> str:
    """Format a value as a query parameter."""
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value)


def quoted(value: str) -> str:
    return quote_from_bytes(value.encode("utf-8", "surrogatepass"), safe="")
