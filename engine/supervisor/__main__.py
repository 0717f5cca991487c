"""``wharf-supervisor``: containerd's role. wharfd starts it as a child (``serve``), or it runs on its own.

The order of imports matters: the zygote is forked first (there are no threads yet, and
shims share the pages of a small interpreter), and everything is imported before wharfd forks a process that shares the
pages.
"""

import argparse
import os
import resource
import sys
from collections.abc import Callable, Mapping, Sequence

from engine.shim import zygote


def serve(
    *,
    root: str,
    state: str,
    address: str,
    log_level: str = "info",
    drop_blobs: bool = False,
    ready: Callable[[], None] | None = None,
    proxies: Mapping[str, str],
) -> int:
    """Runs a supervisor in this process until SIGTERM or SIGINT and returns the exit status.

    Call it in the main thread of a process without an event loop and other threads (a new child). ``ready`` is called
    when the socket accepts connections.
    """
    handle = zygote.start()
    from engine.supervisor.server import run  # after the zygote was forked

    return run(
        root=root,
        state=state,
        address=address,
        log_level=log_level,
        drop_blobs=drop_blobs,
        handle=handle,
        ready=ready,
        proxies=proxies,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="wharf-supervisor", description="Keeps images, snapshots and running containers behind containerd's API."
    )
    parser.add_argument("--root", default="/var/lib/wharf/containerd", help="persistent data (default %(default)s)")
    parser.add_argument(
        "--state", default="/run/wharf/containerd", help="data valid until the next boot (default %(default)s)"
    )
    parser.add_argument("--address", default="", help="the socket (default: containerd.sock in the state folder)")
    parser.add_argument("--log-level", default="info", choices=("debug", "info", "warning", "error"))
    parser.add_argument("--nofile", type=int, default=0, help="soft limit of descriptors for containers")
    parser.add_argument(
        "--proxy-snapshotter",
        action="append",
        default=[],
        metavar="NAME=SOCKET",
        help="a snapshotter of another process, which serves containerd's snapshots API on this unix socket",
    )
    parser.add_argument(
        "--drop-blobs", action="store_true", help="keep no blob of an unpacked layer that can be re-created"
    )
    options = parser.parse_args(arguments)
    proxies = dict(one.partition("=")[::2] for one in options.proxy_snapshotter)
    if options.nofile:
        # The parent process may have raised its own limit.
        resource.setrlimit(resource.RLIMIT_NOFILE, (options.nofile, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    state = os.path.abspath(options.state)
    address = options.address.removeprefix("unix://") or os.path.join(state, "containerd.sock")
    return serve(
        root=os.path.abspath(options.root),
        state=state,
        address=address,
        log_level=options.log_level,
        drop_blobs=options.drop_blobs,
        proxies=proxies,
    )


if __name__ == "__main__":
    sys.exit(main())
