"""Costly Dockerfiles: concurrent pings are answered, memory stays bounded, and the error names the limit."""

from __future__ import annotations

import json

import pytest

from compat_tests.hostile.side_effects import monitored, send
from compat_tests.support.engines import Engine
from compat_tests.support.images import layer

TAR = {"Content-Type": "application/x-tar"}
SECONDS = 2.0  # then the client disconnects; an unbounded build blocks the event loop at once

REFUSED = {
    "exponential": (["ENV A=aaaaaaaaaa", *["ENV A=$A$A$A$A$A$A$A$A$A$A"] * 10], "EXPANSION_BYTES (16777216)"),
    "replaced": ([f"ENV A={'a' * 500_000}", "ENV B=${A//a/$A}"], "EXPANSION_BYTES"),
    "heredoc": ([f"ENV A={'a' * 100_000}", "COPY <<EOF /x", "$A" * 100_000, "EOF"], "EXPANSION_BYTES"),
    "environments": ([f"ENV A={'a' * 500_000}", *["RUN true"] * 1000], "EXPANSION_BYTES"),
    "ports": (["EXPOSE 1-65535"] * 100, "EXPANSION_BYTES"),
    "nested": (["ENV A=" + "${a:-" * 50_000 + "}" * 50_000], "EXPANSION_DEPTH (50)"),
    "stages": ([f"FROM {f's{n - 1}' if n else 'scratch'} AS s{n}" for n in range(5000)], "STAGE_DEPTH (100)"),
}
ENDLESS = {
    "variables": [f"ENV A{number}=x" for number in range(100_000)],
    "undefined": [f"ENV A{number}=$B{number}" for number in range(20_000)],
    "labels": [f"LABEL A{number}=x" for number in range(100_000)],
    "triggers": [f"ONBUILD ENV A{number}=x" for number in range(50_000)],
    "volumes": ["VOLUME " + " ".join(f"/v{number}" for number in range(100_000))],
    "pattern": [f"ENV A={'a' * 50_000}", "ENV B=${A#" + "*a" * 50 + "b}", "ENV C=${A//" + "*a" * 30 + "b/x}"],
    "flags": ["COPY " + "--a " * 200_000 + "x y"],
    "keyword": ["X" * 900_000 + " y"],
    "brackets": ["CMD " + "[" * 400_000],
    "braces": ["FROM " + "${a" * 300_000],
}


def dockerfile(lines: list[str]) -> bytes:
    return layer({"Dockerfile": "\n".join(["FROM busybox", *lines, ""])})


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_the_limit(own_engine: Engine, name: str) -> None:
    lines, limit = REFUSED[name]
    with monitored(own_engine):
        status, answer = send(own_engine, "POST", "/build", body=dockerfile(lines), headers=TAR, seconds=60)
    assert status == 200
    last = json.loads(answer.splitlines()[-1])
    assert limit in last["error"]
    assert "exceeds the limit" in last["error"]


@pytest.mark.parametrize("name", ENDLESS)
def test_other_requests_are_served(own_engine: Engine, name: str) -> None:
    with monitored(own_engine):
        status, answer = send(
            own_engine, "POST", "/build", body=dockerfile(ENDLESS[name]), headers=TAR, seconds=SECONDS
        )
    assert status in (0, 200, 400), answer[-500:]


@pytest.mark.parametrize(("version", "pattern"), [(1, "name{}"), (2, "*a{}*")])
def test_many_patterns_that_leave_files_out(own_engine: Engine, version: int, pattern: str) -> None:
    lines = ["FROM busybox", "COPY . /all/", *[f"COPY file{number} /" for number in range(3)]]
    files: dict[str, str | bytes] = {
        "Dockerfile": "\n".join(lines),
        ".dockerignore": "\n".join(pattern.format(number) for number in range(10_000)),
        **{f"file{number}": b"" for number in range(1000)},
    }
    with monitored(own_engine):
        status, answer = send(
            own_engine, "POST", f"/build?version={version}&t=ignore", body=layer(files), headers=TAR, seconds=120
        )
    assert status == 200
    assert b"error" not in answer, answer[-500:]
    assert own_engine.api.delete("/images/ignore").status == 200
