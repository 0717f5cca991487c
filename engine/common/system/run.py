"""Runs external programs: explicit environment, stdin from the null device, always a deadline."""

import asyncio
import contextlib
import os
import shlex
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.common.errors import Kind, WharfError

#: The environment that tools need, without variables of a user's shell.
DEFAULT_ENV: Mapping[str, str] = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
    "HOME": "/",
}


@dataclass(frozen=True, slots=True)
class Completed:
    """A finished program: its output and its status (negative: killed by that signal)."""

    stdout: bytes
    stderr: bytes
    status: int


def _failure(argv: Sequence[str], done: Completed) -> WharfError:
    text = done.stderr.decode(errors="replace").strip() or done.stdout.decode(errors="replace").strip()
    return WharfError(Kind.INTERNAL, f"{shlex.join(argv)}: exit status {done.status}: {text}")


def _late(argv: Sequence[str], deadline: float) -> WharfError:
    return WharfError(Kind.DEADLINE_EXCEEDED, f"{shlex.join(argv)}: not done after {deadline:g} s")


async def run(
    argv: Sequence[str],
    *,
    deadline: float,
    input: bytes | None = None,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    check: bool = False,
    pass_fds: Sequence[int] = (),
) -> Completed:
    """Runs a program to its end without blocking the loop.

    :param deadline: seconds; then the program's whole process group is killed.
    :param check: raise if the status isn't 0.
    :raises WharfError: DEADLINE_EXCEEDED; INTERNAL with the program's error output (``check``).
    :raises FileNotFoundError, PermissionError: it can't be started.
    """
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=subprocess.DEVNULL if input is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=dict(DEFAULT_ENV if env is None else env),
        cwd=cwd,
        start_new_session=True,
        pass_fds=tuple(pass_fds),
    )
    try:
        async with asyncio.timeout(deadline):
            stdout, stderr = await process.communicate(input)
    except TimeoutError:
        raise _late(argv, deadline) from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await asyncio.shield(process.wait())
    assert process.returncode is not None
    done = Completed(stdout, stderr, process.returncode)
    if check and done.status != 0:
        raise _failure(argv, done)
    return done


def run_sync(
    argv: Sequence[str],
    *,
    deadline: float,
    input: bytes | None = None,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    check: bool = False,
    pass_fds: Sequence[int] = (),
) -> Completed:
    """Like ``run``, for threads and for the start before a loop exists."""
    with subprocess.Popen(
        list(argv),
        stdin=subprocess.DEVNULL if input is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=dict(DEFAULT_ENV if env is None else env),
        cwd=cwd,
        start_new_session=True,
        pass_fds=tuple(pass_fds),
    ) as process:
        try:
            stdout, stderr = process.communicate(input, timeout=deadline)
        except BaseException as error:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if isinstance(error, subprocess.TimeoutExpired):
                raise _late(argv, deadline) from None
            raise
    done = Completed(stdout, stderr, process.returncode)
    if check and done.status != 0:
        raise _failure(argv, done)
    return done
