"""Faults: kills of each kind of process at random moments, graceful restarts, and deleted networks."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable

from compat_tests.chaos.journal import Fault, Journal
from compat_tests.support.engines import Wharf
from compat_tests.support.host.processes import Process, listeners, start_time
from compat_tests.support.polling import until

SUPERVISOR, SHIM, ZYGOTE = "wharf-supervis", "wharf-shim", "wharf-zygote"
PAUSE = (0.5, 5.0)  # seconds between a recovery and the next fault


class Faults:
    """Runs one fault after the other until ``over`` is set; the engine has recovered when ``run`` returns."""

    def __init__(self, engine: Wharf, journal: Journal, random: random.Random, *, networks: bool) -> None:
        self._engine, self._journal, self._random = engine, journal, random
        self._kinds: list[tuple[str, Callable[[], None]]] = [
            ("wharfd", self._daemon),
            ("supervisor", self._supervisor),
            ("wharfd and supervisor", self._both),
            ("wharfd while it starts", self._starting),
            ("graceful restart", self._restart),
            ("shim", self._shim),
            ("shim", self._shim),
            ("zygote", self._zygote),
            ("proxy", self._proxy),
        ]
        if networks:
            self._kinds += [("bridge deleted", self._bridge), ("table deleted", self._table)]

    def run(self, stop: threading.Event) -> None:
        while not stop.wait(self._random.uniform(*PAUSE)):
            kind, break_it = self._random.choice(self._kinds)
            try:
                break_it()
            except Exception as error:
                self._journal.add_wrong(f"after the fault {kind}: {error}")
                if not self._engine.daemon.running:
                    return

    def _up(self) -> None:
        """Wait until the daemon and its supervisor answer."""
        self._engine.daemon.wait_for(self._engine.api)

        def whole() -> bool:
            try:
                return self._engine.api.get("/system/df").status == 200
            except OSError:
                return False

        assert until(whole, seconds=60), "the engine does not answer"

    def _pause(self, longest: float) -> None:
        time.sleep(self._random.uniform(0, longest))

    def _daemon(self) -> None:
        with self._journal.fault("wharfd", breaks=True):
            self._engine.kill("wharfd")
            self._pause(1.5)
            self._engine.start()
            self._up()

    def _kill_supervisor(self) -> None:
        for process in self._engine.find(SUPERVISOR):
            process.signal(signal.SIGKILL)

    def _supervisor(self) -> None:
        with self._journal.fault("supervisor", breaks=True):
            self._kill_supervisor()
            time.sleep(0.1)
            self._up()

    def _both(self) -> None:
        with self._journal.fault("wharfd and supervisor", breaks=True):
            first, second = self._random.sample([lambda: self._engine.kill("wharfd"), self._kill_supervisor], 2)
            first()
            second()
            self._pause(1.0)
            self._engine.start()
            self._up()

    def _starting(self) -> None:
        with self._journal.fault("wharfd while it starts", breaks=True):
            self._engine.kill("wharfd")
            if self._random.random() < 0.5:
                self._kill_supervisor()
            self._engine.daemon.start()
            self._pause(1.0)
            if self._random.random() < 0.5:
                self._engine.kill("wharfd")
                self._engine.daemon.start()
            else:
                self._kill_supervisor()
            self._up()

    def _restart(self) -> None:
        with self._journal.fault("graceful restart", breaks=True):
            self._engine.restart()
            self._up()

    def _shim(self) -> None:
        found = self._engine.find(SHIM)
        if not found:
            return
        victim = self._random.choice(found)
        try:
            identity = os.path.basename(os.readlink(f"/proc/{victim.pid}/cwd"))
        except OSError:
            return  # it has exited
        with self._journal.fault("shim", breaks=False) as fault:
            fault.containers = (identity,)
            victim.signal(signal.SIGKILL)
            self._gone([victim])
            # Let the supervisor clean up, and wharfd receive the exit event.
            time.sleep(1.0)

    def _gone(self, victims: list[Process]) -> None:
        assert until(lambda: not any(start_time(each.pid) == each.started for each in victims))

    def _zygote(self) -> None:
        """The next start forks a new zygote: clients notice nothing."""
        self._kill_unnoticed("zygote", self._engine.find(ZYGOTE))

    def _proxy(self) -> None:
        """A new proxy is started; only present connections of published ports are cut."""
        self._kill_unnoticed("proxy", listeners(self._engine.resources.root / "run/proxy.sock"))

    def _kill_unnoticed(self, kind: str, victims: list[Process]) -> None:
        if victims:
            with self._journal.fault(kind, breaks=False):
                for victim in victims:
                    victim.signal(signal.SIGKILL)
                self._gone(victims)

    def _bridge(self) -> None:
        self._network_fault("bridge deleted", "ip", "link", "del", self._engine.resources.bridge)

    def _table(self) -> None:
        self._network_fault("table deleted", "nft", "delete", "table", "inet", f"wharf-{self._engine.resources.bridge}")

    def _network_fault(self, kind: str, *argv: str) -> Fault:
        """Delete what an administrator might delete by mistake; the engine restores it."""
        bridge = self._engine.resources.bridge
        with self._journal.fault(kind, breaks=True) as fault:
            subprocess.run(argv, check=False, capture_output=True, timeout=60)

            def restored() -> bool:
                shown = (
                    ["ip", "link", "show", bridge],
                    ["nft", "list", "table", "inet", f"wharf-{bridge}"],
                )
                return not any(subprocess.run(look, capture_output=True, check=False).returncode for look in shown)

            assert until(restored, seconds=30), f"{kind}: not restored"
        return fault
