"""``wharf-supervisor``: containerd's place. wharfd starts it as a child (``serve``), or it runs on its own.

The order of imports is the point of this module: the zygote is forked before gRPC comes into the process (a fork must
not have its threads, and shims are to share the pages of a small interpreter), and everything is imported before a
fork of wharfd's that shares it.
"""

import argparse
import os
import resource
import sys
from collections.abc import Callable, Sequence

from engine.shim import zygote


def serve(
    *, root: str, state: str, address: str, log_level: str = "info", ready: Callable[[], None] | None = None
) -> int:
    """Runs a supervisor in this process until SIGTERM or SIGINT and returns the exit status.

    To be called in the main thread of a process that has no event loop and no gRPC yet (a fresh child). ``ready`` is
    called when the socket takes connections.
    """
    handle = zygote.start()
    from engine.supervisor.server import run  # brings gRPC in, after the zygote

    return run(root=root, state=state, address=address, log_level=log_level, handle=handle, ready=ready)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="wharf-supervisor", description="Keeps images, snapshots and running containers behind containerd's API."
    )
    parser.add_argument("--root", default="/var/lib/wharf/containerd", help="what is kept (default %(default)s)")
    parser.add_argument("--state", default="/run/wharf/containerd", help="what a boot ends (default %(default)s)")
    parser.add_argument("--address", default="", help="the socket (default: containerd.sock in the state folder)")
    parser.add_argument("--log-level", default="info", choices=("debug", "info", "warning", "error"))
    parser.add_argument("--nofile", type=int, default=0, help="soft limit of descriptors for containers")
    given = parser.parse_args(arguments)
    if given.nofile:
        # Whoever starts us may have raised its own.
        resource.setrlimit(resource.RLIMIT_NOFILE, (given.nofile, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    state = os.path.abspath(given.state)
    address = given.address.removeprefix("unix://") or os.path.join(state, "containerd.sock")
    return serve(root=os.path.abspath(given.root), state=state, address=address, log_level=given.log_level)


if __name__ == "__main__":
    sys.exit(main())
