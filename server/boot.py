"""The start of ``wharfd``: reads the configuration, binds the sockets, starts the processes below, serves, stops.

Only :mod:`server.daemon` imports the large modules, and this module imports it after the supervisor was forked: that
order saves 15 MiB (see :mod:`server.launch`).
"""

import contextlib
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from engine.common.system import heap, private
from engine.shim import zygote
from server.config import Config, ConfigError, load
from server.config.flags import Given, usage
from server.launch import StartError, Supervisor
from server.log import set_up_log
from server.version import SERVER_VERSION

log = logging.getLogger("wharfd")


def boot(words: Sequence[str], handle: zygote.Handle) -> int:
    """``words``: the command line's arguments; the caller keeps ``handle``. Returns the exit status."""
    try:
        config, given = load(list(words))
        if "validate" in given:
            # Imported here: it loads OpenSSL, which must not be in the memory of the processes below.
            from server.sockets import tls_context

            tls_context(config)
            from server.access.setup import read

            read(config)
    except ConfigError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    if "help" in given:
        print(usage())  # noqa: T201
        return 0
    if "version" in given:
        print(f"Wharf version {SERVER_VERSION}")  # noqa: T201
        return 0
    if "validate" in given:
        print("configuration OK", file=sys.stderr)  # noqa: T201
        return 0
    if os.geteuid() != 0:
        print("wharfd needs to be started with root privileges", file=sys.stderr)  # noqa: T201
        return 1
    set_up_log(config)
    try:
        return run(config, given, handle)
    except (ConfigError, StartError) as error:
        log.error("failed to start daemon: %s", error)
        return 1


def _claim(pidfile: Path) -> None:
    """:raises ConfigError: another daemon runs with this pidfile."""
    with contextlib.suppress(OSError, ValueError):
        other = int(pidfile.read_text().strip())
        words = [os.path.basename(word) for word in Path(f"/proc/{other}/cmdline").read_bytes().split(b"\0")]
        # The pid may have been reused.
        is_wharfd = b"wharfd" in words[:2] or (b"-m" in words and b"server" in words)
        if other != os.getpid() and is_wharfd:
            raise ConfigError(f"process with PID {other} is still running: the PID file is {pidfile}")
    pidfile.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    pidfile.write_text(f"{os.getpid()}\n")


def run(config: Config, given: Given, handle: zygote.Handle) -> int:
    """Run the daemon with this configuration. Returns the exit status."""
    heap.use_single_arena()
    os.umask(0o022)
    os.chdir("/")
    # gRPC's C library, which calls etcd in a swarm, reads these when it is loaded: disable its log lines, and its fork
    # handlers, which we don't need because forked children never use it.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    if config.userns_remap:
        from server.config.remap import remapped

        config = remapped(config)
    _warn_of_proxies(config)
    if "restart" in given:
        log.warning("Flag --restart has been deprecated, Please use a restart policy on docker run")
    close_roots(config)
    _claim(config.pidfile)
    try:
        return _run(config, given, handle)
    finally:
        config.pidfile.unlink(missing_ok=True)


def close_roots(config: Config) -> None:
    """Create both roots, or set the modes that keep other users of the host out. With mapped container ids, the data
    root has these modes already (``remap.py``)."""
    if config.id_maps is None:
        private.restrict_directory(config.data_root, 0o710)
    # Users of the API socket, which may be in this directory, must be able to pass through.
    private.restrict_directory(config.exec_root, private.PASSABLE)
    # Other directories of the data root need no modes of their own; these contain secrets even if an administrator
    # opens the root. Create none of them: an existing directory of builds makes the daemon load the builder.
    build = config.data_root / "build"
    below = 0o710 if config.id_maps is None else private.PASSABLE
    for path, mode in (
        (config.exec_root / "containers", private.PASSABLE),
        (config.exec_root / "build", private.PASSABLE),
        (config.data_root / "containers", below),
        (build, below),
    ):
        if path.is_dir():
            private.restrict_directory(path, mode)
    for file in build.glob("*.db*"):
        private.make_file(file)


def _warn_of_proxies(config: Config) -> None:
    """Warn about proxies of the environment that the configuration overrides."""
    for name in ("http_proxy", "https_proxy", "no_proxy"):
        value: str = getattr(config, name)
        for variable in (name, name.upper()):
            if value and os.environ.get(variable, value) != value:
                log.warning("overriding existing proxy variable with value from configuration: %s", variable)


def _share() -> None:
    """Import the modules that wharfd and the supervisor share, before the fork. Starts no thread."""
    import asyncio
    import sqlite3

    import engine.api.client

    del asyncio, sqlite3, engine


def _run(config: Config, given: Given, handle: zygote.Handle) -> int:
    supervisor: Supervisor | None = None
    # Before the sockets are bound: the fork must not inherit them.
    if config.embedded:
        supervisor = Supervisor(config)
        supervisor.launch(_share, handle)
    try:
        # Half a second of imports, while the supervisor starts on another core.
        from server.daemon import serve

        if supervisor is not None:
            supervisor.await_ready()
        return serve(config, given, supervisor, None if config.embedded else handle)
    except BaseException:
        # After a failed start, stop the supervisor if this process started it.
        if supervisor is not None and supervisor.started_here:
            supervisor.stop_blocking()
        raise
