"""A published service on an overlay network, which each host must reach: by its name, and by its published port."""

from __future__ import annotations

from compat_tests.support.hosts.group import Hosts
from compat_tests.support.hosts.host import Host
from compat_tests.support.hosts.swarm import Swarm, running

PORT, REPLICAS = 8080, 3
_SERVE = "hostname > /index.html; exec httpd -f -p 80 -h /"
# Resolves the name, asks the virtual address, and resolves the names of the tasks.
_ASK = "nslookup -type=a web >&- && wget -T 3 -qO- http://web/; nslookup -type=a tasks.web"


class Mesh:
    """``web`` has replicas, of which ``each``, a global service, asks from all hosts."""

    def make(self, manager: Host) -> None:
        manager.docker("network", "create", "-d", "overlay", "front")
        quick = ("--no-resolve-image", "--init", "--restart-delay", "1s", "--network", "front")
        create = ("service", "create", "-d", *quick, "--name")
        web = ("--replicas", str(REPLICAS), "--publish", f"{PORT}:80", "busybox", "sh", "-c", _SERVE)
        manager.docker(*create, "web", *web)
        manager.docker(*create, "each", "--mode", "global", "busybox", "sleep", "100000")

    def wrong(self, swarm: Swarm) -> list[str]:
        """What is wrong with their tasks, and with what each host reaches."""
        web = [id[:12] for ids in running(swarm.hosts, "web").values() for id in ids]
        each = running(swarm.hosts, "each")
        wrong = [] if len(web) == REPLICAS else [f"web has {len(web)} containers instead of {REPLICAS}"]
        wrong += [f"each has {len(ids)} containers on {name}" for name, ids in each.items() if len(ids) != 1]
        if wrong:
            return wrong
        # The containers found above: a moment later, a host may have another one for a while.
        unreached = swarm.hosts.each(lambda host: _unreached(host, swarm.hosts, web, *each[host.name]))
        return [line for lines in unreached for line in lines]


def _unreached(host: Host, hosts: Hosts, web: list[str], asking: str) -> list[str]:
    """``asking``: the container of ``each`` on the host."""
    done = host.docker("exec", asking, "sh", "-c", _ASK, check=False)
    answer, _, resolved = done.stdout.partition("\n")
    wrong = [] if answer in web else [f"{host.name} does not reach web by its name: {done.output}"]
    # The first address is the server's.
    if (found := resolved.count("Address")) != 1 + len(web):
        wrong.append(f"{host.name} resolves tasks.web to {found - 1} addresses: {done.output}")
    return wrong + [
        f"{host.name} does not reach web through {other.name}"
        for other in hosts
        if host.fetch(other.address, PORT).strip() not in web
    ]
