"""Checks a JSON answer against the schema of its operation.

The description is looser in one point than what Go programs send: an empty array or object may be null. A name that the
description lacks is an error, unless :data:`KEPT` lists it: such a name is most often misspelt.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from compat_tests.swagger.document import Description, described, split

if TYPE_CHECKING:
    import requests

Schema = Mapping[str, Any]

#: Names that answers keep although the description has dropped them (the feature strict-api drops them, too), by
#: definition or operation.
KEPT: Mapping[str, Collection[str]] = {
    "NetworkSettings": {
        *("Bridge", "HairpinMode", "LinkLocalIPv6Address", "LinkLocalIPv6PrefixLen", "SecondaryIPAddresses"),
        *("SecondaryIPv6Addresses", "EndpointID", "Gateway", "GlobalIPv6Address", "GlobalIPv6PrefixLen", "IPAddress"),
        *("IPPrefixLen", "IPv6Gateway", "MacAddress"),
    },
    "ContainerConfig": {"MacAddress"},
    "HostConfig": {"KernelMemoryTCP"},
    "SystemInfo": {"KernelMemoryTCP"},
    "ImageInspect": {"DockerVersion", "Parent"},
    "NetworkSummary": {"Containers"},
    "GET /system/df": {"LayersSize", "Images", "Containers", "Volumes", "BuildCache"},
    # Described as HealthCheck, which dockerd has never sent.
    "TaskSpec": {"Healthcheck"},
}
#: Numbers that are null while they are not set, in dockerd, too.
NULLS: Mapping[str, Collection[str]] = {"HostConfig": {"MemorySwappiness"}, "GET /exec/{id}/json": {"ExitCode"}}

#: Names that dockerd and its clients spell in another way, by operation: as described, and as they are sent.
SPELLED: Mapping[str, tuple[str, str]] = {"POST /secrets/create": ("Id", "ID"), "POST /configs/create": ("Id", "ID")}

#: Values that a plugin chooses: the description names only the built-in log drivers, and only objects in the status of
#: a volume. By definition, the end of the path in the answer.
OF_PLUGINS: Mapping[str, str] = {"HostConfig": ".LogConfig.Type", "Volume": ".Status"}

_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
}


class Deviation(AssertionError):
    """An answer that its description doesn't allow; the text names operation, path in the answer and value."""


def check(method: str, target: str, status: int, media_type: str, newest: str, body: bytes) -> None:
    """Check a complete answer. ``target``: the path as it was sent. ``newest``: the daemon's newest version, which a
    path without version means. Answers of versions without a description are not checked.

    :raises Deviation: the first deviations of the answer.
    """
    version, path = split(target)
    description = described(version or newest)
    if description is None or media_type.partition(";")[0] != "application/json" or not body.strip():
        return
    operation = description.find(method, path)
    if operation is None:
        return
    if status >= 400:
        schema: Schema | None = {"$ref": "#/definitions/ErrorResponse"}
    elif status not in range(200, 300):
        return
    elif str(status) in operation.answers:
        schema = operation.answers[str(status)]
    else:
        raise Deviation(f"{operation.name}: the status {status} is not described")
    if schema is None:
        return
    try:
        document = json.loads(body)
    except ValueError:
        return  # a stream of objects
    if operation.name in SPELLED and isinstance(document, dict):
        described_name, sent = SPELLED[operation.name]
        document = {described_name if key == sent else key: value for key, value in document.items()}
    found = list(_Checker(description, operation.name).deviations(schema, document, "", operation.name))
    if found:
        raise Deviation(f"{operation.name} (API {version or newest}): " + "; ".join(found[:10]))


def check_response(response: requests.Response, *_: object, stream: bool = False, **__: object) -> None:
    """Check an answer that docker-py gets (a hook of its session); streams are not checked.

    :raises Deviation: the answer deviates from the API description.
    """
    if not stream:
        media_type, newest = (response.headers.get(name, "") for name in ("Content-Type", "Api-Version"))
        sent = response.request
        check(sent.method or "", sent.path_url, response.status_code, media_type, newest, response.content)


class _Checker:
    def __init__(self, description: Description, operation: str) -> None:
        self._definitions = description.definitions
        self._operation = operation

    def deviations(self, schema: Schema, value: Any, path: str, name: str) -> Iterator[str]:
        """Yield a line for each deviation of ``value``. ``name``: the definition that the schema is part of."""
        if "$ref" in schema:
            name = str(schema["$ref"]).rpartition("/")[2]
            schema = self._definitions[name]
        if name in OF_PLUGINS and path.endswith(OF_PLUGINS[name]):
            return
        properties, required = self._members(schema)
        kind = schema.get("type") or ("object" if properties else "")
        if value is None:
            nullable = kind in ("array", "object", "") or schema.get("x-nullable")
            if not nullable and path.rpartition(".")[2] not in NULLS.get(name, ()):
                yield f"{path or '.'} is null, not {kind}"
            return
        if kind and not _is(value, kind):
            yield f"{path or '.'} is {value!r}, not {kind}"
        elif "enum" in schema and value not in schema["enum"]:
            yield f"{path or '.'} is {value!r}, none of {schema['enum']}"
        elif isinstance(value, list):
            for index, each in enumerate(value):
                yield from self.deviations(schema.get("items") or {}, each, f"{path}[{index}]", name)
        elif isinstance(value, dict):
            yield from self._object(schema, properties, required, value, path, name)

    def _members(self, schema: Schema) -> tuple[dict[str, Schema], set[str]]:
        """Return the properties of an object by name, and the names of those that are required."""
        found: dict[str, Schema] = {}
        required = set(schema.get("required", ()))
        for part in schema.get("allOf", ()):
            inner = self._definitions[part["$ref"].rpartition("/")[2]] if "$ref" in part else part
            more, names = self._members(inner)
            found |= more
            required |= names
        return found | dict(schema.get("properties") or {}), required

    def _object(
        self,
        schema: Schema,
        properties: Mapping[str, Schema],
        required: Collection[str],
        value: Mapping[str, Any],
        path: str,
        name: str,
    ) -> Iterator[str]:
        # The description of a manifest's ImageData requires a name (UnpackedSize) that it doesn't describe.
        for missing in sorted((set(required) & properties.keys()) - value.keys()):
            yield f"{path}.{missing} is missing"
        rest = schema.get("additionalProperties")
        for key, each in value.items():
            if key in properties:
                yield from self.deviations(properties[key], each, f"{path}.{key}", name)
            elif rest is not None:
                yield from self.deviations(rest, each, f"{path}[{key!r}]", name)
            elif properties and key not in KEPT.get(name, ()):
                yield f"{path}.{key} ({each!r}) is not described in {name}"


def _is(value: object, kind: str) -> bool:
    return isinstance(value, _TYPES[kind]) and not (isinstance(value, bool) and kind in ("integer", "number"))
