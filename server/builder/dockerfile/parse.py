"""Parses a Dockerfile: its arguments, stages and instructions."""

import asyncio
import functools

from server.builder.dockerfile import instructions as ins
from server.builder.dockerfile.errors import DockerfileError, Span
from server.builder.dockerfile.instruction_parser import Parser
from server.builder.dockerfile.lines import Line, Source, split


def parse_instruction(text: str, *, escape: str = "\\", span: Span | None = None) -> ins.Instruction:
    """Parse a single instruction: an ``ONBUILD`` trigger of the base image, or ``commit --change``.

    Raises :class:`DockerfileError`.
    """
    source = split(text)
    if len(source.lines) != 1:
        raise DockerfileError("one instruction was expected", span)
    line = source.lines[0]
    return Parser(escape).instruction(Line(line.text, span or line.span, line.heredocs))


def parse(text: str) -> ins.Dockerfile:
    """Parse a Dockerfile. Raises :class:`DockerfileError` with the lines concerned."""
    return _parse_cached(text) if len(text) < _SMALL else _parse(text)


async def parse_in_thread(text: str) -> ins.Dockerfile:
    """Like :func:`parse`, in a thread for a large text."""
    return await asyncio.to_thread(parse, text) if len(text) >= _SMALL else parse(text)


_SMALL = 1 << 14
"""The most characters of a Dockerfile whose parse is cached: most are built repeatedly."""


def _parse(text: str) -> ins.Dockerfile:
    source = split(text)
    parser = Parser(source.escape)
    if not source.lines:
        raise DockerfileError("file with no instructions", Span(1, max(1, len(source.physical))), numbered=False)
    for span in source.empty:
        parser.warn("NoEmptyContinuation", "Empty continuation line", span)
    try:
        return _file(source, parser)
    except DockerfileError as error:
        error.warnings = tuple(parser.warnings)
        raise


def _file(source: Source, parser: Parser) -> ins.Dockerfile:
    arguments: list[ins.Arg] = []
    stages: list[ins.Stage] = []
    base: ins.From | None = None
    body: list[ins.Instruction] = []

    def close() -> None:
        if base is not None:
            stages.append(ins.Stage(len(stages), base, tuple(body)))

    for line in source.lines:
        instruction = parser.instruction(line)
        if isinstance(instruction, ins.From):
            close()
            base, body = instruction, []
        elif base is not None:
            body.append(instruction)
        elif isinstance(instruction, ins.Arg):
            arguments.append(instruction)
        else:
            raise DockerfileError("no build stage in current context", line.span)
    close()
    if not stages:
        raise DockerfileError("no build stage in current context", source.lines[-1].span)
    return ins.Dockerfile(
        tuple(arguments),
        tuple(stages),
        source.directives,
        source.escape,
        tuple(source.physical),
        tuple(parser.warnings),
    )


_parse_cached = functools.lru_cache(maxsize=16)(_parse)
