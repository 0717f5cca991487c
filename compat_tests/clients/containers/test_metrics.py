"""The metrics of containers, and what they agree with: the statistics, and the kernel's counters."""

from __future__ import annotations

import contextlib
import re

import pytest

from compat_tests.support.containers import container
from compat_tests.support.engines import Engine
from compat_tests.support.polling import until

MIB = 1 << 20
_LINE = re.compile(r"^(\w+)\{(.*)\} (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')


@pytest.fixture(autouse=True)
def of_wharf(engine: Engine) -> None:
    if engine.kind == "dockerd":
        pytest.skip("dockerd has no metrics of containers")


def metrics(engine: Engine, id: str) -> dict[str, list[tuple[dict[str, str], float]]]:
    """Labels and values of a container's metrics."""
    answer = engine.api.get("/metrics")
    assert answer.status == 200
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for name, labels, value in _LINE.findall(answer.body.decode()):
        read = dict(_LABEL.findall(labels))
        if id in read.get("id", ""):
            found.setdefault(name, []).append((read, float(value)))
    return found


@pytest.mark.core
def test_they_agree_with_the_statistics(engine: Engine) -> None:
    command = ["sh", "-c", "echo 12345; dd if=/dev/zero of=/file bs=64k count=64 2>/dev/null; sleep 600 & wait"]
    host = {"Memory": 64 * MIB, "NanoCpus": 500_000_000, "NetworkMode": "bridge"}
    with container(engine, Cmd=command, HostConfig=host) as box:

        def value(name: str) -> float:
            ((_, found),) = metrics(engine, box)[name]
            return found

        assert until(lambda: value("wharf_container_log_bytes") > 0)
        assert until(lambda: value("container_processes") == 2)
        assert value("container_threads") == 2
        stats = engine.api.get(f"/containers/{box}/stats", stream=0).json()
        assert value("container_cpu_usage_seconds_total") * 1e9 == pytest.approx(
            stats["cpu_stats"]["cpu_usage"]["total_usage"], rel=0.1
        )
        assert value("container_memory_usage_bytes") == pytest.approx(stats["memory_stats"]["usage"], rel=0.2)
        assert 0 < value("container_memory_working_set_bytes") <= value("container_memory_usage_bytes")
        assert value("container_spec_memory_limit_bytes") == 64 * MIB
        assert value("container_spec_cpu_quota") == 50_000
        assert value("container_cpu_cfs_periods_total") > 0
        assert value("container_oom_events_total") == 0
        (labels, received), *others = metrics(engine, box)["container_network_receive_bytes_total"]
        assert (labels["interface"], others) == ("eth0", [])
        assert received >= stats["networks"]["eth0"]["rx_bytes"]


def test_a_container_that_was_killed_for_its_memory(engine: Engine) -> None:
    command = ["sh", "-c", "sh -c 'x=a; while :; do x=$x$x; done'; sleep 600"]
    with container(engine, Cmd=command, HostConfig={"Memory": 16 * MIB, "MemorySwap": 16 * MIB}) as box:
        assert until(lambda: metrics(engine, box)["container_oom_events_total"][0][1] >= 1)


def test_interfaces_are_those_of_the_container(engine: Engine) -> None:
    with contextlib.ExitStack() as stack:
        for mode in ("host", "none"):
            id = stack.enter_context(container(engine, Cmd=["sleep", "600"], HostConfig={"NetworkMode": mode}))
            found = metrics(engine, id)
            assert "container_last_seen" in found
            assert "container_network_receive_bytes_total" not in found
