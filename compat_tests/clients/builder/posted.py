"""``POST /build?version=2``: a build by BuildKit without buildx."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

from compat_tests.clients.builder.builds import Case
from compat_tests.clients.builder.control import pb
from compat_tests.support.api import Answer
from compat_tests.support.engines import Engine

DOCKERFILE = (
    "FROM busybox AS base\nARG A=1\nLABEL own=$A\nCOPY f /f\n"
    "RUN --mount=type=cache,target=/c echo ran $A; cat /f\nFROM base\nENV LAST=1\n"
)


@dataclass(frozen=True, slots=True)
class Posted:
    """The answer of such a build."""

    answer: Answer

    @property
    def messages(self) -> list[dict[str, Any]]:
        return self.answer.lines()

    @property
    def statuses(self) -> list[Any]:
        found = [item["aux"] for item in self.messages if item.get("id") == "moby.buildkit.trace"]
        return [pb.StatusResponse.FromString(base64.b64decode(data)) for data in found]

    @property
    def steps(self) -> dict[str, Any]:
        """Return the vertexes by name, in their final state."""
        return {vertex.name: vertex for status in self.statuses for vertex in status.vertexes}

    @property
    def output(self) -> str:
        return b"".join(log.msg for status in self.statuses for log in status.logs).decode()

    @property
    def image(self) -> str:
        assert self.messages[-1]["id"] == "moby.image.id", self.messages[-1]
        return str(self.messages[-1]["aux"]["ID"])

    @property
    def error(self) -> str:
        if self.answer.status != 200:
            return self.answer.message
        last = self.messages[-1]
        assert last.get("errorDetail", {}).get("message") == last.get("error")
        return str(last.get("error", ""))


def post(engine: Engine, body: bytes, **query: object) -> Posted:
    headers = {"Content-Type": "application/x-tar"}
    return Posted(
        engine.api.request("POST", "/build", query={"version": 2, **query}, body=body, headers=headers, timeout=110)
    )


def context(dockerfile: str = DOCKERFILE, name: str = "Dockerfile") -> bytes:
    files = {"f": "data\n"} if name == "Dockerfile" else {"f": "data\n", name: dockerfile}
    return Case(dockerfile if name == "Dockerfile" else "", files).context()
