"""Events of containers that reach their memory limit."""

from __future__ import annotations

import pytest

from compat_tests.support.containers import container
from compat_tests.support.engines import Engine
from compat_tests.support.polling import until

pytestmark = pytest.mark.core

LIMIT = 16 << 20
# In a child process, which the first process survives. Allocations of user memory wait; file systems get an error.
GROW = "x=0123456789abcdef; while :; do x=$x$x; done"


def oom_killed(engine: Engine, identity: str) -> bool:
    return bool(engine.api.get(f"/containers/{identity}/json").json()["State"]["OOMKilled"])


@pytest.mark.parametrize("disabled", [False, True])
def test_an_oom_event(engine: Engine, disabled: bool) -> None:
    """With the OOM killer disabled, the process waits for memory, and an event reports it."""
    if disabled and not engine.api.get("/info").json()["OomKillDisable"]:
        pytest.skip("this host's cgroups can't disable the OOM killer")
    host = {"Memory": LIMIT, "MemorySwap": LIMIT, "OomKillDisable": disabled}
    with container(engine, Cmd=["sh", "-c", f"sh -c '{GROW}'; sleep 600"], HostConfig=host) as box:
        assert until(lambda: oom_killed(engine, box), seconds=30)
        now = engine.api.get("/info").json()["SystemTime"]
        output = engine.docker(
            "events", "--since", "2020-01-01T00:00:00Z", "--until", now, "--filter", f"container={box}"
        ).stdout
        assert " container oom " in output
        assert engine.docker("inspect", "-f", "{{.State.Running}}", box).stdout == "true\n"
