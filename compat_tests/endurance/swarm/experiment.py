"""One fault after the other, with requests and checks during and after each."""

from __future__ import annotations

import random
import statistics
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence

from compat_tests.endurance.swarm.availability import Served, asked, written
from compat_tests.endurance.swarm.faults import Effect, Faults
from compat_tests.endurance.swarm.mesh import PORT, Mesh
from compat_tests.endurance.swarm.workload import SECRET, Workload
from compat_tests.support.hosts.host import Host
from compat_tests.support.hosts.swarm import Swarm, agree, listed, settles

MANAGERS = 3
#: The last manager has a file system of its own, which a fault fills.
DISKS = {MANAGERS - 1: "256m"}
#: Seconds until the majority accepts a request, and until all is as it must be after a fault.
ACCEPTS, CONVERGES = 20.0, 60.0
REQUESTS = 3
#: Seconds that a fault lasts after the requests; in the longest time, nodes count as down.
PAUSES = (0.0, 0.5, 4.0)
REFUSALS = ("The swarm does not have a leader.", "context deadline exceeded", "lost leader status")


class Experiment:
    """``report`` gets a line for each fault."""

    def __init__(self, swarm: Swarm, *, seed: int, report: Callable[[str], None]) -> None:
        self._swarm, self._report = swarm, report
        self._chance = random.Random(seed)
        self._workload = Workload(self._chance)
        self._mesh = Mesh()
        self._faults = Faults(swarm, self._chance)
        self._failures: list[str] = []
        self._accepted: dict[str, list[float]] = defaultdict(list)
        #: The longest times without an accepted write, and without an answer of the mesh, in each fault.
        self._unwritten: dict[str, list[float]] = defaultdict(list)
        self._unserved: dict[str, list[float]] = defaultdict(list)
        self._converged: dict[str, list[float]] = defaultdict(list)

    def run(self, count: int, *, only: Collection[str] = ()) -> Sequence[str]:
        """Returns what was wrong."""
        self._mesh.make(self._swarm.first)
        with written(self._swarm.managers) as writes, asked(self._swarm.hosts, PORT) as answers:
            self._run(count, only, writes, answers)
        self._end()
        return self._failures

    def _run(self, count: int, only: Collection[str], writes: Served, answers: Served) -> None:
        kinds = [name for name in self._faults.kinds if not only or name in only]
        for _ in range(REQUESTS):
            if error := self._workload.act(self._swarm.first):
                self._wrong(f"before the faults: {error}")
        self._converge("no fault")
        for number in range(count):
            name = self._chance.choice(kinds)
            begun = time.monotonic()
            try:
                with self._faults.kinds[name]() as effect:
                    shown = f"{number + 1} {name} {effect}"
                    self._during(name, shown, effect)
                self._converge(name)
                ended = time.monotonic()
                majority = {host.name for host in _intact(self._swarm.managers, effect)}
                intact = [host.name for host in _intact(self._swarm.hosts, effect)]
                self._unwritten[name].append(writes.gap(majority, begun, ended))
                self._unserved[name].append(max(answers.gap([host], begun, ended) for host in intact))
            except (AssertionError, OSError, subprocess.TimeoutExpired) as error:
                shown = f"{number + 1} {name}"
                self._wrong(f"{shown}: {type(error).__name__} {str(error)[-2000:]}")
                self._faults.repair()
            self._report(f"{shown}: {time.monotonic() - begun:.1f} s, {len(self._failures)} failures")
            for served in (writes, answers):
                served.forget(time.monotonic())
            if len(self._failures) > 20:
                break

    def _end(self) -> None:
        """With the services, all containers and networks of the swarm end on all hosts."""
        first, hosts = self._swarm.first, self._swarm.hosts
        for noun in ("service", "secret", "config"):
            if found := first.docker(noun, "ls", "-q").stdout.split():
                first.docker(noun, "rm", *found)
        if not settles(lambda: not any(hosts.each(lambda host: host.docker("ps", "-aq").stdout)), seconds=CONVERGES):
            self._wrong(f"containers are left: {hosts.each(lambda host: host.docker('ps', '-a').stdout)}")
        if not settles(lambda: first.docker("network", "rm", "front").status == 0):
            self._wrong(f"the network is left: {first.docker('network', 'inspect', '-v', 'front', check=False).output}")

    def _wrong(self, line: str) -> None:
        self._failures.append(line)
        self._report(f"WRONG {line}")

    def _during(self, name: str, shown: str, effect: Effect) -> None:
        """The majority accepts requests within the bound, and the minority none."""
        majority = _intact(self._swarm.managers, effect)
        begun = time.monotonic()
        # Any of them may be asked: which one is not the leader's follower yet is a matter of the moment.
        if settles(lambda: not self._workload.write(self._chance.choice(majority)), seconds=ACCEPTS):
            self._accepted[name].append(time.monotonic() - begun)
        else:
            self._wrong(f"{shown}: the majority accepts nothing: {self._workload.write(majority[0])}")
        for _ in range(REQUESTS):
            if (error := self._workload.act(self._chance.choice(majority))) and not effect.broken:
                self._wrong(f"{shown}: refused: {error}")
        for host in effect.minority:
            self._refuses(shown, host)
        pause = self._chance.choice(PAUSES)
        time.sleep(pause)
        if effect.lost and pause == max(PAUSES):
            self._rescheduled(shown, effect, majority[0])

    def _rescheduled(self, shown: str, effect: Effect, manager: Host) -> None:
        """The hosts that are left run all replicas."""
        for line in self._workload.compare(manager):
            self._wrong(f"{shown}: {line}")
        intact = [host for host in self._swarm.hosts if host not in effect.broken]
        if not settles(lambda: not self._workload.misplaced(intact), seconds=CONVERGES):
            self._wrong(f"{shown}: not rescheduled: {self._workload.misplaced(intact)}")

    def _refuses(self, shown: str, host: Host) -> None:
        refusal = ""

        def refused() -> bool:
            nonlocal refusal
            refusal = self._workload.write(host)
            return any(sentence in refusal for sentence in REFUSALS)

        if not settles(refused, seconds=ACCEPTS):
            self._wrong(f"{shown}: the minority answers {refusal or 'success'}")

    def _converge(self, name: str) -> None:
        """All nodes are ready, all managers show the same, each service has its replicas, no secret is on a disk."""
        begun = time.monotonic()
        managers = self._swarm.managers

        def ready() -> bool:
            return all(self._complete(listed(host, "node")) for host in managers) and all(
                agree(managers, noun) for noun in ("node", "secret", "config", "network", "service")
            )

        if not settles(ready, seconds=CONVERGES):
            shown = {host.name: host.docker("node", "ls", check=False).output for host in managers}
            self._wrong(f"after {name}: the managers don't agree: {shown}")
            return
        for line in self._workload.compare(self._chance.choice(managers)):
            self._wrong(f"after {name}: {line}")
        if not settles(lambda: not self._workload.misplaced(self._swarm.hosts), seconds=CONVERGES):
            self._wrong(f"after {name}: {self._workload.misplaced(self._swarm.hosts)}")
        if not settles(lambda: not self._mesh.wrong(self._swarm), seconds=CONVERGES):
            self._wrong(f"after {name}: {self._mesh.wrong(self._swarm)}")
        self._converged[name].append(time.monotonic() - begun)
        for host in self._swarm.hosts:
            if found := _written(host):
                self._wrong(f"after {name}: {host.name} has a secret on its disk: {found}")

    def _complete(self, rows: Sequence[tuple[str, ...]]) -> bool:
        """Whether these rows of ``docker node ls`` are all nodes, in their roles."""
        roles = {row[1]: len(row) > 4 and row[4] in ("Leader", "Reachable") for row in rows if row[2] == "Ready"}
        wanted = {host.name: host in self._swarm.managers for host in self._swarm.hosts}
        return roles == wanted and len(rows) == len(wanted)

    def figures(self) -> list[str]:
        """A table of the times in seconds: median and longest. ``no write`` and ``no answer`` are the longest times in
        a fault in which no intact manager accepted a write, and an intact host did not answer on the published port."""
        rows = [f"{'fault':<26} {'n':>3} {'accepts':>13} {'no write':>13} {'no answer':>13} {'converges':>13}"]
        for name, converged in sorted(self._converged.items()):
            times = (self._accepted[name], self._unwritten[name], self._unserved[name], converged)
            rows.append(f"{name:<26} {len(converged):>3}" + "".join(map(_median_and_longest, times)))
        return [*rows, f"requests: {dict(self._workload.requests)}"]


def _intact(hosts: Sequence[Host], effect: Effect) -> Sequence[Host]:
    """Those that the fault has not hit; all, if it has hit all."""
    return [host for host in hosts if host not in effect.broken] or hosts


def _median_and_longest(times: Sequence[float]) -> str:
    return f" {statistics.median(times):>6.1f} {max(times):>6.1f}" if times else " " * 14


def _written(host: Host) -> list[str]:
    """The files on the disk of a host with the text of a secret."""
    searched = subprocess.run(
        ["grep", "-rlFs", "-D", "skip", SECRET, str(host.resources.root)], capture_output=True, check=False, timeout=120
    )
    return searched.stdout.decode(errors="replace").split()
