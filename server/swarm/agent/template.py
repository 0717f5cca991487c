"""Templates in a service's spec (hostname, environment, mounts) and in secrets and configs, with SwarmKit's fields.

Errors have SwarmKit's sentences; they reject the task.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from api_models.mount import Mount
from api_models.swarm.container import ContainerSpec
from api_models.swarm.node import NodeDescription
from engine.common.errors import invalid
from server.gotemplate.functions import BUILTINS, Struct
from server.gotemplate.parse import TemplateError
from server.gotemplate.template import render
from server.swarm.model.objects import Task

_NAME = "expansion"
_PLACE = re.compile(r"template: expansion:[0-9]+(:[0-9]+)?")


def _join(separator: str, *items: str) -> str:
    return separator.join(items)


_FUNCTIONS: Mapping[str, Callable[..., Any]] = {**BUILTINS, "join": _join}


def _fields(task: Task, node: NodeDescription) -> dict[str, Any]:
    return {
        "Service": Struct(
            "struct { ID string; Name string; Labels map[string]string }",
            ID=task.service_id,
            Name=task.service_name,
            Labels=dict(task.service_labels or {}),
        ),
        "Node": Struct(
            "struct { ID string; Hostname string; Platform template.Platform }",
            ID=task.node_id,
            Hostname=node.hostname,
            Platform=Struct(
                "template.Platform", Architecture=node.platform.architecture, OS=node.platform.os
            ),
        ),
        "Task": Struct(
            "struct { ID string; Name string; Slot string }", ID=task.id, Name=task.name, Slot=task.instance
        ),
    }  # fmt: skip


class _Expansion:
    """Expands texts with the fields of one task. A text without an action is not parsed."""

    def __init__(self, task: Task, node: NodeDescription) -> None:
        self._data = _fields(task, node)

    def text(self, source: str, what: str) -> str:
        """:raises WharfError: INVALID_ARGUMENT: ``what``, and the template's error."""
        if "{{" not in source:
            return source
        try:
            return render(
                _NAME, source, self._data, "template.Context", functions=_FUNCTIONS, missing_key_error=True
            )  # fmt: skip
        except TemplateError as error:
            raise invalid(f"{what}: {error}") from None

    def variable(self, entry: str) -> str:
        name, found, value = entry.partition("=")
        if not found:
            return entry
        return f"{name}={self.text(value, f'expanding env failed: expanding env {_quoted(entry)}')}"

    def mapping(self, values: Mapping[str, str], what: str) -> dict[str, str]:
        return {
            key: self.text(
                value, f"expanding mounts failed: {what}: expanding map entry {_quoted(key)}={_quoted(value)}"
            )
            for key, value in values.items()
        }

    def mount(self, mount: Mount) -> Mount:
        failed = "expanding mounts failed: expanding mount"
        volume = mount.volume_options
        if volume is not None and volume.labels is not None:
            volume = replace(volume, labels=self.mapping(volume.labels, "expanding volume labels"))
        if volume is not None and volume.driver_config is not None and volume.driver_config.options is not None:
            options = self.mapping(volume.driver_config.options, "expanding volume driver config")
            volume = replace(volume, driver_config=replace(volume.driver_config, options=options))
        return replace(
            mount,
            source=self.text(mount.source, f"{failed} source {_quoted(mount.source)}"),
            target=self.text(mount.target, f"{failed} target {_quoted(mount.target)}"),
            volume_options=volume,
        )


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def expand(spec: ContainerSpec, task: Task, node: NodeDescription) -> ContainerSpec:
    """The spec of a task's container with its templates expanded.

    :raises WharfError: INVALID_ARGUMENT: a template is malformed, or refers to what doesn't exist.
    """
    expansion = _Expansion(task, node)
    return replace(
        spec,
        env=None if spec.env is None else tuple(map(expansion.variable, spec.env)),
        mounts=None if spec.mounts is None else tuple(map(expansion.mount, spec.mounts)),
        hostname=expansion.text(spec.hostname, "expanding hostname failed"),
    )


@dataclass(frozen=True, slots=True)
class Targets:
    """What the functions ``secret``, ``config`` and ``env`` of a payload's template find. ``secrets`` and ``configs``:
    the data by the name of the file in the container; those that are templates themselves have the template's text."""

    secrets: Mapping[str, bytes]
    configs: Mapping[str, bytes]
    env: Mapping[str, str]


def expand_payload(data: bytes, task: Task, node: NodeDescription, targets: Targets, what: str) -> bytes:
    """The data of a secret or a config that is a template. ``what``: ``secret <id>`` or ``config <id>``.

    :raises WharfError: INVALID_ARGUMENT: where the template has an error, without any part of the data.
    """

    def getter(kind: str, found: Mapping[str, bytes]) -> Callable[[str], str]:
        def get(name: str) -> str:
            if name not in found:
                raise ValueError(f"{kind} target {name} not found")
            return found[name].decode("utf-8", "surrogateescape")

        return get

    functions = {
        **_FUNCTIONS,
        "secret": getter("secret", targets.secrets),
        "config": getter("config", targets.configs),
        "env": lambda name: targets.env.get(name, ""),
    }
    source = data.decode("utf-8", "surrogateescape")
    try:
        text = render(
            _NAME, source, _fields(task, node), "template.PayloadContext", functions=functions, missing_key_error=True
        )  # fmt: skip
    except TemplateError as error:
        # Not the whole error, which quotes the template.
        place = _PLACE.match(str(error))
        raise invalid(f"failed to expand templated {what}: {place[0] if place else 'invalid template'}") from None
    return text.encode("utf-8", "surrogateescape")
