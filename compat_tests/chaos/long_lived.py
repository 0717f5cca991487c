"""Long-lived containers of the experiment, and their expected final states."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from compat_tests.chaos.journal import Journal, Unexpected
from compat_tests.chaos.load import reachable
from compat_tests.support.containers import inspect, state
from compat_tests.support.engines import Wharf
from compat_tests.support.polling import until

NETWORK = "chaos-net"
COUNT = "echo start; i=0; while :; do echo $i; i=$((i+1)); sleep 0.1; done"
WEB = "mkdir -p /www; echo chaos > /www/index.html; exec httpd -f -p 80 -h /www"
ENDS = 7  # the exit code of the one that exits by itself, and of the one that fails repeatedly
KILLED = 137
CYCLES = [f"cycle{number}" for number in range(8)]
SETTLED = 90.0  # seconds; at least the longest delay of a restart


def contiguous(lines: Iterable[str]) -> str:
    """Return what is wrong with the output of ``COUNT``: a gap or a repeat within a run; "" if nothing."""
    expected: int | None = None
    for line in lines:
        if line == "start":
            expected = 0
        elif not line.isdigit() or (expected is not None and int(line) != expected):
            return f"{line!r} where {expected} is due"
        else:
            expected = int(line) + 1
    return ""


class LongLivedContainers:
    """Containers that exist during the whole experiment. ``check`` changes nothing and may be called repeatedly."""

    def __init__(self, engine: Wharf, journal: Journal) -> None:
        self._engine, self._journal = engine, journal
        self.ids: dict[str, str] = {}
        engine.docker("network", "create", NETWORK)
        self._run("count", COUNT, "--restart", "always")
        self._run("keeps", COUNT, "--restart", "unless-stopped")
        self._run("fails", f"sleep 1; exit {ENDS}", "--restart", "on-failure")
        self._run("limited", f"sleep 1; exit {ENDS}", "--restart", "on-failure:3")
        self._run("stopped", "exec sleep 36000", "--restart", "unless-stopped")
        self._run("plain", "exec sleep 36000")
        self._run("ends", f"sleep 15; exit {ENDS}")
        self._run(
            "web", WEB, "--restart", "always", "-p", "127.0.0.1::80", "--network", NETWORK, "--network-alias", "w"
        )
        self._run("client", "exec sleep 36000", "--restart", "always", "--network", NETWORK)
        for name in CYCLES:
            # Long enough for the shortest restart delay, so that some always exit while a daemon recovers.
            self._run(name, f"sleep 11; exit {ENDS}", "--restart", "always", "-p", "127.0.0.1::80")
        health = ("--health-cmd", "true", "--health-interval", "1s")
        self._run("health", "exec sleep 36000", "--restart", "always", *health)
        engine.docker("stop", "-t", "0", "chaos-stopped")

    def _run(self, name: str, script: str, *options: str) -> None:
        argv = ("run", "-d", "--name", f"chaos-{name}", *options, "busybox", "sh", "-c", script)
        self.ids[name] = self._engine.docker(*argv).stdout.strip()

    def follow(self, stop: threading.Event) -> None:
        """Run `logs -f` on a container, again after each cut: no gap and no repeat within one run."""
        while not stop.is_set():
            if not reachable(self._engine):
                stop.wait(0.1)
                continue
            with self._journal.operation("logs -f") as operation:
                operation.containers.append(self.ids["count"])
                self._follow_once(stop)

    def _follow_once(self, stop: threading.Event) -> None:
        with self._engine.popen("logs", "-f", "--tail", "1", "chaos-count", stdin=subprocess.DEVNULL) as client:
            stopped_by_request = False

            def end() -> None:
                nonlocal stopped_by_request
                stop.wait(30)
                stopped_by_request = True
                client.terminate()

            threading.Thread(target=end, daemon=True).start()
            out, err = client.communicate(timeout=120)
            if client.returncode and not stopped_by_request:
                stop.wait(0.2)  # the daemon may be down
                raise AssertionError(f"logs -f ended with {client.returncode}: {err.decode(errors='replace')[-300:]}")
        lines = out.decode(errors="replace").splitlines()
        if lines and not lines[-1].isdigit() and lines[-1] != "start":
            lines.pop()  # incomplete line
        if wrong := contiguous(lines):
            raise Unexpected(wrong)

    def inspect(self, name: str) -> dict[str, Any]:
        return inspect(self._engine, self.ids[name])

    def _state(self, name: str) -> dict[str, Any]:
        return state(self._engine, self.ids[name])

    # Expected states.

    def check(self, when: str) -> None:
        """Record deviations in the journal."""
        checks: dict[str, Callable[[], bool]] = {
            **{name: lambda name=name: self._lives(name) for name in ("count", "keeps", "web", "client", "health")},  # type: ignore[misc]
            "fails": lambda: self._fails("fails"),
            **{name: lambda name=name: self._fails(name) for name in CYCLES},  # type: ignore[misc]
            "limited": self._limited,
            "stopped": lambda: (
                (self._state("stopped")["Status"], self._state("stopped")["ExitCode"]) == ("exited", KILLED)
            ),
            "plain": self._plain,
            "ends": self._ends,
            "port": self._port,
            "alias": self._alias,
            "healthy": lambda: self._state("health").get("Health", {}).get("Status") == "healthy",
        }
        for name, right in checks.items():
            if not until(right, seconds=SETTLED):
                inspected = self.inspect({"port": "web", "alias": "client", "healthy": "health"}.get(name, name))
                facts = {key: inspected["State"][key] for key in ("Status", "ExitCode", "Error", "Pid")}
                self._journal.add_wrong(f"{when}: {name} is not right: {facts} restarts {inspected['RestartCount']}")
        for name in ("count", "keeps"):
            lines = self._engine.docker("logs", f"chaos-{name}").stdout.splitlines()
            if wrong := contiguous(lines):
                self._journal.add_wrong(f"{when}: logs of {name}: {wrong}")

    def _lives(self, name: str) -> bool:
        state = self._state(name)
        return state["Status"] == "running" and bool(state["Pid"])

    def _fails(self, name: str) -> bool:
        """It runs or waits for its next run, with its own exit code or that of a killed shim."""
        state = self._state(name)
        return bool(state["Running"]) and (state["Pid"] > 0 or state["ExitCode"] in (ENDS, KILLED))

    def _limited(self) -> bool:
        now = self.inspect("limited")
        state = now["State"]
        codes = (ENDS, KILLED) if self._journal.ended(self.ids["limited"]) else (ENDS,)
        return (state["Status"], now["RestartCount"], state["ExitCode"] in codes) == ("exited", 3, True)

    def _plain(self) -> bool:
        state = self._state("plain")
        if self._journal.ended(self.ids["plain"]):
            return (state["Status"], state["ExitCode"]) == ("exited", KILLED)
        return self._lives("plain")

    def _ends(self) -> bool:
        state = self._state("ends")
        codes = (ENDS, KILLED) if self._journal.ended(self.ids["ends"]) else (ENDS,)
        return state["Status"] == "exited" and state["ExitCode"] in codes

    def _port(self) -> bool:
        bindings = self.inspect("web")["NetworkSettings"]["Ports"].get("80/tcp") or []
        if not bindings:
            return False
        try:
            with socket.create_connection(("127.0.0.1", int(bindings[0]["HostPort"])), timeout=10) as sock:
                sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
                answer = b""
                while data := sock.recv(4096):
                    answer += data
        except OSError:
            return False
        return answer.endswith(b"chaos\n")

    def _alias(self) -> bool:
        done = self._engine.docker("exec", "chaos-client", "wget", "-qO-", "http://w/", check=False)
        return done.stdout == "chaos\n"

    def remove(self) -> None:
        """:raises AssertionError: one can't be removed."""
        began = time.monotonic()
        self._engine.docker("rm", "-f", "-v", *self.ids.values())
        self._engine.docker("network", "rm", NETWORK)
        if (seconds := time.monotonic() - began) > SETTLED:
            self._journal.add_wrong(f"removing the containers took {seconds:.0f} s")
