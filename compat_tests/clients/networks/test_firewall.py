"""The engine's firewall rules: an administrator's rules stay, deleted ones are restored, a killed daemon leaves
none."""

from __future__ import annotations

import concurrent.futures
import functools
import http.client
import json
import re
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from compat_tests.support.engines import Engine
from compat_tests.support.host.traces import ip_json, nft
from compat_tests.support.polling import until

SERVE = "while true; do echo served | nc -l -p 80; done"


def table(engine: Engine) -> str:
    return f"wharf-{engine.resources.bridge}"


def dump(engine: Engine) -> str:
    return nft("list", "table", "inet", table(engine))


def served(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 30) as sock:
            return sock.recv(100) == b"served\n"
    except OSError:
        return False


def start(engine: Engine, name: str, **host: Any) -> int:
    """Start a server with a random published port; return the port."""
    body = {"Image": "busybox", "Cmd": ["sh", "-c", SERVE], "HostConfig": {"PortBindings": {"80/tcp": [{}]}, **host}}
    created = engine.api.request("POST", "/containers/create", query={"name": name}, data=body)
    assert created.status == 201, created.body
    assert engine.api.post(f"/containers/{name}/start").status == 204
    ports = engine.api.get(f"/containers/{name}/json").json()["NetworkSettings"]["Ports"]
    return int(ports["80/tcp"][0]["HostPort"])


def test_rules_are_restored_and_admin_rules_stay(own_engine: Engine) -> None:
    engine = own_engine
    port = start(engine, "kept")
    assert until(lambda: served(port))
    element = f"tcp . {port} :"
    assert element in dump(engine)
    rule = 'ip saddr 192.0.2.99 drop comment "an admin\'s"'
    subprocess.run(["nft", "-f", "-"], input=f"add rule inet {table(engine)} wharf-user {rule}", text=True, check=True)
    # another firewall flushes chains; the next use restores them
    nft("flush", "chain", "inet", table(engine), "forward")
    start(engine, "next")
    assert "ct state established,related accept" in dump(engine)
    assert rule in dump(engine)
    # a reload restores them too, even the whole table
    nft("delete", "table", "inet", table(engine))
    engine.daemon.process.send_signal(signal.SIGHUP)  # type: ignore[union-attr]
    assert until(lambda: element in dump(engine))
    assert until(lambda: served(port))
    subprocess.run(["nft", "-f", "-"], input=f"add rule inet {table(engine)} wharf-user {rule}", text=True, check=True)
    engine.restart()
    assert rule in dump(engine)
    assert until(lambda: served(port))
    engine.remove_all()
    assert until(lambda: element not in dump(engine))


def test_deleted_link_is_restored(own_engine: Engine) -> None:
    engine = own_engine
    identity = engine.docker("network", "create", "fallen").stdout.strip()
    subprocess.run(["ip", "link", "del", f"br-{identity[:12]}"], check=True, timeout=60)
    engine.daemon.process.send_signal(signal.SIGHUP)  # type: ignore[union-attr]
    assert until(lambda: Path(f"/sys/class/net/br-{identity[:12]}").exists())
    port = start(engine, "risen", NetworkMode="fallen")
    assert until(lambda: served(port))
    engine.remove_all()
    engine.docker("network", "rm", "fallen")


def test_deleted_bridge_is_restored(own_engine: Engine) -> None:
    engine = own_engine
    port = start(engine, "stays")
    assert until(lambda: served(port))
    # That of the containers' owner.
    bridge = engine.api.get("/networks/bridge").json()["Options"]["com.docker.network.bridge.name"]
    subprocess.run(["ip", "link", "del", bridge], check=True, timeout=60)
    assert until(lambda: f"bridge {bridge} was deleted: restored, 1 links joined" in engine.log())
    nft("delete", "table", "inet", table(engine))
    assert until(lambda: f"table inet {table(engine)} was changed by another program: restored" in engine.log())
    assert until(lambda: served(port))
    address = engine.api.get("/containers/stays/json").json()["NetworkSettings"]["IPAddress"]
    engine.docker("run", "--rm", "busybox", "nc", "-w", "30", address, "80")
    engine.remove_all()


class Churn:
    """Runs operations in sequence while the daemon is killed."""

    def __init__(self, engine: Engine, name: str) -> None:
        self.engine, self.name, self.net = engine, name, f"{name}-net"

    def run(self) -> None:
        body = {
            "Image": "busybox", "Cmd": ["sh", "-c", SERVE],
            "HostConfig": {"NetworkMode": self.net, "PortBindings": {"80/tcp": [{}]}},
        }  # fmt: skip
        api, target = self.engine.api, {"Container": self.name}
        for method, path, data in (
            ("POST", "/networks/create", {"Name": self.net}),
            ("POST", f"/containers/create?name={self.name}", body),
            ("POST", f"/containers/{self.name}/start", None),
            ("POST", "/networks/bridge/connect", target),
            ("POST", f"/networks/{self.net}/disconnect", target),
            ("POST", f"/networks/{self.net}/connect", target),
            ("POST", f"/containers/{self.name}/restart?t=0", None),
            ("POST", f"/containers/{self.name}/stop?t=0", None),
            ("POST", f"/containers/{self.name}/start", None),
            ("DELETE", f"/containers/{self.name}?force=1", None),
            ("DELETE", f"/networks/{self.net}", None),
        ):
            try:
                api.request(method, path, data=data)
            except (OSError, http.client.HTTPException):
                return  # the daemon is gone


def inconsistencies(engine: Engine) -> list[str]:
    """Return the differences between the kernel and the records of the engine."""
    found = []
    running = [
        engine.api.get(f"/containers/{item['Id']}/json").json() for item in engine.api.get("/containers/json").json()
    ]
    endpoints = [item for shown in running for item in shown["NetworkSettings"]["Networks"].values()]
    networks = [item for item in engine.api.get("/networks").json() if item["Driver"] == "bridge"]
    bridges = {item["Options"].get("com.docker.network.bridge.name") or f"br-{item['Id'][:12]}" for item in networks}
    bridges.add(engine.resources.bridge)  # which users don't see
    ours = [link for link in ip_json("link", "show") if link.get("ifalias") == f"wharf:{engine.resources.bridge}"]
    present = {str(link["ifname"]) for link in ours}
    if {name for name in present if not name.startswith("veth")} != bridges:
        found.append(f"bridges {present} are not {bridges}")
    plugged = [link for link in ours if link.get("master")]
    if len(plugged) != len(endpoints):
        found.append(f"{len(plugged)} links are plugged in for {len(endpoints)} endpoints")
    # each prepared namespace has one link that is not attached to a bridge yet
    spare = len(present) - len(bridges) - len(plugged)
    namespaces = len(list((engine.resources.root / "run" / "netns").iterdir()))
    if namespaces != len(running) + spare:
        found.append(f"{namespaces} namespaces, {len(running)} containers and {spare} spare ones")
    addresses = {item["IPAddress"] for item in endpoints}
    ruled = set(re.findall(r'" \. ([\d.]+) \. tcp', dump(engine))) | set(
        re.findall(r"tcp \. \d+ : ([\d.]+) \.", dump(engine))
    )
    if not ruled <= addresses:
        found.append(f"rules for {ruled - addresses}")
    return found


@pytest.mark.parametrize("delay", [0.05, 0.2, 0.45, 0.8])
def test_nothing_is_lost_or_left_by_a_kill(own_engine: Engine, delay: float) -> None:
    """The delays only spread the kill over the operations: the result must be right at any moment."""
    engine = own_engine
    port = start(engine, "steady")
    assert until(lambda: served(port))
    churns = [Churn(engine, f"churn-{number}") for number in range(3)]
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        work = [pool.submit(churn.run) for churn in churns]
        concurrent.futures.wait(work, timeout=delay)
        engine.kill("wharfd")
        # its server starts a new process for each connection
        assert until(lambda: served(port)), "a running container keeps its traffic while nobody looks after it"
        concurrent.futures.wait(work)
    engine.start()
    assert until(lambda: served(port))
    assert until(lambda: not inconsistencies(engine), seconds=30), inconsistencies(engine)
    for item in engine.api.get("/containers/json").json():
        inspected = engine.api.get(f"/containers/{item['Id']}/json").json()["NetworkSettings"]
        for bindings in inspected["Ports"].values():
            assert until(functools.partial(served, int(bindings[0]["HostPort"]))), json.dumps(inspected)
    engine.remove_all()
    engine.docker("network", "prune", "-f")
    assert [item["Name"] for item in engine.api.get("/networks").json()] == ["bridge", "host", "none"]
    assert until(lambda: not inconsistencies(engine), seconds=30), inconsistencies(engine)
