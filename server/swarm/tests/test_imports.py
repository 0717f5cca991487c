"""What an engine without a swarm doesn't load."""

import subprocess
import sys
from pathlib import Path


def test_an_engine_without_a_swarm_loads_none_of_its_modules() -> None:
    """The records of the API alone take about 50 ms to make; cryptography needs 5 MiB."""
    code = (
        "import sys, server.daemon; print(*sorted(name for name in sys.modules"
        " if name.startswith(('server.swarm.', 'api_models.swarm', 'cryptography'))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout.split() == ["server.swarm.facade"]


def test_a_daemon_that_makes_a_swarm_loads_no_cryptography(tmp_path: Path) -> None:
    """A child process makes the certificates: the library needs up to 9 MiB, which no daemon gives back. Nor do the
    join tokens need it, which ``docker swarm init`` shows."""
    code = (
        "import sys; from pathlib import Path; from server.swarm.tests.hosts import INIT, FakeEngine, run\n"
        "async def scenario(facade):\n"
        "    assert await facade.init(INIT)\n"
        "    assert facade.manager().cluster.inspect()['JoinTokens']\n"
        "run(FakeEngine(Path(sys.argv[1]) / 'swarm'), scenario)\n"
        "print(*sorted(name for name in ('cryptography', 'server.swarm.certificates') if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, check=True, text=True)
    assert done.stdout.split() == []


def test_a_swarm_of_one_node_without_services_loads_only_what_waits_for_them(tmp_path: Path) -> None:
    """The rest needs 2 MiB: the first service, request or other node loads its part."""
    begin = (
        "import sys; from pathlib import Path; from server.swarm.tests.hosts import INIT, FakeEngine, run\n"
        "import server.daemon, server.swarmhost\n"
        "async def create(facade): assert await facade.init(INIT)\n"
        "async def resumed(facade): assert facade.info()['Managers'] == 1\n"
        "run(FakeEngine(Path(sys.argv[1]) / 'swarm'), eval(sys.argv[2]))\n"
        "print(*sorted(name for name in sys.modules if name.startswith('server.swarm')))"
    )
    parts = {
        "changes",
        "controllers.draft",
        "controllers.runner",
        "etcd.program",
        "joining",
        "objectoperations",
        "operations.services",
        "operations.tasks",
        "remote.join",
        "remote.lines",
        "remote.renewal",
        "worker",
    }
    unused = {*(f"server.swarm.{part}" for part in parts), "server.swarmapi.application"}
    for scenario in ("create", "resumed"):
        argv = [sys.executable, "-c", begin, str(tmp_path), scenario]
        done = subprocess.run(argv, capture_output=True, check=True, text=True)
        loaded = set(done.stdout.split())
        assert not loaded & unused
        assert "server.swarm.controllers.deferred" in loaded
