"""Solve requests that a client of BuildKit's API may send and buildx does not."""

from __future__ import annotations

import secrets
from typing import Any

import grpc
import pytest

from compat_tests.clients.builder.control import control, pb
from compat_tests.support.engines import Dockerd, Engine
from compat_tests.support.protos import Package

ops = Package("pb")
NO_BYTES: dict[str, Any] = {"def": [b""]}  # "def" is a keyword of Python


def solve(engine: Engine, **options: Any) -> tuple[str, list[str]]:
    """Return the error of a solve, and the keys of the response."""
    with control(engine) as client:
        try:
            return "", sorted(client.solve(Ref=secrets.token_hex(12), **options).ExporterResponse)
        except grpc.RpcError as error:
            return str(error.details()), []


@pytest.mark.parametrize(
    "options",
    [
        {"Definition": ops.Definition()},
        {"Definition": ops.Definition(metadata={"x": ops.OpMetadata()})},
        {"Definition": ops.Definition(), "Session": "nobody"},
        {"Definition": ops.Definition(), "Exporters": [pb.Exporter(Type="moby")]},
        {"Definition": ops.Definition(**NO_BYTES), "Frontend": "dockerfile.v0"},
    ],
    ids=["empty", "metadata", "session", "image", "both"],
)
def test_a_definition_without_operations(engine: Engine, oracle: Dockerd, options: dict[str, Any]) -> None:
    """As in BuildKit, an empty definition gives an empty result; without a definition, the solve waits for the client's
    result."""
    ours, theirs = solve(engine, **options), solve(oracle, **options)
    assert ours[0] == theirs[0]
    # dockerd without containerd's image store also returns the configuration's digest.
    assert set(theirs[1]) - {"containerimage.config.digest"} <= set(ours[1])
    for image in engine.api.get("/images/json", filters='{"dangling":["true"]}').json():
        engine.api.delete(f"/images/{image['Id']}")
