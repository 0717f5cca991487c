"""The records of the build cache, and prunes by filters and sizes, compared with dockerd's BuildKit."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from compat_tests.clients.builder.buildx import needs_buildx
from compat_tests.support.engines import Dockerd, Engine

pytestmark = needs_buildx

DOCKERFILE = """FROM busybox
RUN head -c 300000 /dev/urandom > /one
RUN --mount=type=cache,target=/c echo two > /two; echo x > /c/x
COPY f /f
RUN cat /f
"""
COMMANDS = ("head -c 300000 /dev/urandom > /one", "echo two > /two; echo x > /c/x", "-c cat /f")


@pytest.fixture
def root(engine: Engine, tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "Dockerfile").write_text(DOCKERFILE)
    (tmp_path / "f").write_text("text\n")
    clear(engine)
    yield tmp_path
    engine.docker("rmi", "-f", "cached:1", check=False)
    clear(engine)


def clear(engine: Engine) -> None:
    engine.docker("builder", "prune", "-af")


def build(engine: Engine, root: Path) -> str:
    return engine.docker("buildx", "build", "--progress=plain", "-t", "cached:1", str(root), timeout=110).stderr


def records(engine: Engine) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = engine.api.get("/system/df", type="build-cache").json()["BuildCache"]
    return found


def list_or_error(engine: Engine, *filters: str) -> str:
    """Run `buildx du`; return the error, or the number of records."""
    args = [word for text in filters for word in ("--filter", text)]
    done = engine.docker("buildx", "du", *args, check=False)
    if done.status:
        return done.stderr.strip()
    return str(len(re.findall(r"^\S{20,}\s+(?:true|false)", done.stdout, re.MULTILINE)))


def test_filters_of_a_list(engine: Engine, root: Path) -> None:
    build(engine, root)
    one = next(str(record["ID"]) for record in records(engine) if "/one" in record["Description"])
    for text, count in (
        ("type=regular", 4),
        ("type=exec.cachemount", 1),
        ("id=" + one, 1),
        ("id=^" + one[:12], 1),
        ('description="mount / from exec /bin/sh -c cat /f"', 1),
        ("until=24h", len(records(engine))),
        ("nosuch=1", 0),
        ("inuse=true", 0),
    ):
        assert list_or_error(engine, text) == str(count), text
    assert list_or_error(engine, "type=regular", "id=" + one) == "1"


def test_refused_lists_and_prunes_in_dockerds_words(engine: Engine, oracle: Dockerd) -> None:
    def answers(each: Engine) -> list[Any]:
        lists = [list_or_error(each, text) for text in ("type!=regular", "id~=.", "type=a b")]
        filters: list[dict[str, list[str]]] = [
            {"foo": ["1"]},
            {"parents": ["x"]},
            {"parent": ["x"]},
            {"mutable": ["1"]},
            {"shared": ["1"]},
            {"until": ["1x"]},
            {"unused-for": ["1x"]},
            {"until": ["1h", "2h"]},
            {"until": ["1h"], "unused-for": ["1h"]},
            {"id": ["a", "b"]},
            {"id": ["("]},
            {"type": ["a b"]},
            {"description": ["a,b"]},
        ]
        prunes = [each.api.post("/build/prune", filters=json.dumps(item)) for item in filters]
        prunes.append(each.api.post("/build/prune", **{"keep-storage": "x"}))
        return [*lists, *((answer.status, answer.body) for answer in prunes)]

    assert answers(engine) == answers(oracle)


def fields(text: str) -> list[tuple[str, ...]]:
    """Return the fields of each step of the Dockerfile in `du --verbose`, and the values that don't depend on the disk.

    dockerd also lists the base image, and the steps of other modules' builds whose images it still has.
    """
    steps = []
    for block in text.split("\n\n"):
        values = dict(re.findall(r"^([A-Z][\w ]*):[\t ]+(.*)$", block, re.MULTILINE))
        if any(command in values.get("Description", "") for command in COMMANDS):
            equal = [values[name] for name in ("Mutable", "Reclaimable", "Shared", "Description", "Type")]
            steps.append((*sorted(set(values) - {"Parent", "Parents"}), *equal))
    return sorted(steps)


def test_verbose_list_equals_buildkits(engine: Engine, oracle: Dockerd, root: Path) -> None:
    texts = []
    for each in (engine, oracle):
        clear(each)  # a step that another build also has would be shared
        build(each, root)
        texts.append(each.docker("buildx", "du", "--verbose").stdout)
        each.docker("rmi", "-f", "cached:1")
        clear(each)
    steps = fields(texts[0])
    assert len(steps) == 4
    assert steps == fields(texts[1])
    assert re.search(r"^Shared:\s+\S+B\nPrivate:", texts[0], re.MULTILINE)


@pytest.mark.core
def test_prune_removes_what_no_image_has(engine: Engine, root: Path) -> None:
    build(engine, root)
    assert {record["Shared"] for record in records(engine) if record["Type"] == "regular"} == {True}
    engine.docker("builder", "prune", "-f")
    assert [record["Type"] for record in records(engine)] == ["regular"] * 4
    assert build(engine, root).count("CACHED") == 4
    engine.docker("rmi", "-f", "cached:1")
    assert {record["Shared"] for record in records(engine)} == {False}
    assert "0B" in engine.docker("builder", "prune", "-f", "--filter", "until=1h").stdout
    assert len(records(engine)) > 4
    engine.docker("builder", "prune", "-f")
    assert records(engine) == []


def test_prune_keeps_parents_of_results(engine: Engine, root: Path) -> None:
    build(engine, root)
    engine.docker("rmi", "-f", "cached:1")
    one = next(str(record["ID"]) for record in records(engine) if "/one" in record["Description"])
    engine.docker("buildx", "prune", "-af", "--filter", f"id={one}")
    assert len([record for record in records(engine) if record["Type"] == "regular"]) == 4
    last = next(str(record["ID"]) for record in records(engine) if record["Description"].endswith("cat /f"))
    pruned = engine.docker("buildx", "prune", "-af", "--filter", f"id={last}").stdout
    assert last[:12] in pruned
    assert build(engine, root).count("CACHED") == 3


def test_prune_keeps_the_given_amount(engine: Engine, root: Path) -> None:
    build(engine, root)
    engine.docker("rmi", "-f", "cached:1")
    before = len(records(engine))
    engine.docker("buildx", "prune", "-af", "--keep-storage", "100MB")
    assert len(records(engine)) == before
    engine.docker("buildx", "prune", "-af", "--keep-storage", "310kB")
    # the layer of the first step is stored as a snapshot and as a blob
    assert sum(record["Size"] for record in records(engine)) <= 310_000
    build(engine, root)
    engine.docker("rmi", "-f", "cached:1")
    for name in ("reserved-space", "keep-storage", "max-used-space"):
        answer = engine.api.post("/build/prune", **{"all": 1, name: 100_000_000}).json()
        assert answer["CachesDeleted"] is None
    free = os.statvfs(engine.resources.root)
    unavailable = free.f_bavail * free.f_frsize + (1 << 50)
    assert engine.api.post("/build/prune", **{"all": 1, "min-free-space": 1}).json()["CachesDeleted"] is None
    pruned = engine.api.post("/build/prune", **{"all": 1, "min-free-space": unavailable}).json()
    assert pruned["SpaceReclaimed"] > 300_000
