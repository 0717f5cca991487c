"""Containers of users on networks of a swarm, over restarts of the machine."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from compat_tests.support.engines import Engine
from compat_tests.support.polling import until

NAMES = ("first", "second", "third")


@pytest.fixture
def attached(swarm: Engine) -> Iterator[Engine]:
    """Three containers with a restart policy on a network."""
    swarm.docker("network", "create", "-d", "overlay", "--attachable", "front")
    for name in NAMES:
        swarm.docker(
            "run", "-d", "--name", name, "--network", "front", "--restart", "always", "busybox", "sleep", "1000"
        )
    yield swarm
    swarm.docker("rm", "-f", *NAMES)
    swarm.docker("network", "rm", "front")


def inspect(engine: Engine, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(engine.docker("inspect", name).stdout)[0]
    return found


def test_they_start_again_when_the_swarm_is_there(attached: Engine) -> None:
    """All processes are killed, as when the machine is reset: with the next start, the swarm comes after the
    containers. Those of a stock containerd go on; only the containers are killed then."""
    states = {name: inspect(attached, name)["State"] for name in NAMES}
    before = {name: state["StartedAt"] for name, state in states.items()}
    attached.kill("wharfd")
    if attached.find("wharf-shim"):
        attached.kill("wharf-shim")
    else:
        for state in states.values():
            os.kill(state["Pid"], signal.SIGKILL)
    attached.start()

    def running(name: str) -> bool:
        state = inspect(attached, name)["State"]
        return bool(state["Pid"]) and state["StartedAt"] != before[name]

    assert until(lambda: all(map(running, NAMES))), [inspect(attached, name)["State"] for name in NAMES]
    peers = json.loads(attached.docker("network", "inspect", "front").stdout)[0]["Containers"]
    assert sorted(peer["Name"] for peer in peers.values()) == sorted(NAMES)
    addresses = {inspect(attached, name)["NetworkSettings"]["Networks"]["front"]["IPAddress"] for name in NAMES}
    assert len(addresses) == 3
    ping = ("ping", "-c", "1", "-W", "5")
    assert all(attached.docker("exec", "first", *ping, name).status == 0 for name in NAMES)


def test_a_second_connect_is_refused(attached: Engine, oracle_swarm: Engine) -> None:
    oracle_swarm.load_busybox()
    oracle_swarm.docker("network", "create", "-d", "overlay", "--attachable", "front")
    oracle_swarm.docker("run", "-d", "--name", "first", "--network", "front", "busybox", "sleep", "1000")

    def refusal(engine: Engine) -> tuple[int, str]:
        answer = engine.api.post("/networks/front/connect", {"Container": "first"})
        return answer.status, answer.json()["message"]

    try:
        assert refusal(attached) == refusal(oracle_swarm)
    finally:
        oracle_swarm.docker("rm", "-f", "first")
        oracle_swarm.docker("network", "rm", "front")


def networks(engine: Engine, name: str) -> dict[str, Any]:
    found: dict[str, Any] = inspect(engine, name)["NetworkSettings"]["Networks"]
    return found


def test_a_network_that_is_not_on_this_node_yet_is_connected(swarm: Engine) -> None:
    """A stopped container is attached by its start, a running one at once."""
    swarm.docker("network", "create", "-d", "overlay", "--attachable", "front")
    swarm.docker("network", "create", "-d", "overlay", "closed")
    try:
        swarm.docker("create", "--name", "first", "busybox", "sleep", "1000")
        for _ in range(2):
            swarm.docker("network", "connect", "--alias", "one", "front", "first")
        swarm.docker("start", "first")
        address = networks(swarm, "first")["front"]["IPAddress"]
        assert address in swarm.docker("exec", "first", "ip", "addr").stdout
        swarm.docker("network", "disconnect", "front", "first")
        assert set(networks(swarm, "first")) == {"bridge"}
        swarm.docker("network", "connect", "--alias", "one", "front", "first")
        address = networks(swarm, "first")["front"]["IPAddress"]
        assert f"inet {address}/" in swarm.docker("exec", "first", "ip", "addr").stdout
        swarm.docker("run", "--rm", "--network", "front", "busybox", "ping", "-c", "1", "-W", "5", "one")
        again = swarm.docker("network", "connect", "front", "first", check=False)
        assert "first is already attached to network front" in again.output
        refused = swarm.docker("network", "connect", "closed", "first", check=False)
        assert "Could not attach to network closed" in refused.output
        assert "not manually attachable" in refused.output
        assert "network missing not found" in swarm.docker("network", "connect", "missing", "first", check=False).output
        assert set(networks(swarm, "first")) == {"bridge", "front"}
    finally:
        swarm.docker("rm", "-f", "first", check=False)
        for name in ("front", "closed"):
            assert until(lambda name=name: swarm.docker("network", "rm", name, check=False).status == 0)  # type: ignore[misc]
