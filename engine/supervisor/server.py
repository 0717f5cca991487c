"""The supervisor's gRPC server: one unix socket, until a signal."""

import asyncio
import gc
import logging
import os
import resource
import signal
import socket
import stat
import sys
from collections.abc import Callable, Mapping

from engine.common import stacks, timeouts
from engine.common.errors import WharfError
from engine.common.system import heap, idle, linux, private, rootlock
from engine.shim.zygote import Handle
from engine.supervisor.wiring import Settings, Supervisor

log = logging.getLogger("engine.supervisor")

#: Connections that wait to be accepted.
_BACKLOG = 1024


def run(
    *,
    root: str,
    state: str,
    address: str,
    log_level: str,
    drop_blobs: bool,
    handle: Handle,
    ready: Callable[[], None] | None,
    proxies: Mapping[str, str],
) -> int:
    """Serves until SIGTERM or SIGINT; returns the exit status."""
    # The maximum time that threads writing metadata and files wait for the GIL while the loop is busy.
    sys.setswitchinterval(0.0005)
    heap.use_single_arena()
    linux.prctl_set_name("wharf-supervisor")
    logging.basicConfig(
        level=log_level.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    # Each shim and each client uses a descriptor, and the soft limit is often 1024.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        # Two supervisors on one root would delete each other's files.
        private.make_directory(root, private.PASSABLE)
        seconds, busy = timeouts.seconds("supervisor.lock"), f"another supervisor works on {root}"
        with rootlock.locked(os.path.join(root, "lock"), seconds=seconds, busy=busy):
            asyncio.run(_serve(Settings(root, state, address, soft, proxies, drop_blobs), handle, ready))
    except WharfError as error:
        log.error("%s", error.message)
        return 1
    return 0


async def _serve(settings: Settings, handle: Handle, ready: Callable[[], None] | None) -> None:
    loop = asyncio.get_running_loop()
    ending = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.set)
    stacks.dump_on_sigusr1(loop)
    supervisor = Supervisor(settings, handle)
    await supervisor.open()
    try:
        supervisor.server.listen(_bind(settings.address))
        gc.collect()
        gc.freeze()  # the collector never visits the objects that exist since the start
        idle.request_received()
        log.info("serving on %s", settings.address)
        if ready is not None:
            ready()
        await ending.wait()
        log.info("exiting")
        await supervisor.server.stop(grace=timeouts.seconds("supervisor.stop") / 4)
    finally:
        await supervisor.close()
    _unlink_socket(settings.address)


def _bind(address: str) -> socket.socket:
    """The listening socket. Only root may use it: its clients control the whole host."""
    private.make_directory(os.path.dirname(address), private.PASSABLE)
    _unlink_socket(address)
    listening = socket.socket(socket.AF_UNIX)
    mask = os.umask(0o177)
    try:
        listening.bind(address)
    finally:
        os.umask(mask)
    listening.listen(_BACKLOG)
    return listening


def _unlink_socket(address: str) -> None:
    try:
        if stat.S_ISSOCK(os.lstat(address).st_mode):
            os.unlink(address)
    except FileNotFoundError:
        pass
