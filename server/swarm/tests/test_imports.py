"""What an engine without a swarm doesn't load."""

import subprocess
import sys


def test_an_engine_without_a_swarm_loads_none_of_its_modules() -> None:
    """The records of the API alone take about 50 ms to make; cryptography needs 5 MiB."""
    code = (
        "import sys, server.daemon; print(*sorted(name for name in sys.modules"
        " if name.startswith(('server.swarm.', 'api_models.swarm', 'cryptography'))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout.split() == ["server.swarm.facade"]
