"""Services over several hosts: networks, the routing mesh, logs, secrets, and what every manager shows of them."""

from __future__ import annotations

import json
import subprocess
from functools import partial

import pytest

from compat_tests.support.hosts.host import Host
from compat_tests.support.hosts.swarm import Swarm, agree, count, listed, placed, running, settles
from compat_tests.support.http_load import SERVER, load

SERVE = "hostname > /index.html; exec httpd -f -p 80 -h /"
PORT = 8080
HEALTHY = ("--health-cmd", "wget -qO- http://127.0.0.1/", "--health-interval", "200ms")
SECRET = "battery-staple-of-five-hosts"
CREATE = ("service", "create", "-d", "--init", "--name")


def runs(swarm: Swarm, service: str, replicas: int) -> bool:
    return settles(lambda: [state for _, state in placed(swarm.first, service)] == ["Running"] * replicas)


def container(host: Host, service: str) -> str:
    return running([host], service)[host.name][0]


def test_a_global_service_runs_on_each_node(swarm: Swarm) -> None:
    swarm.managers[1].docker(
        *CREATE, "each", "--mode", "global", "--env", "AT={{.Node.Hostname}}", "busybox", "sleep", "1000"
    )
    assert runs(swarm, "each", 5)
    assert [node for node, _ in placed(swarm.managers[2], "each")] == [host.name for host in swarm.hosts]
    for host in swarm.hosts:
        assert host.docker("exec", container(host, "each"), "sh", "-c", "echo $AT").stdout == f"{host.name}\n"


def test_scale_update_and_remove_through_any_manager(swarm: Swarm) -> None:
    first, second, third = swarm.managers
    first.docker(*CREATE, "web", "--replicas", "2", "busybox", "sleep", "1000")
    second.docker("service", "scale", "-d", "web=7")
    assert settles(lambda: count(swarm.hosts, "web") == 7)
    assert max(map(len, running(swarm.hosts, "web").values())) == 2
    third.docker("service", "update", "-d", "--env-add", "A=1", "--update-parallelism", "0", "web")
    assert settles(lambda: _environments(swarm, "web") == [True] * 7)
    assert settles(lambda: agree(swarm.managers, "service"))
    assert [row[3] for row in listed(second, "service")] == ["7/7"]
    second.docker("service", "rm", "web")
    assert settles(lambda: not any(swarm.hosts.each(lambda host: host.docker("ps", "-aq").stdout)))


def _environments(swarm: Swarm, service: str) -> list[bool]:
    """Whether the containers of a service have the variable A, those that run."""
    return [
        "A=1" in json.loads(host.docker("inspect", "-f", "{{json .Config.Env}}", id).stdout)
        for host in swarm.hosts
        for id in running([host], service)[host.name]
    ]


def test_a_network_of_all_nodes(swarm: Swarm) -> None:
    swarm.first.docker("network", "create", "-d", "overlay", "--attachable", "back")
    swarm.first.docker(*CREATE, "web", "--mode", "global", "--network", "back", "busybox", "sh", "-c", SERVE)
    assert runs(swarm, "web", 5)
    names = {container(host, "web")[:12] for host in swarm.hosts}
    asked = [f"wget -T 3 -qO- http://{address}/" for address in _addresses(swarm, "web")]
    script = "; ".join(["nslookup -type=a tasks.web", *asked])
    for host in swarm.hosts:
        shown = host.docker("exec", container(host, "web"), "sh", "-c", script, check=False).output
        assert shown.count("Address") == 1 + 5, (host.name, shown)
        assert names <= set(shown.split()), (host.name, shown)


def test_containers_on_the_hosts_own_segment(swarm: Swarm) -> None:
    """Each node has its part of the addresses in a configuration network of its own."""
    one, other = swarm.managers[1], swarm.workers[0]
    for number, host in enumerate((one, other), 1):
        part = ("--subnet", "10.77.5.0/24", "--ip-range", f"10.77.5.{64 * number}/26")
        host.docker("network", "create", "--config-only", *part, "-o", "parent=eth0", "segment")
    create = ("network", "create", "-d", "macvlan", "--scope", "swarm", "--config-from", "segment")
    swarm.first.docker(*create, "--attachable", "near")
    hosts = [f"node.hostname!={host.name}" for host in swarm.hosts if host not in (one, other)]
    only = [word for each in hosts for word in ("--constraint", each)]
    swarm.first.docker(*CREATE, "web", "--mode", "global", "--network", "near", *only, "busybox", "sh", "-c", SERVE)
    assert runs(swarm, "web", 2)
    found = {host: container(host, "web") for host in (one, other)}
    form = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}"
    addresses = [host.docker("inspect", "-f", form, id).stdout.strip() for host, id in found.items()]
    assert addresses == ["10.77.5.65", "10.77.5.129"]
    assert (
        one.docker("exec", found[one], "wget", "-T5", "-qO-", f"http://{addresses[1]}/").stdout.strip()
        == (found[other][:12])
    )
    # A container of a user on a worker.
    ask = ("run", "--rm", "--network", "near", "busybox", "wget", "-T5", "-qO-", f"http://{addresses[0]}/")
    assert other.docker(*ask).stdout.strip() == found[one][:12]
    # The other nodes have no configuration.
    third = swarm.workers[1]
    swarm.first.docker("service", "update", "-d", "--constraint-rm", f"node.hostname!={third.name}", "web")
    shown = ("service", "ps", "--no-trunc", "--format", "{{.Node}} {{.Error}}", "web")
    missing = f'{third.name} "configuration network "segment" does not exist"'
    assert settles(lambda: missing in swarm.first.docker(*shown).stdout.splitlines())
    swarm.first.docker("service", "rm", "web")
    assert settles(lambda: not any(swarm.hosts.each(lambda host: host.docker("ps", "-aq").stdout)))
    swarm.first.docker("network", "rm", "near")
    for host in (one, other):
        assert settles(partial(_removed, host, "segment"))


def _removed(host: Host, network: str) -> bool:
    return host.docker("network", "rm", network, check=False).status == 0


def _addresses(swarm: Swarm, service: str) -> list[str]:
    """The addresses of the containers of a service on their network, from inspect of each engine."""
    found = []
    for host in swarm.hosts:
        form = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}"
        found.append(host.docker("inspect", "-f", form, container(host, service)).stdout.split()[0])
    return found


@pytest.mark.usefixtures("balancing")
def _reaches(host: Host, container: str, name: str) -> bool:
    return host.docker("exec", container, "ping", "-c1", "-W1", name, check=False).status == 0


def test_containers_of_users_find_each_other_by_name(swarm: Swarm) -> None:
    worker, manager = swarm.workers[0], swarm.managers[1]
    swarm.first.docker("network", "create", "-d", "overlay", "--attachable", "shared")
    run = ("run", "-d", "--init", "--network", "shared")
    worker.docker(*run, "--name", "far", "--network-alias", "store", "busybox", "sleep", "1000")
    manager.docker(*run, "--name", "near", "busybox", "sleep", "1000")
    assert settles(partial(_reaches, manager, "near", "far"))
    assert settles(partial(_reaches, manager, "near", "store"))
    assert settles(partial(_reaches, worker, "far", "near"))
    worker.docker("rm", "-f", "far")
    assert settles(lambda: "bad address" in manager.docker("exec", "near", "ping", "-c1", "far", check=False).output)
    manager.docker("rm", "-f", "near")
    assert settles(lambda: swarm.first.docker("network", "rm", "shared", check=False).status == 0)


def test_virtual_addresses_and_the_routing_mesh(swarm: Swarm) -> None:
    swarm.first.docker("network", "create", "-d", "overlay", "--attachable", "front")
    options = ("--network", "front", "--replicas", "3", "--publish", f"{PORT}:80")
    swarm.first.docker(*CREATE, "web", *options, "busybox", "sh", "-c", SERVE)
    assert runs(swarm, "web", 3)
    names = {id[:12] for ids in running(swarm.hosts, "web").values() for id in ids}
    for host in swarm.hosts:
        for other in swarm.hosts:
            assert settles(partial(_answer, host, other, names), seconds=10), f"{host.name} through {other.name}"
        loop = "for i in 1 2 3 4 5 6; do wget -T 3 -qO- http://web/; done"
        asked = host.docker("run", "--rm", "--network", "front", "busybox", "sh", "-c", loop)
        assert set(asked.stdout.split()) == names, host.name


def _answer(host: Host, through: Host, names: set[str]) -> bool:
    return {host.fetch(through.address, PORT).strip() for _ in range(4)} == names


@pytest.mark.usefixtures("balancing")
def test_an_update_loses_no_request(swarm: Swarm) -> None:
    """Requests go to a node whose rules follow those of the nodes where the tasks stop."""
    updates = ("--update-order", "start-first", "--update-monitor", "200ms", *HEALTHY)
    options = ("--replicas", "3", "--publish", f"{PORT}:80", "--env", "VERSION=1", *updates)
    swarm.first.docker(*CREATE, "web", *options, "busybox", "sh", "-c", SERVER)
    assert runs(swarm, "web", 3)
    worker = swarm.workers[1]
    assert settles(lambda: worker.fetch(worker.address, PORT) != "")
    with load(worker.address, PORT, rate=60, enter=worker.machine.enter) as requests:
        swarm.managers[1].docker("service", "update", "--env-add", "VERSION=2", "web")
    assert not requests.failures, (len(requests.failures), requests.failures[:9])
    assert set(requests.answers) == {"1", "2"}


def test_logs_of_all_nodes(swarm: Swarm) -> None:
    words = ("--mode", "global", "--env", "AT={{.Node.Hostname}}", "busybox", "sh", "-c")
    swarm.first.docker(*CREATE, "talks", *words, "echo line of $AT; exec sleep 1000")
    assert runs(swarm, "talks", 5)
    expected = sorted(f"line of {host.name}" for host in swarm.hosts)

    def shown(host: Host, lines: list[str]) -> bool:
        return sorted(host.docker("service", "logs", "--raw", "talks").stdout.splitlines()) == lines

    for host in swarm.managers:
        assert settles(partial(shown, host, expected))
    with swarm.managers[1].popen("service", "logs", "-f", "--raw", "talks", stdin=subprocess.DEVNULL) as client:
        assert client.stdout is not None
        followed = sorted(client.stdout.readline().decode().strip() for _ in expected)
        client.terminate()
    assert followed == expected


def test_secrets_and_configs_reach_workers(swarm: Swarm) -> None:
    swarm.managers[1].docker("secret", "create", "key", "-", input=SECRET)
    swarm.managers[2].docker("config", "create", "conf", "-", input="of {{.Node.Hostname}}")
    words = ("--mode", "global", "--secret", "key", "--config", "source=conf,target=/conf", "busybox", "sleep", "1000")
    swarm.first.docker(*CREATE, "reads", *words)
    assert runs(swarm, "reads", 5)
    for host in swarm.hosts:
        script = "cat /run/secrets/key /conf"
        read = host.docker("exec", container(host, "reads"), "sh", "-c", script).stdout
        assert read == f"{SECRET}of {{{{.Node.Hostname}}}}"
        assert not found_on_disk(host, SECRET)
    assert agree(swarm.managers, "secret")


def found_on_disk(host: Host, text: str) -> list[str]:
    """The files of a host with this text: below the data root, and the log of its daemon."""
    searched = subprocess.run(
        ["grep", "-rlF", text, host.resources.root / "data", host.daemon.log], capture_output=True, check=False
    )
    return searched.stdout.decode().split()
