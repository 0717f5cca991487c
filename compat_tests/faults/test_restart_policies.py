"""Containers with a restart policy survive daemons that die while the containers exit and start."""

from __future__ import annotations

import time
from typing import Any

import pytest

from compat_tests.support.containers import inspect
from compat_tests.support.engines import Engine
from compat_tests.support.polling import until

pytestmark = pytest.mark.slow

POLICIES = ("always", "on-failure", "unless-stopped")
RUN = 0.4  # seconds that each container runs
ROUNDS = 4


def lost(engine: Engine, identities: list[str]) -> list[dict[str, Any]]:
    """Return the states of those that neither run nor wait for their next run."""
    states = [inspect(engine, identity)["State"] for identity in identities]
    return [state for state in states if not state["Running"]]


@pytest.mark.parametrize("victims", [("wharfd",), ("wharf-supervis",), ("wharfd", "wharf-supervis")], ids=" and ".join)
def test_restarts_continue_after_daemons_die(own_engine: Engine, victims: tuple[str, ...]) -> None:
    engine = own_engine
    if engine.kind != "wharf":
        pytest.skip("the embedded supervisor only")
    identities = []
    try:
        for number in range(6):
            body = {
                "Image": "busybox",
                # A new daemon's clean-up once removed its network.
                "Cmd": ["sh", "-c", f"ip -o link show eth0 >/dev/null || exit 99; sleep {RUN}; exit {number + 1}"],
                "HostConfig": {"RestartPolicy": {"Name": POLICIES[number % len(POLICIES)]}},
            }
            identities.append(str(engine.api.post("/containers/create", body).json()["Id"]))
            assert engine.api.post(f"/containers/{identities[-1]}/start").status == 204
        for number in range(ROUNDS):
            time.sleep(RUN * (1 + number / ROUNDS))
            for victim in victims:
                # A supervisor that was just restarted gets its process name with a delay.
                if victim != "wharfd":
                    assert until(lambda: bool(engine.find("wharf-supervis")))
                engine.kill(victim)
            if "wharfd" in victims:
                engine.start()
        # Each has run again after the last fault, and exited with its own code.
        counts = {identity: inspect(engine, identity)["RestartCount"] for identity in identities}

        def on() -> bool:
            return all(inspect(engine, identity)["RestartCount"] > counts[identity] for identity in identities)

        assert until(on), lost(engine, identities)
        # Between a failed start and the next, it is restarting, with the exit code of its last run.
        assert not lost(engine, identities)
        for number, identity in enumerate(identities):
            assert engine.api.post(f"/containers/{identity}/stop", t=0).status in (204, 304)
            state = inspect(engine, identity)["State"]
            assert (state["Status"], state["ExitCode"] in (number + 1, 137)) == ("exited", True), state
        assert "has lost a link" not in engine.log()
    finally:
        for identity in identities:
            engine.api.delete(f"/containers/{identity}", force=1)
