"""The cost of planning is linear in the Dockerfile's text; expansion is limited."""

import asyncio
import contextlib
import functools
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from engine.common.errors import WharfError
from server.builder.dockerfile import patterns
from server.builder.dockerfile.errors import DockerfileError
from server.builder.dockerfile.expand import Budget, expand, expand_heredoc
from server.builder.dockerfile.parse import parse
from server.builder.dockerfile.words import take_flags
from server.builder.plan.journal import Journal, JournalMap
from server.builder.plan.plan import BaseImage, Options, Plan, plan
from server.builder.plan.steps import Base

GENEROUS = 60.0
"""Seconds; a quadratic or exponential algorithm would take hours."""


def run(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test in an event loop of its own."""

    @functools.wraps(test)
    def synchronous(*args: Any, **kwargs: Any) -> None:
        asyncio.run(asyncio.wait_for(test(*args, **kwargs), GENEROUS))

    return synchronous


class _Bases:
    def named_context(self, name: str) -> str | None:
        return None

    async def image(self, ref: str, *, platform: str, step: str) -> BaseImage:
        await asyncio.sleep(0)
        return BaseImage(Base(ref, "sha256:1", "", ()), {"os": "linux", "architecture": "amd64", "config": {}})


async def planned(*lines: str, classic: bool = False) -> Plan:
    return await plan(parse("\n".join(("FROM base", *lines))), Options(classic=classic), _Bases())


@run
async def test_expansion_is_bounded() -> None:
    lines = ["ENV A=aaaaaaaaaa", *["ENV A=$A$A$A$A$A$A$A$A$A$A"] * 10]
    with pytest.raises(DockerfileError, match=r"exceeds the limit EXPANSION_BYTES \(16777216\)"):
        await planned(*lines)


@pytest.mark.parametrize(
    "lines",
    [
        [f"ENV A={'a' * 500_000}", "ENV B=${A//a/$A}"],
        [f"ENV A={'a' * 100_000}", "COPY <<EOF /x", "$A" * 1000, "EOF"],
        [f"ENV A={'a' * 100_000}", *["RUN true"] * 1000],
        ["EXPOSE 1-65535"] * 100,
        [f"ARG A={'a' * 100_000}", "RUN --mount=type=bind,target=/" + "$A" * 1000 + " true"],
    ],
    ids=["replace", "heredoc", "environments", "ports", "mount"],
)
@run
async def test_growing_values_are_bounded(lines: list[str]) -> None:
    with pytest.raises(DockerfileError, match="EXPANSION_BYTES"):
        await planned(*lines)


@run
async def test_nesting_is_bounded() -> None:
    assert expand("${a:-" * 50 + "x" + "}" * 50, {}).text == "x"
    with pytest.raises(WharfError, match="EXPANSION_DEPTH"):
        expand("${a:-" * 50_000 + "}" * 50_000, {})
    stages = ["FROM s0 AS s1", *(f"FROM s{number} AS s{number + 1}" for number in range(1, 5000))]
    for classic in (True, False):
        with pytest.raises(WharfError, match="STAGE_DEPTH"):
            await plan(parse("\n".join(("FROM scratch AS s0", *stages))), Options(classic=classic), _Bases())


@pytest.mark.parametrize("word", ["ENV", "LABEL", "ARG", "VOLUME", "ONBUILD ENV"])
@run
async def test_many_instructions(word: str) -> None:
    begin = time.monotonic()
    lines = [f"VOLUME /a{number}" if word == "VOLUME" else f"{word} A{number}=x" for number in range(20_000)]
    made = await planned(*lines, classic=True)
    assert len(made.target.lines) == 20_000
    # Each line has the configuration after its own instruction.
    for number in (0, 9_999, 19_999):
        config = made.target.lines[number].config
        assert len(config.history) == number + 1
        container = config.container()
        key = {"ENV": "Env", "LABEL": "Labels", "VOLUME": "Volumes", "ONBUILD ENV": "OnBuild"}.get(word)
        if key is not None:
            found = container[key]
            assert isinstance(found, list | dict)
            assert len(found) == number + 1 + (1 if key == "Env" else 0)  # PATH
    assert time.monotonic() - begin < GENEROUS


@run
async def test_planning_does_not_block_the_loop() -> None:
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0.001)

    task = asyncio.create_task(turn())
    await planned(*[f"ENV A{number}=$A{number - 1}" for number in range(20_000)])
    task.cancel()
    assert turns > 20


@run
async def test_cancelled_plan_cancels_its_base() -> None:
    left = asyncio.Event()

    class Bases(_Bases):
        async def image(self, ref: str, *, platform: str, step: str) -> BaseImage:
            begun.set()
            try:
                await asyncio.sleep(3600)
            finally:
                left.set()
            raise AssertionError

    begun = asyncio.Event()
    task = asyncio.create_task(plan(parse("FROM base"), Options(), Bases()))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert left.is_set()


@pytest.mark.parametrize(
    "work",
    [
        lambda: take_flags("--a " * 200_000 + "x", "\\"),
        lambda: parse("#escape=" + "x" + " " * 900_000 + "y\nFROM a"),
        lambda: parse("X" * 900_000 + " y"),
        lambda: parse("FROM a\nRUN " + "[" * 400_000),
        lambda: parse("FROM a\nHEALTHCHECK --interval=" + "9" * 400 + "s CMD true"),
        lambda: parse("FROM a\nRUN " + "1" * 6000 + "<<EOF\nEOF"),
        lambda: parse("FROM a\nRUN --mount=type=bind,target=" + "a" * 200_000 + " true"),
        lambda: expand("${A#" + "*a" * 50 + "b}", {"A": "a" * 50_000}),
        lambda: expand("${A%%" + "*a" * 50 + "b}", {"A": "a" * 50_000}),
        lambda: expand("${A//" + "*a" * 30 + "b/x}", {"A": "a" * 50_000}),
        lambda: expand_heredoc("$A" * 10_000, {"A": "x"}, budget=Budget()),
    ],
)
def test_linear(work: Callable[[], object]) -> None:
    begin = time.monotonic()
    with contextlib.suppress(WharfError):  # some are refused; another exception would be an internal error
        work()
    assert time.monotonic() - begin < GENEROUS


def test_patterns() -> None:
    for pattern, value, greedy, rest in (
        ("*/", "a/b/c", False, "b/c"),
        ("*/", "a/b/c", True, "c"),
        ("a?", "abc", False, "c"),
        ("x", "abc", True, "abc"),
        (r"\*", "*a", True, "a"),
        ("*", "abc", True, ""),
        ("*", "abc", False, "abc"),
        ("a*b*c", "a1b2c3b4c5", False, "3b4c5"),
        ("a*b*c", "a1b2c3b4c5", True, "5"),
    ):
        assert patterns.strip_prefix(pattern, value, greedy=greedy) == rest, pattern
        turned = patterns.strip_suffix(pattern[::-1] if "\\" not in pattern else r"\*", value[::-1], greedy=greedy)
        assert turned == rest[::-1], pattern
    for pattern, value, everywhere, spans in (
        ("b", "abcb", True, [(1, 2), (3, 4)]),
        ("b", "abcb", False, [(1, 2)]),
        ("b*c", "abxcxcb", True, [(1, 6)]),
        ("*", "abc", True, [(0, 3)]),
        ("x*", "abc", True, []),
        ("?", "ab", True, [(0, 1), (1, 2)]),
    ):
        assert patterns.find(pattern, value, everywhere=everywhere) == spans, pattern
    assert patterns.replace("abcb", [(1, 2), (3, 4)], "-") == "a-c-"


def test_journals() -> None:
    first = Journal("ab")
    second = first.copy()
    first.append("c")
    second.append("d")
    assert (list(first), list(second), len(second)) == (["a", "b", "c"], ["a", "b", "d"], 3)
    values = JournalMap({"a": 1, "b": 2})
    copied = values.copy()
    values["a"] = 3
    copied["c"] = 4
    assert list(values.to_dict().items()) == [("a", 3), ("b", 2)]
    assert dict(copied.values) == {"a": 1, "b": 2, "c": 4}
