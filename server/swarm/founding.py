"""What a new swarm begins with: its root, its join tokens, and the certificate of its first node.

A child process makes them: cryptography's certificates need 2 MiB, which the daemon would keep. The only node of a
swarm needs them again when its certificate is renewed.
"""

import json
import os
import sys
from dataclasses import asdict

from engine.common import timeouts
from engine.common.system.run import run
from server.swarm.founded import Founding, Order

timeouts.define("swarm.founding", 60.0)  # the child process


async def found(order: Order) -> Founding:
    """:raises WharfError: INTERNAL: the child process has failed; DEADLINE_EXCEEDED."""
    done = await run(
        [sys.executable, "-m", "server.swarm.founder"],
        deadline=timeouts.seconds("swarm.founding"),
        input=json.dumps(asdict(order)).encode(),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        check=True,
    )
    return Founding(**json.loads(done.stdout))
