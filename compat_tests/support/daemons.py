"""Processes of the tests: programs that end, and daemons, started with a mark, monitored by their log, ended by their
pid."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from compat_tests.support.api import Api, Credentials
from compat_tests.support.host.processes import MARK
from compat_tests.support.images import ROOT
from compat_tests.support.polling import until

# The running daemons, for the report of a failed test.
LIVE: list[Daemon] = []

START = 90.0  # seconds that a daemon may take to answer, on a loaded machine
STOP = 60.0


@dataclass(frozen=True, slots=True)
class Completed:
    """A completed command."""

    argv: tuple[str, ...]
    status: int
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        return self.stdout + self.stderr

    def checked(self) -> Completed:
        """Return self; raise an AssertionError with the command's output if it failed."""
        shown = " ".join(self.argv)
        assert self.status == 0, f"`{shown}` ended with {self.status}\n{self.stdout[-4000:]}\n{self.stderr[-4000:]}"
        return self


def run_program(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    input: bytes = b"",
    check: bool = True,
    timeout: float = 90,
    cwd: Path | str | None = None,
    credentials: Credentials | None = None,
) -> Completed:
    """Run a program to its end, as root or with other credentials.

    :raises AssertionError: it fails, unless ``check`` is False. subprocess.TimeoutExpired: it does not end.
    """
    done = subprocess.run(
        argv,
        input=input,
        env=env,
        cwd=cwd,
        user=credentials.uid if credentials else None,
        group=credentials.gid if credentials else None,
        extra_groups=credentials.groups if credentials else None,
        capture_output=True,
        timeout=timeout,
        check=False,
    )
    output, errors = (data.decode(errors="replace") for data in (done.stdout, done.stderr))
    result = Completed(tuple(argv), done.returncode, output, errors)
    return result.checked() if check else result


class Daemon:
    """A background process with a log file; ended by its pid only."""

    def __init__(self, argv: Sequence[str], log: Path, *, mark: str, env: Mapping[str, str] | None = None) -> None:
        self.argv, self.log, self.mark, self.env = list(argv), log, mark, dict(env or {})
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        environ = {
            key: value for key, value in os.environ.items() if not key.startswith(("DOCKER_", "GIT_", "PYTEST_"))
        }
        # An installed engine has compiled modules; without bytecode files, its start would be slower.
        environ.pop("PYTHONDONTWRITEBYTECODE", None)
        environ.setdefault("PYTHONPYCACHEPREFIX", "/var/cache/wharf/pycache")
        environ |= {MARK: self.mark, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **self.env}
        if self not in LIVE:
            LIVE.append(self)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=environ,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def stop(self, *, signal_number: int = signal.SIGTERM) -> int | None:
        """Send a signal and wait; SIGKILL if it does not exit in time. Returns the exit status."""
        if self.process is None:
            return None
        if self.process.poll() is None:
            self.process.send_signal(signal_number)
            try:
                self.process.wait(STOP)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(STOP)
                raise AssertionError(f"{self.argv[0]} did not end within {STOP} s of a signal\n{self.tail()}") from None
        return self.process.returncode

    def tail(self, size: int = 6000, *, since: int = 0) -> str:
        """Return the end of the log, at most `size` characters of the output since byte `since`."""
        with contextlib.suppress(OSError):
            return self.log.read_bytes()[since:].decode(errors="replace")[-size:]
        return ""

    def stacks(self) -> str:
        """Return stack traces of our engine's threads, then of its tasks unless its loop is blocked."""
        if not self.running or "server" not in self.argv:
            return ""
        before = self.written
        os.kill(self.pid, signal.SIGUSR1)
        until(lambda: "\nTask " in self.tail(since=before), seconds=3)
        return self.tail(20000, since=before)

    @property
    def written(self) -> int:
        """Return the size of the log in bytes."""
        with contextlib.suppress(OSError):
            return self.log.stat().st_size
        return 0

    def wait_for(self, api: Api) -> None:
        """Wait until the API answers a ping; fail with the log if the process exits or the time is up."""

        def answers() -> bool:
            if not self.running:
                return True
            try:
                return api.request("GET", "/_ping", timeout=5).status == 200
            except OSError:
                return False

        up = until(answers, seconds=START)
        assert self.running, f"{self.argv} ended with {self.process and self.process.returncode}\n{self.tail()}"
        assert up, f"{self.argv} did not answer within {START} s\n{self.tail()}"


def forget(daemon: Daemon) -> None:
    """Remove an exited daemon from the list of running ones."""
    if daemon in LIVE:
        LIVE.remove(daemon)
