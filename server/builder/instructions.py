"""Applies Dockerfile instructions to an image's configuration, with the builder's parser and planner."""

from collections.abc import Mapping, Sequence
from typing import Any

from engine.common.errors import Reason, WharfError, invalid
from server.builder.dockerfile import instructions as ins
from server.builder.dockerfile.parse import parse_in_thread, parse_instruction
from server.builder.plan.plan import BaseImage, Options, plan
from server.builder.plan.steps import Base

_ALLOWED = {
    ins.Command: ("cmd", "entrypoint"),
    ins.Healthcheck: ("healthcheck",),
    ins.Env: ("env",),
    ins.Expose: ("expose",),
    ins.Label: ("label",),
    ins.OnBuild: ("onbuild",),
    ins.StopSignal: ("stopsignal",),
    ins.User: ("user",),
    ins.Volume: ("volume",),
    ins.Workdir: ("workdir",),
}


class _Given:
    """Provides the base image of the generated Dockerfile: the configuration to change."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config = config

    def named_context(self, name: str) -> str | None:
        return None

    async def image(self, ref: str, *, platform: str, step: str) -> BaseImage:
        return BaseImage(Base(ref, "", "", ()), {"os": "linux", "architecture": "amd64", "config": dict(self._config)})


async def apply_instructions(config: Mapping[str, Any], lines: Sequence[str]) -> dict[str, Any]:
    """Apply the instructions to an image config's ``config`` object; return the new object.

    :raises WharfError: INVALID_ARGUMENT for an instruction that is not allowed.
    """
    triggers = list(config.get("OnBuild") or ())
    kept: list[str] = []
    for line in lines:
        try:
            instruction = parse_instruction(line)
        except WharfError as error:
            if error.reason is Reason.UNKNOWN_INSTRUCTION:
                raise invalid(f"{line.split()[0]} is not a valid change command") from None
            raise invalid(error.message) from None
        if type(instruction) not in _ALLOWED:
            raise invalid(f"{line.split()[0]} is not a valid change command")
        if isinstance(instruction, ins.OnBuild):
            triggers.append(instruction.text)
        else:
            kept.append(line)
    # Remove ONBUILD first: as a base image's triggers, its instructions would run.
    base = {key: value for key, value in config.items() if key != "OnBuild"}
    result = base
    if kept:
        try:
            options = Options(classic=True, default_path=False)
            made = await plan(await parse_in_thread("\n".join(("FROM base", *kept))), options, _Given(base))
        except WharfError as error:
            raise invalid(error.message) from None
        result = made.target.config.container()
    if triggers:
        result["OnBuild"] = triggers
    return {key: value for key, value in result.items() if value is not None}
