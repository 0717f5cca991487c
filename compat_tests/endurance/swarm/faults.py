"""Faults of hosts and of links, each with its end."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from compat_tests.support.hosts.host import Host
from compat_tests.support.hosts.swarm import Swarm, info, leader, nodes, settles

_SHIM = "wharf-shim"


@dataclass(frozen=True, slots=True)
class Effect:
    """``broken``: the hosts that the fault has hit; ``minority``: those of them that are managers without a majority,
    and run; ``lost``: whether the swarm can't reach them, so that their tasks run elsewhere after a while."""

    broken: Sequence[Host] = ()
    minority: Sequence[Host] = ()
    lost: bool = False

    def __str__(self) -> str:
        return " ".join(host.name for host in self.broken)


Fault = Callable[[], AbstractContextManager[Effect]]


class Faults:
    """The faults by their names. Each is a context: the fault has its effect during the block, and is over after it."""

    def __init__(self, swarm: Swarm, chance: random.Random) -> None:
        self._swarm, self._chance = swarm, chance
        self.kinds: dict[str, Fault] = {
            "kill the engine": self._kill,
            "kill the leader's engine": self._kill_leader,
            "kill the supervisor": self._supervisor,
            "kill a shim": self._shim,
            "kill all shims": self._shims,
            "restart": self._restart,
            "restart of all": self._restart_of_all,
            "cut a link": self._cut,
            "partition a manager": self._partition,
            "partition a worker": self._isolate,
            "freeze the leader": self._freeze_leader,
            "freeze a worker": self._freeze_worker,
            "power failure": self._power,
            "power failure of all": self._power_of_all,
            "fill a manager's disk": self._fill,
            "promote a worker": self._promote,
            "demote a manager": self._demote,
            "a worker leaves": self._worker_leaves,
            "a manager leaves": self._manager_leaves,
            "a manager is lost": self._manager_lost,
        }
        if any(host.find("etcd") for host in swarm.managers):
            self.kinds["kill etcd"] = self._etcd

    def _any(self) -> Host:
        return self._chance.choice(list(self._swarm.hosts))

    def _manager(self) -> Host:
        return self._chance.choice(self._swarm.managers)

    @contextmanager
    def _kill(self) -> Iterator[Effect]:
        yield from self._killed(self._any())

    @contextmanager
    def _kill_leader(self) -> Iterator[Effect]:
        yield from self._killed(leader(self._swarm.managers))

    def _killed(self, host: Host) -> Iterator[Effect]:
        host.kill(host.daemon_name)
        yield Effect([host], lost=True)
        host.start()

    @contextmanager
    def _etcd(self) -> Iterator[Effect]:
        host = self._manager()
        host.kill("etcd")
        yield Effect([host])

    @contextmanager
    def _supervisor(self) -> Iterator[Effect]:
        host = self._any()
        host.kill(host.supervisor_name)
        yield Effect([host])

    @contextmanager
    def _shim(self) -> Iterator[Effect]:
        host = self._any()
        if found := host.find(_SHIM):
            self._chance.choice(found).signal(signal.SIGKILL)
        yield Effect()

    @contextmanager
    def _shims(self) -> Iterator[Effect]:
        host = self._any()
        for process in host.find(_SHIM):
            process.signal(signal.SIGKILL)
        yield Effect()

    @contextmanager
    def _restart_of_all(self) -> Iterator[Effect]:
        self._swarm.hosts.stop()
        self._swarm.hosts.start()
        yield Effect(list(self._swarm.hosts))

    @contextmanager
    def _restart(self) -> Iterator[Effect]:
        host = self._any()
        host.restart()
        yield Effect([host])

    @contextmanager
    def _cut(self) -> Iterator[Effect]:
        one, other = self._chance.sample(list(self._swarm.hosts), 2)
        self._swarm.hosts.cut(one, other)
        yield Effect([one, other])
        self._swarm.hosts.heal()

    @contextmanager
    def _partition(self) -> Iterator[Effect]:
        """The manager may have a worker on its side."""
        host = self._manager()
        with_it = self._chance.sample(self._swarm.workers, self._chance.randint(0, min(1, len(self._swarm.workers))))
        self._swarm.hosts.partition([host, *with_it])
        yield Effect([host, *with_it], minority=[host], lost=True)
        self._swarm.hosts.heal()

    @contextmanager
    def _isolate(self) -> Iterator[Effect]:
        host = self._chance.choice(self._swarm.workers)
        self._swarm.hosts.partition([host])
        yield Effect([host], lost=True)
        self._swarm.hosts.heal()

    @contextmanager
    def _freeze_leader(self) -> Iterator[Effect]:
        yield from self._frozen(leader(self._swarm.managers))

    @contextmanager
    def _freeze_worker(self) -> Iterator[Effect]:
        yield from self._frozen(self._chance.choice(self._swarm.workers))

    def _frozen(self, host: Host) -> Iterator[Effect]:
        host.freeze()
        try:
            yield Effect([host], lost=True)
        finally:
            host.thaw()

    @contextmanager
    def _power(self) -> Iterator[Effect]:
        host = self._any()
        host.power_off()
        yield Effect([host], lost=True)
        host.power_on()

    @contextmanager
    def _power_of_all(self) -> Iterator[Effect]:
        self._swarm.hosts.power_off()
        self._swarm.hosts.power_on()
        yield Effect(list(self._swarm.hosts))

    @contextmanager
    def _fill(self) -> Iterator[Effect]:
        host = next(host for host in self._swarm.managers if host.has_disk)
        with host.full_disk():
            yield Effect([host])
        host.start_again()

    @contextmanager
    def _promote(self) -> Iterator[Effect]:
        """The worker is a manager during the block, and accepts requests."""
        host = self._chance.choice(self._swarm.workers)
        self._set_role(host, "promote")
        yield Effect()
        self._set_role(host, "demote")

    @contextmanager
    def _demote(self) -> Iterator[Effect]:
        host = self._manager()
        self._set_role(host, "demote")
        yield Effect([host])
        self._set_role(host, "promote")

    @contextmanager
    def _worker_leaves(self) -> Iterator[Effect]:
        host = self._chance.choice(self._swarm.workers)
        host.docker("swarm", "leave")
        yield Effect([host], lost=True)
        self._swarm.rejoin(host, "worker")

    @contextmanager
    def _manager_leaves(self) -> Iterator[Effect]:
        host = self._manager()
        self._set_role(host, "demote")
        host.docker("swarm", "leave")
        yield Effect([host], lost=True)
        self._swarm.rejoin(host, "manager")

    @contextmanager
    def _manager_lost(self) -> Iterator[Effect]:
        """It leaves by force: the others remove it later."""
        host = self._manager()
        host.docker("swarm", "leave", "--force")
        yield Effect([host], lost=True)
        self._swarm.rejoin(host, "manager")

    def _set_role(self, host: Host, verb: str) -> None:
        """Promote or demote the node, and wait until it has its role.

        :raises AssertionError: it has not.
        """
        other = next(manager for manager in self._swarm.managers if manager is not host)
        other.docker("node", verb, host.name)
        manager = verb == "promote"

        def done() -> bool:
            shown = nodes(other)[host.name]["ManagerStatus"]
            return info(host)["ControlAvailable"] is manager and (shown in ("Reachable", "Leader")) is manager

        assert settles(done), f"{verb} of {host.name}: {nodes(other)} {info(host)}"

    def repair(self) -> None:
        """After a fault that has failed: all hosts run, and have their places in the swarm."""
        self._swarm.hosts.heal()
        self._swarm.hosts.each(lambda host: host.start_again())
        for host in self._swarm.hosts:
            manager = host in self._swarm.managers
            if (info(host)["LocalNodeState"], info(host)["ControlAvailable"]) != ("active", manager):
                self._swarm.rejoin(host, "manager" if manager else "worker")
