"""Costly BuildKit messages: concurrent pings are answered, memory stays bounded."""

from __future__ import annotations

import grpc
import pytest

from compat_tests.clients.builder.control import control
from compat_tests.hostile.side_effects import monitored
from compat_tests.support.engines import Engine

MANY = range(400_000)


@pytest.mark.parametrize(
    "options",
    [
        {"Frontend": "dockerfile.v0", "FrontendAttrs": {f"label:{number}": "" for number in MANY}},
        {"Entitlements": ["network.host"] * len(MANY)},
        {"ExporterDeprecated": "image", "ExporterAttrsDeprecated": {f"{number}": "" for number in MANY}},
    ],
    ids=lambda options: next(iter(options)),
)
def test_options_of_a_build(own_engine: Engine, options: dict[str, object]) -> None:
    with monitored(own_engine), control(own_engine) as builder, pytest.raises(grpc.RpcError) as refused:
        builder.solve(Ref="many", **options)
    assert "exceeds the limit BUILD_OPTIONS (10000)" in str(refused.value.details())
