"""Build checks against recorded answers: what dockerd 28.5.2 reports for the Dockerfiles of ``checks.json``."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from server.builder.dockerfile import checks
from server.builder.dockerfile.errors import DockerfileError
from server.builder.dockerfile.parse import parse
from server.builder.plan.plan import BaseImage, Options, plan
from server.builder.plan.steps import Base
from server.registry.reference import parse as parse_reference

CASES: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("checks.json").read_text())


class Bases:
    """Resolves every image to busybox."""

    def named_context(self, name: str) -> str | None:
        return None

    async def image(self, ref: str, *, platform: str, step: str) -> BaseImage:
        parse_reference(ref)
        config = {"os": "linux", "architecture": "amd64", "config": {"Env": ["PATH=/bin"], "Cmd": ["sh"]}}
        return BaseImage(Base(ref, "sha256:0", "sha256:1", ()), config)


@pytest.mark.parametrize("name", sorted(CASES))
def test_found(name: str) -> None:
    case = CASES[name]
    error = ""
    file = None
    try:
        file = parse(case["dockerfile"])
        found = asyncio.run(plan(file, Options(platform="linux/amd64", build_platform="linux/amd64"), Bases())).warnings
    except DockerfileError as failed:
        error, found = failed.sentence, tuple(failed.warnings)
    directive = file.directives.get("check", "") if file is not None else ""
    chosen = checks.config(directive).select(list(dict.fromkeys(found)))
    assert error == case["error"]
    assert sorted([item.span.first, item.rule, item.message] for item in chosen) == sorted(case["found"])
    assert {item.rule for item in chosen} <= checks.RULES.keys()
