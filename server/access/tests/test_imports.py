"""What an engine without a policy doesn't load."""

import subprocess
import sys


def test_an_engine_without_a_policy_loads_none_of_its_modules() -> None:
    """The records of ``/wharf/v1`` alone take about 10 ms to make."""
    names = ("api_models.wharf", "server.access.policy", "server.access.gate", "server.gpus", "server.jobs")
    code = f"import sys, server.daemon; print(*(name for name in {names} if name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout == "\n"
