"""Makes a process that the runtime created a child of the shim."""

import os
from collections.abc import Callable

from engine.shim.container.process import Process
from engine.shim.loop import Loop
from engine.shim.protocol import RequestError
from engine.shim.runtime.runner import Done, Runner


def launch(
    loop: Loop, runner: Runner, verb: str, process: Process, make: Callable[[str], list[str]], pid_file: str, done: Done
) -> None:
    """Runs ``create``, ``restore`` or ``exec``: the process becomes our child some time before the runtime exits.

    :raises RequestError: the runtime can't be executed.
    """

    def ended(error: RequestError | None) -> None:
        process.runtime_exited()
        if error is None:
            error = _adopt(loop, process, pid_file)
        loop.expected()
        if error is None:
            process.connect()
        else:
            process.abandon()
        done(error)

    loop.expect()
    try:
        runner.call(verb, make, ended, stdio=process.descriptors(runner.null))
    except BaseException:
        loop.expected()
        process.abandon()
        raise
    process.release()


def _adopt(loop: Loop, process: Process, pid_file: str) -> RequestError | None:
    try:
        with open(pid_file) as file:
            process.pid = int(file.read())
        os.unlink(pid_file)
    except (OSError, ValueError) as error:
        return RequestError("internal", f"the runtime left no pid: {error}")
    loop.adopt(process.pid, process.ended)
    return None
