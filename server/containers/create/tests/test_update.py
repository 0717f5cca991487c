"""``docker update`` of memory limits, on hosts with and without a limit of swap."""

import pytest

from api_models.container import HostConfig
from api_models.resources import Resources
from engine.common.errors import Kind, WharfError
from server.containers.create.resources import check_resources
from server.containers.create.update import merged
from server.containers.host.limits import HostLimits

M = 1 << 20


def limits(*, swap: bool) -> HostLimits:
    return HostLimits(unified=True, ncpu=1, memory=True, swap=swap)


def test_without_a_limit_of_swap_a_memory_limit_alone_is_applied() -> None:
    resources, warnings = check_resources(Resources(memory=64 * M), limits(swap=False), update=True)
    assert ["swap limit" in warning for warning in warnings] == [True]
    updated = merged(HostConfig(), resources, None)
    assert (updated.memory, updated.memory_swap) == (64 * M, -1)


def test_with_a_limit_of_swap_it_must_be_below_that() -> None:
    resources, warnings = check_resources(Resources(memory=64 * M), limits(swap=True), update=True)
    assert not warnings
    with pytest.raises(WharfError) as raised:
        merged(HostConfig(), resources, None)
    assert raised.value.kind is Kind.CONFLICT
    assert merged(HostConfig(memory=M, memory_swap=128 * M), resources, None).memory == 64 * M
    assert merged(HostConfig(memory=M, memory_swap=-1), resources, None).memory == 64 * M
