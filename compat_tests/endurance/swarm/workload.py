"""What clients do with services, and what the swarm must have after it."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from compat_tests.support.hosts.host import Host
from compat_tests.support.hosts.swarm import LABEL

#: The label of its services and of their containers.
_MARK = "workload"
MAX_SERVICES, MAX_REPLICAS = 4, 6
#: The text of each secret begins with it: it must not be found on a disk.
SECRET = "endurance-secret-text-"
_SHORT = 30
#: How often a client tries a change that conflicts with another one.
_TRIES = 5


@dataclass(frozen=True, slots=True)
class Service:
    """A service as its last accepted request has left it. ``certain``: whether the answer to the last request came; if
    not, the swarm decides."""

    replicas: int
    version: int
    certain: bool = True


class Workload:
    """Requests on random services. A request whose answer is an error may have been executed or not."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._number = 0
        #: None: removed, perhaps.
        self.services: dict[str, Service | None] = {}
        self.requests: Counter[str] = Counter()

    def act(self, manager: Host) -> str:
        """Send one request to a manager; returns the error, or "" if it is accepted."""
        present = [name for name, service in self.services.items() if service is not None]
        kinds: list[Callable[[Host, str], str]] = [self._create] if len(present) < MAX_SERVICES else []
        if present:
            kinds += [self._scale, self._update, self._update, self._remove]
        work = self._chance.choice(kinds)
        error = work(manager, self._chance.choice(present) if present else "")
        self.requests["refused" if error else "accepted"] += 1
        return error

    def write(self, manager: Host) -> str:
        """A request that changes nothing else: makes a config."""
        self._number += 1
        return _error(manager, "config", "create", f"config{self._number}", "-", input="x")

    def _create(self, manager: Host, _: str) -> str:

        self._number += 1
        name, secret = f"s{self._number}", f"secret{self._number}"
        if error := _error(manager, "secret", "create", secret, "-", input=f"{SECRET}{self._number}"):
            return error
        made = Service(self._chance.randint(1, MAX_REPLICAS), 1)
        options = ("--replicas", str(made.replicas), "--env", "VERSION=1", "--secret", secret)
        quick = ("--init", "--restart-delay", "1s", "--update-parallelism", "0")
        marked = ("--label", _MARK, "--container-label", _MARK)
        argv = ("service", "create", "-d", "--no-resolve-image", "--name", name, *marked, *options, *quick)
        error = _error(manager, *argv, "busybox", "sleep", "100000")
        self.services[name] = replace(made, certain=not error)
        return error

    def _scale(self, manager: Host, name: str) -> str:
        wanted = self._chance.randint(0, MAX_REPLICAS)
        return self._change(manager, name, "--replicas", str(wanted), replicas=wanted)

    def _update(self, manager: Host, name: str) -> str:
        service = self.services[name]
        assert service is not None
        wanted = service.version + 1
        return self._change(manager, name, "--env-add", f"VERSION={wanted}", version=wanted)

    def _change(self, manager: Host, name: str, *words: str, replicas: int = -1, version: int = -1) -> str:
        service = self.services[name]
        assert service is not None
        for _ in range(_TRIES):
            error = _error(manager, "service", "update", "-d", "--no-resolve-image", *words, name)
            # The swarm has changed the service between the client's reading and writing: it noted the update's state.
            if "update out of sequence" not in error:
                break
        changed = replace(
            service,
            replicas=service.replicas if replicas < 0 else replicas,
            version=service.version if version < 0 else version,
        )
        self.services[name] = replace(service, certain=False) if error else replace(changed, certain=service.certain)
        return error

    def _remove(self, manager: Host, name: str) -> str:
        error = _error(manager, "service", "rm", name)
        service = self.services[name]
        assert service is not None
        self.services[name] = replace(service, certain=False) if error else None
        return error

    def compare(self, manager: Host) -> list[str]:
        """What the swarm has that no accepted request explains. Learns what became of requests without an answer."""
        found = {}
        ids = manager.docker("service", "ls", "-q", "--filter", f"label={_MARK}").stdout.split()
        for spec in json.loads(manager.docker("service", "inspect", *ids).stdout) if ids else ():
            task = spec["Spec"]["TaskTemplate"]["ContainerSpec"]
            version = next(int(each.partition("=")[2]) for each in task["Env"] if each.startswith("VERSION="))
            found[spec["Spec"]["Name"]] = Service(spec["Spec"]["Mode"]["Replicated"]["Replicas"], version)
        wrong = []
        for name, service in self.services.items():
            if service is None and name in found:
                wrong.append(f"{name} was removed, and is there again: {found[name]}")
            elif service is not None and service.certain and found.get(name) != service:
                wrong.append(f"{name} is {found.get(name)}, accepted was {service}")
        self.services = dict(found)
        return wrong

    def misplaced(self, hosts: Sequence[Host]) -> list[str]:
        """What is wrong with the containers on these hosts: each service has its replicas, each task runs once."""
        wrong = []
        form = f'{{{{.Names}}}} {{{{.Label "{LABEL}"}}}}'
        rows = [
            [*line.split(), host.name]
            for host in hosts
            for line in host.docker("ps", "--format", form, "--filter", f"label={_MARK}").stdout.splitlines()
        ]
        for name, number in Counter(row[0] for row in rows).items():
            if number > 1:
                wrong.append(f"{name} runs on {[row[2] for row in rows if row[0] == name]}")
        counts = Counter(row[1] for row in rows)
        for name, service in self.services.items():
            if service is not None and counts[name] != service.replicas:
                wrong.append(f"{name} has {counts[name]} containers instead of {service.replicas}")
        wrong += [f"{name} was removed, and has {counts[name]}" for name in counts if self.services.get(name) is None]
        return wrong + self._outdated(hosts)

    def _outdated(self, hosts: Sequence[Host]) -> list[str]:
        wrong = []
        for host in hosts:
            ids = host.docker("ps", "-q", "--filter", f"label={_MARK}").stdout.split()
            form = f'{{{{.Name}}}} {{{{index .Config.Labels "{LABEL}"}}}} {{{{json .Config.Env}}}}'
            shown = host.docker("inspect", "-f", form, *ids, check=False).stdout if ids else ""
            # A container that has ended meanwhile has an empty line.
            for line in filter(None, shown.splitlines()):
                name, label, variables = line.split(maxsplit=2)
                service = self.services.get(label)
                if service is not None and f"VERSION={service.version}" not in json.loads(variables):
                    wrong.append(f"{name} on {host.name} is outdated: {variables}, not {service.version}")
        return wrong


def _error(manager: Host, *argv: str, input: str = "") -> str:
    done = manager.docker(*argv, input=input, check=False, timeout=_SHORT)
    return "" if done.status == 0 else done.output.strip() or "failed"
