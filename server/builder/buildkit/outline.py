"""The inputs of a target and of its stages: build arguments, secrets and SSH agents."""

import re
from collections.abc import Mapping

from server.builder.dockerfile.errors import Span
from server.builder.dockerfile.instructions import Arg, Copy, Dockerfile, Run, Stage

Found = dict[str, dict[str, object]]

_VARIABLE = re.compile(r"\$\{?(\w+)")


def location(span: Span) -> dict[str, object]:
    """Encode Dockerfile lines as clients expect."""
    return {"ranges": [{"start": {"line": span.first}, "end": {"line": span.last}}]}


class Outline:
    """Collects inputs from a stage and the stages that it needs; of equal names, the later stage's counts."""

    def __init__(self, file: Dockerfile, given: Mapping[str, str]) -> None:
        self._file, self._given = file, given
        self._names = {stage.base.name: stage.index for stage in file.stages if stage.base.name}
        self._global = {name: (item, value) for item in file.arguments for name, value in item.values}
        self._seen: set[int] = set()
        self._found: dict[str, tuple[tuple[int, int], dict[str, object]]] = {}
        self.secrets: Found = {}
        self.agents: Found = {}

    @property
    def args(self) -> Found:
        """The arguments, in the order of their declarations."""
        found = sorted(self._found.items(), key=lambda item: item[1][0])
        return {name: document for name, (_, document) in found}

    def stage(self, index: int) -> None:
        """Add a stage, after the stages that it needs."""
        if index in self._seen:
            return
        self._seen.add(index)
        stage = self._file.stages[index]
        for word in (stage.base.image, stage.base.platform):
            for name in _VARIABLE.findall(word):
                if name in self._global:
                    self._argument(name, *self._global[name])
        for name in self._needs(stage):
            below = self._names.get(name.lower(), int(name) if name.isdigit() else -1)
            if 0 <= below < index:
                self.stage(below)
        for item in stage.instructions:
            if isinstance(item, Arg):
                for name, value in item.values:
                    if value is None and name in self._global:
                        self._argument(name, *self._global[name])
                    else:
                        self._argument(name, item, value)
            elif isinstance(item, Run):
                self._mounts(item)

    @staticmethod
    def _needs(stage: Stage) -> list[str]:
        names = [stage.base.image]
        for item in stage.instructions:
            if isinstance(item, Copy):
                names.append(item.from_)
            elif isinstance(item, Run):
                names += [mount.from_ for mount in item.mounts]
        return [name for name in names if name]

    def _argument(self, name: str, item: Arg, value: str | None) -> None:
        document: dict[str, object] = {
            "name": name,
            "description": item.comments.get(name, ""),
            "value": self._given.get(name, value or ""),
            "location": location(item.span),
        }
        self._found[name] = ((item.span.first, len(self._found)), document)

    def _mounts(self, item: Run) -> None:
        for mount in item.mounts:
            where = {"location": location(item.span)}
            name = mount.id or mount.source
            if mount.type == "secret":
                name = name or mount.target.rpartition("/")[2]
                self.secrets[name] = {"name": name, "required": mount.required, **where}
            elif mount.type == "ssh":
                self.agents[name or "default"] = {"name": name or "default", "required": mount.required, **where}
