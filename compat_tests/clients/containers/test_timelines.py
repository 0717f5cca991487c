"""Timelines of real operations: a container's create, start and exit, a pull, and builds of both builders."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from compat_tests.clients.builder.builds import Case, by_buildx, classic
from compat_tests.support.containers import container
from compat_tests.support.daemons import run_program
from compat_tests.support.engines import Engine
from compat_tests.support.images import docker_archive
from compat_tests.support.polling import until
from compat_tests.support.servers.registry import Registry
from compat_tests.support.transfers import unique_layers

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def of_wharf(engine: Engine) -> None:
    if engine.kind == "dockerd":
        pytest.skip("dockerd has no timelines")


def timelines(engine: Engine, path: str, **query: str) -> dict[str, dict[str, Any]]:
    """By operation; checks that phases are within the operation's time, and each part within its phase's."""
    answer = engine.api.get(f"/wharf/v1{path}", **query)
    assert answer.status == 200
    found = {row["Operation"]: row for row in answer.json()}
    for row in found.values():
        for phase in row["Phases"]:
            assert -1e-3 <= phase["Begin"] <= phase["End"] <= row["Seconds"] + 1e-3, row
            outer = [each for each in row["Phases"] if each["Name"] == phase.get("Within")]
            assert not outer or any(
                each["Begin"] - 1e-3 <= phase["Begin"] and phase["End"] <= each["End"] + 1e-3 for each in outer
            ), phase
    return found


def names(timeline: dict[str, Any], within: str = "") -> list[str]:
    return [phase["Name"] for phase in timeline["Phases"] if phase.get("Within", "") == within]


@pytest.mark.core
def test_a_container(engine: Engine) -> None:
    with container(engine, Cmd=["sh", "-c", "exit 3"]) as box:
        path = f"/containers/{box}/timeline"
        assert until(lambda: "exit" in timelines(engine, path))
        found = timelines(engine, path)
        assert list(found) == ["create", "start", "exit"]
        assert {row["Subject"] for row in found.values()} == {box}
        start = found["start"]
        assert names(start) == ["network", "mounts", "spec", "container", "task", "start", "save"]
        if engine.kind == "wharf":
            # Our supervisor returns the phases of its part.
            assert names(start, "task") == ["bundle", "fork", "mounts", "create"]
            assert names(start, "create") == ["runtime"]
        # The phases are all of it: what is slow is in one of them.
        outer = [phase for phase in start["Phases"] if "Within" not in phase]
        ends = [0.0, *(phase["End"] for phase in outer)]
        assert [phase["Begin"] for phase in outer] == pytest.approx(ends[:-1], abs=1e-5)
        argv = [sys.executable, "-m", "server.cli", "timeline", box[:12]]
        shown = run_program(argv, env={"PYTHONPATH": str(ROOT), "DOCKER_HOST": engine.host}).stdout
        assert f"start  {box[:12]}  {1000 * start['Seconds']:.1f} ms" in shown


def test_a_start_that_fails(engine: Engine) -> None:
    with container(engine, start=False, Cmd=["/no/such/program"]) as box:
        message = engine.api.post(f"/containers/{box}/start").message
        start = timelines(engine, f"/containers/{box}/timeline")["start"]
        assert start["Result"] == "failed"
        assert message[:200] in start["Error"] or start["Error"] in message
        assert names(start)[-1] == "container", "the task is what failed"


def test_a_pull(engine: Engine, plain_registry: Registry) -> None:
    plain_registry.copy_archive(docker_archive("timed:1", unique_layers()), "timed:1")
    name = plain_registry.name("timed") + ":1"
    engine.docker("pull", "-q", name)
    pull = timelines(engine, "/timelines", subject=name)["pull"]
    assert names(pull)[0] == "manifest"
    kinds = {name.partition(" ")[0] for name in names(pull)}
    assert kinds == {"manifest", "fetch", "unpack"}
    engine.docker("rmi", name)


def _classic(engine: Engine, case: Case, folder: Path) -> None:
    assert not classic(engine, case, t="timed").error


def _buildx(engine: Engine, case: Case, folder: Path) -> None:
    assert by_buildx(engine, case, folder, "-t", "timed").status == 0


@pytest.mark.parametrize(
    ("build", "first", "last"),
    [
        (_classic, [], []),
        (_buildx, ["[internal] load build definition from Dockerfile"], ["exporting to image"]),
    ],
)
def test_builds(
    engine: Engine, tmp_path: Path, build: Callable[..., None], first: Sequence[str], last: Sequence[str]
) -> None:
    build(engine, Case(f"FROM busybox\nRUN echo {build.__name__} > /file\n"), tmp_path / "context")
    *_, made = [row for row in engine.api.get("/wharf/v1/timelines").json() if row["Operation"] == "build"]
    assert made["Result"] == "done"
    outer = names(made)
    assert outer[: len(first)] == first
    assert outer[len(outer) - len(last) :] == last
    (step,) = [name for name in outer if "RUN echo" in name]
    assert names(made, within=step) == [
        *("network", "mounts, spec", "container", "task", "start", "process", "output"),
        *("run", "difference", "end of the task", "commit"),
    ]
    engine.docker("rmi", "timed")
