"""Runs the OCI runtime without blocking, and turns its errors into sentences."""

import contextlib
import os
from collections.abc import Callable

from engine.shim.kernel import processes
from engine.shim.loop import Loop, Timer
from engine.shim.protocol import RequestError
from engine.shim.runtime import deadlines, refusals
from engine.shim.runtime.oci import Runtime

Done = Callable[[RequestError | None], None]
Stdio = tuple[int, int, int]

#: The deadlines of verbs without a deadline of their own name.
_DEADLINES = {"restore": "runtime.create", "resume": "runtime.pause"}


class Runner:
    """Runs ``runtime`` with the bundle as working directory; every call has its own log file."""

    def __init__(self, loop: Loop, runtime: Runtime) -> None:
        self.runtime = runtime
        # The sealed null device that this process inherited, opened again: containers share no open file description.
        self.null = os.open("/proc/self/fd/0", os.O_RDWR | os.O_CLOEXEC)
        self._loop = loop
        self._counter = 0
        self._running: dict[int, tuple[str, list[str]]] = {}  # running calls of the runtime: pid → verb, argv
        # No other variables: runtimes pass on what they know (NOTIFY_SOCKET) to the container.
        self._environment = {"PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")}

    def name(self, kind: str) -> str:
        """A file name in the bundle that was not used before."""
        self._counter += 1
        return f"{kind}-{os.getpid()}-{self._counter}"

    def call(self, verb: str, make: Callable[[str], list[str]], done: Done, *, stdio: Stdio | None = None) -> None:
        """``make`` gets the log's path and returns the command line; ``done(None)`` means success.

        A runtime is killed at its deadline, with the processes that it has started: a container's file can be a FIFO,
        which the runtime's own process inside the container blocks on.

        :raises RequestError: the runtime can't be executed.
        """
        log = self.name("log")
        argv = make(log)

        deadline = _DEADLINES.get(verb, f"runtime.{verb}")
        limit = deadlines.RUNTIME.get(deadline, 0.0)  # none of this name: no deadline
        timer: Timer | None = None
        late = False

        def ended(status: int, _now_ns: int) -> None:
            self._running.pop(pid, None)
            if timer is not None:
                timer.cancel()
            message = _read_log(log)
            if status == 0:
                done(None)
            elif late:
                text = f"{deadline}: not done after {limit:g} s"
                done(RequestError("internal", f"OCI runtime {verb} failed: {text}"))
            else:
                sentence = refusals.explain(self.runtime, verb, message)
                done(RequestError("internal", sentence, reason=refusals.reason(sentence)))

        def expire() -> None:
            nonlocal late
            late = True
            processes.kill_runtime(pid, argv)

        null = self.null
        try:
            pid = self._loop.spawn(argv, ended, stdio=stdio or (null, null, null), environment=self._environment)
        except OSError as error:
            raise RequestError("internal", f"OCI runtime {verb} failed: {argv[0]}: {error.strerror}") from None
        self._running[pid] = (verb, argv)
        if limit:
            timer = self._loop.call_later(limit, expire)

    def kill(self, *verbs: str) -> None:
        """Kills running calls of these verbs, as at their deadline; each ends with an error."""
        for pid, (verb, argv) in list(self._running.items()):
            if verb in verbs:
                processes.kill_runtime(pid, argv)


def _read_log(path: str) -> str:
    try:
        with open(path) as file:
            text = file.read()
        os.unlink(path)
    except OSError:
        return ""
    return refusals.last_message(text)


def run_child(work: Callable[[], None]) -> Callable[[], None]:
    """Runs ``work`` in a forked child at low priority; returns a function that waits for its end."""
    pid = os.fork()
    if not pid:
        status = 1
        try:
            os.nice(5)
            work()
            status = 0
        finally:
            os._exit(status)

    def wait() -> None:
        # No such child: the loop has reaped it.
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)

    return wait
