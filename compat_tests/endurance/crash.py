"""Kills wharfd or its supervisor at every step of an operation on a container, then restarts it: nothing may stay half
done.

``python -m compat_tests.endurance.crash`` runs all operations, or the named ones, for minutes; ``--every 3`` tries
each third step. :mod:`compat_tests.endurance.crash_points` counts the steps of an operation.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from compat_tests.endurance.crash_points import DIE, DIED, PASSED, STEPS, locked
from compat_tests.support import engines
from compat_tests.support.containerd import first_column
from compat_tests.support.engines import Engine, Wharf
from compat_tests.support.host.traces import cgroups_named, links, mounts_under, nft
from compat_tests.support.polling import until

NAME = "crash"
NETWORK = "crash-net"
VOLUME = "crash-volume"


def footprint(engine: Wharf) -> dict[str, list[str]]:
    """Return what exists of containers; empty for an engine without containers."""
    root, stock = engine.resources.root, engine.containerd
    bundles = (
        stock.resources.root / "containerd-state/io.containerd.runtime.v2.task"
        if stock
        else root / "run/containerd/tasks"
    )

    def ctr(*args: str) -> list[str]:
        done = engine.ctr(*args, check=False)
        return [done.stderr] if done.status else first_column(done.stdout)  # an error while the supervisor starts

    def below(path: Path) -> list[str]:
        return sorted(os.listdir(path)) if path.is_dir() else []

    def ports() -> list[str]:
        return [name for name, master in links().items() if master == engine.resources.bridge]

    volumes = engine.api.get("/volumes").json()["Volumes"] or []
    found = engine.api.get(f"/networks/{NETWORK}")
    return {
        "folders": below(root / "data/containers") + below(root / "run/containers"),
        "volume folders": [name for name in below(root / "data/volumes") if name != VOLUME],
        "bundles": below(bundles / "moby"),
        "tasks": ctr("tasks", "ls"),
        "records": ctr("containers", "ls"),
        "snapshots": [key for key in ctr("snapshots", "ls") if not key.startswith("sha256:")],
        "leases": ctr("leases", "ls"),
        "volumes": [volume["Name"] for volume in volumes if volume["Name"] != VOLUME],
        "endpoints": sorted(found.json()["Containers"]) if found.status == 200 else [],
        "cgroups": [str(path) for path in cgroups_named(engine.resources.cgroup) if len(path.name) == 64],
        "shims": [str(process.pid) for name in ("wharf-shim", "wharf-iohost") for process in engine.find(name)],
        "mounts": [path for path in mounts_under(root) if "/run/netns" not in path],
        "bridge": ports(),
        # Only published ports: the rest of the table exists as long as the engine.
        "rules": re.findall(r"\S+ \. 80\b", nft("-n", "list", "table", "inet", f"wharf-{engine.resources.bridge}")),
    }


@dataclass
class Sweep:
    """An engine that dies at chosen steps; ``passed``: the steps of the last operation, ``known``: leftovers of earlier
    faults."""

    engine: Wharf
    folder: Path
    victim: str = "wharfd"
    passed: list[str] = field(default_factory=list)
    known: dict[str, list[str]] = field(default_factory=dict)

    def api(self, method: str, path: str, data: object = None, **query: object) -> tuple[int, Any]:
        answer = self.engine.api.request(method, path, data=data, query=query)
        return answer.status, answer.json() if answer.body.startswith((b"{", b"[")) else answer.body

    def must(self, method: str, path: str, data: object = None, **query: object) -> Any:
        status, found = self.api(method, path, data, **query)
        assert status < 300, (method, path, status, found)
        return found

    def create(self, *cmd: str, **host: Any) -> str:
        body = {
            "Image": "busybox",
            "Cmd": list(cmd),
            "Volumes": {"/anonymous": {}},
            "HostConfig": {
                "NetworkMode": NETWORK,
                "Binds": [f"{VOLUME}:/named"],
                "PortBindings": {"80/tcp": [{"HostPort": ""}]},
                **host,
            },
            "ExposedPorts": {"80/tcp": {}},
        }
        return str(self.must("POST", "/containers/create", body, name=NAME)["Id"])

    def state(self, id: str) -> dict[str, Any] | None:
        status, found = self.api("GET", f"/containers/{id}/json")
        assert status in (200, 404), (status, found)
        return found["State"] if status == 200 else None

    def at(self, step: int | str, act: Callable[[], object], done: Callable[[], bool]) -> bool:
        """Run ``act`` with a death at this step (a number, or a part of its name); ``False`` if it completed before."""
        with locked(self.folder):
            (self.folder / DIED).unlink(missing_ok=True)
            (self.folder / PASSED).write_text("")
            (self.folder / DIE).write_text(f"{self.victim} {step}")

        def acting() -> None:
            # The client is disconnected, or can't connect.
            with contextlib.suppress(OSError, http.client.HTTPException, AssertionError):
                act()

        actor = threading.Thread(target=acting)
        actor.start()

        def completed() -> bool:
            if actor.is_alive():
                return False
            with contextlib.suppress(OSError, http.client.HTTPException):
                return (self.folder / DIED).exists() or done()
            return False

        assert until(completed, seconds=120), "the daemon neither died nor completed the operation"
        actor.join(60)
        with locked(self.folder):
            (self.folder / DIE).unlink(missing_ok=True)
            died = (self.folder / DIED).exists()
            self.passed = (self.folder / PASSED).read_text().splitlines()
        if died and self.victim == "wharfd":
            assert until(lambda: not self.engine.daemon.running), "the daemon still runs after SIGKILL"
            self.engine.start()
        return died

    def nothing_left(self) -> None:
        """Check after the removal of the last container and its clean-up."""
        leftovers: dict[str, list[str]] = {}

        def clean() -> bool:
            nonlocal leftovers
            now = footprint(self.engine)
            added = {key: sorted({*value} - {*self.known.get(key, ())}) for key, value in now.items()}
            leftovers = {key: value for key, value in added.items() if value}
            return not leftovers

        assert until(clean, seconds=60), leftovers

    def remove(self) -> None:
        for item in self.must("GET", "/containers/json", all=1):
            self.must("DELETE", f"/containers/{item['Id']}", force=1, v=1)


@dataclass(frozen=True)
class Operation:
    """An operation on a container: ``prepare`` returns the container's id, ``act`` runs the operation, ``done`` returns
    whether it has completed, and ``check`` examines the state under the next daemon, before the clean-up."""

    name: str
    prepare: Callable[[Sweep], str]
    act: Callable[[Sweep, str], object]
    done: Callable[[Sweep, str], bool]
    check: Callable[[Sweep, str], None]


def _started(sweep: Sweep, *cmd: str, **host: Any) -> str:
    id = sweep.create(*(cmd or ("sleep", "600")), **host)
    sweep.must("POST", f"/containers/{id}/start")
    return id


def _check_state(sweep: Sweep, id: str) -> None:
    """Record and kernel agree, and the container can be started, renamed and stopped."""
    state = sweep.state(id)
    if state is None:
        return
    assert state["Status"] in ("created", "running", "exited"), state

    def agree() -> bool:
        nonlocal state
        state = sweep.state(id) or {}
        return bool(state["Running"]) == os.path.isdir(f"/proc/{state['Pid'] or 'none'}")

    # A supervisor that died with the exit event restarts within a moment.
    assert until(agree), state
    assert sweep.api("POST", f"/containers/{id}/start")[0] in (204, 304)
    assert sweep.api("GET", f"/containers/{id}/top")[0] == 200
    sweep.must("POST", f"/containers/{id}/rename", name=f"{NAME}-renamed")
    sweep.must("POST", f"/containers/{id}/stop", t=0)


def _check_removed(sweep: Sweep, id: str) -> None:
    """--rm removes the container after its exit."""
    state = sweep.state(id)
    if state is not None and state["Running"]:  # the signal was not sent
        sweep.must("POST", f"/containers/{id}/kill")
    assert until(lambda: sweep.state(id) is None, seconds=30), sweep.state(id)


def _post(path: str, data: object = None, **query: object) -> Callable[[Sweep, str], object]:
    return lambda sweep, id: sweep.api("POST", f"/containers/{id}/{path}", data, **query)


def _always(_sweep: Sweep, _id: str) -> bool:
    return True


def _check_name(sweep: Sweep, id: str) -> None:
    """The container has exactly one of the two names."""
    found = sweep.must("GET", f"/containers/{id}/json")["Name"]
    other = {f"/{NAME}": "other", "/other": NAME}[found]
    assert sweep.api("GET", f"/containers/{other}/json")[0] == 404
    # The other name is free.
    sweep.must("POST", f"/containers/{id}/rename", name=other)


def _check_limits(sweep: Sweep, id: str) -> None:
    """The container has the old or the new limit."""
    assert sweep.must("GET", f"/containers/{id}/json")["HostConfig"]["CpuShares"] in (0, 512)
    _check_state(sweep, id)


def _check_connection(sweep: Sweep, id: str) -> None:
    """Record and kernel agree on the connection to the bridge; the opposite operation then works."""
    own = "bridge" in sweep.must("GET", f"/containers/{id}/json")["NetworkSettings"]["Networks"]
    assert own == (id in sweep.must("GET", "/networks/bridge")["Containers"])
    verb = "disconnect" if own else "connect"
    sweep.must("POST", f"/networks/bridge/{verb}", {"Container": id})
    _check_state(sweep, id)


def _connect(verb: str) -> Callable[[Sweep, str], object]:
    return lambda sweep, id: sweep.api("POST", f"/networks/bridge/{verb}", {"Container": id})


def _connected(sweep: Sweep) -> str:
    id = _started(sweep)
    sweep.must("POST", "/networks/bridge/connect", {"Container": id})
    return id


def _check_created(sweep: Sweep, _id: str) -> None:
    """The container exists, or its name can be used."""
    status, found = sweep.api("GET", f"/containers/{NAME}/json")
    assert status in (200, 404), found
    _check_state(sweep, found["Id"] if status == 200 else sweep.create("sleep", "600"))


def _kill(sweep: Sweep, id: str) -> object:
    return sweep.api("POST", f"/containers/{id}/kill")


def _is_removed(sweep: Sweep, id: str) -> bool:
    return sweep.state(id) is None and not footprint(sweep.engine)["folders"]


OPERATIONS = (
    Operation("create", lambda _: "", lambda sweep, _: sweep.create("sleep", "600"), _always, _check_created),
    Operation("start", lambda sweep: sweep.create("sleep", "600"), _post("start"), _always, _check_state),
    Operation("stop", _started, _post("stop", t=0), _always, _check_state),
    Operation("restart", _started, _post("restart", t=0), _always, _check_state),
    Operation("rename", _started, _post("rename", name="other"), _always, _check_name),
    Operation("update", _started, _post("update", {"CpuShares": 512}), _always, _check_limits),
    Operation("connect", _started, _connect("connect"), _always, _check_connection),
    Operation("disconnect", _connected, _connect("disconnect"), _always, _check_connection),
    Operation(
        "remove",
        _started,
        lambda sweep, id: sweep.api("DELETE", f"/containers/{id}", force=1, v=1),
        _is_removed,
        lambda sweep, id: _check_state(sweep, id),
    ),
    Operation("rm", lambda sweep: _started(sweep, AutoRemove=True), _kill, _is_removed, _check_removed),
)


@contextlib.contextmanager
def sweeping(engine: Engine) -> Iterator[Sweep]:
    """Restart the engine with steps that can be killed; restore it at the end."""
    assert isinstance(engine, Wharf)
    folder = engine.resources.root / "steps"
    folder.mkdir()
    daemon, argv = engine.daemon, list(engine.daemon.argv)
    daemon.argv[daemon.argv.index("server")] = "compat_tests.endurance.crash_points"
    daemon.env[STEPS] = str(folder)
    engine.restart()
    if engine.containerd is None:
        engine.kill("wharf-supervis")
    sweep = Sweep(engine, folder)
    sweep.must("POST", "/networks/create", {"Name": NETWORK})
    sweep.must("POST", "/volumes/create", {"Name": VOLUME})
    try:
        sweep.nothing_left()
        yield sweep
    finally:
        daemon.argv[:] = argv
        del daemon.env[STEPS]
        (folder / DIE).unlink(missing_ok=True)
        engine.restart()
        sweep.remove()
        sweep.api("DELETE", f"/networks/{NETWORK}")
        sweep.api("DELETE", f"/volumes/{VOLUME}")


def try_step(sweep: Sweep, operation: Operation, step: int | str) -> bool:
    """Try one step; ``False`` if the operation has fewer steps."""
    id = operation.prepare(sweep)
    died = sweep.at(step, lambda: operation.act(sweep, id), lambda: operation.done(sweep, id))
    operation.check(sweep, id)
    sweep.remove()
    sweep.nothing_left()
    return died


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m compat_tests.endurance.crash", description=__doc__)
    parser.add_argument("operations", nargs="*", help=", ".join(operation.name for operation in OPERATIONS))
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--victim", choices=("wharfd", "supervisor"), default="wharfd")
    parser.add_argument("--engine", choices=("wharf", "containerd"), default="wharf")
    arguments = parser.parse_args()
    faults = 0
    with engines.on_backend(arguments.engine, "crash") as engine, sweeping(engine) as sweep:
        sweep.victim = arguments.victim
        for operation in OPERATIONS:
            if arguments.operations and operation.name not in arguments.operations:
                continue
            number = arguments.first
            while True:
                try:
                    died = try_step(sweep, operation, number)
                except AssertionError as error:
                    faults += 1
                    died = True
                    print(f"{operation.name} {number}: {sweep.passed[-1:]}\n   {str(error)[:2000]}", flush=True)
                    with contextlib.suppress(AssertionError):
                        sweep.remove()
                    sweep.known = footprint(engine)
                if not died:
                    break
                number += arguments.every
            print(f"{operation.name}: {len(sweep.passed)} steps, {faults} faults so far", flush=True)
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
