"""Restart policies, `--rm`, and containers across restarts of the daemon."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from compat_tests.fields.matrix import honours
from compat_tests.support import images
from compat_tests.support.containers import inspect
from compat_tests.support.engines import Engine
from compat_tests.support.host.processes import start_time
from compat_tests.support.host.traces import cgroups_named
from compat_tests.support.polling import until


def create(engine: Engine, script: str, policy: str = "no", retries: int = 0, **host: Any) -> str:
    body = {
        "Image": "busybox",
        "Cmd": ["sh", "-c", script],
        "HostConfig": {
            "NetworkMode": "none",
            "RestartPolicy": {"Name": policy, "MaximumRetryCount": retries},
            **host,
        },
    }
    answer = engine.api.post("/containers/create", body)
    assert answer.status == 201, answer.body
    return str(answer.json()["Id"])


@honours("HostConfig.RestartPolicy")
def test_on_failure_stops_after_its_count(engine: Engine) -> None:
    began = int(time.time()) - 1
    identity = create(engine, "echo run; exit 7", "on-failure", 2)
    try:
        engine.api.post(f"/containers/{identity}/start")
        assert until(lambda: inspect(engine, identity)["State"]["Status"] == "exited")
        now = inspect(engine, identity)
        assert (now["RestartCount"], now["State"]["ExitCode"]) == (2, 7)
        assert engine.docker("logs", identity).stdout.split() == ["run"] * 3
        filters = json.dumps({"container": [identity]})
        lines = engine.api.get("/events", since=began, until=int(time.time()) + 1, filters=filters).lines()
        words = [line["Action"] for line in lines if line["Type"] == "container"]
        assert words == ["create"] + ["start", "die"] * 3
        # A start by request resets the count.
        engine.api.post(f"/containers/{identity}/start")
        assert until(lambda: inspect(engine, identity)["State"]["Status"] == "exited")
        assert inspect(engine, identity)["RestartCount"] == 2
    finally:
        engine.api.delete(f"/containers/{identity}", force=1)


def test_waiters_get_each_exit(engine: Engine) -> None:
    """A waiter gets each exit, even if the policy restarts the container; the removal comes after the last exit."""
    script = "n=$(cat /n 2>/dev/null); n=$((n+1)); echo $n > /n; exit $n"
    identity = create(engine, script, "on-failure", 2)
    answers: dict[str, Any] = {}

    def read_exit(condition: str, response: http.client.HTTPResponse, connection: http.client.HTTPConnection) -> None:
        answers[condition] = json.loads(response.read())["StatusCode"]
        connection.close()

    waiting = []
    try:
        for condition in ("next-exit", "removed"):
            connection = engine.api.connection()
            connection.request("POST", f"/containers/{identity}/wait?condition={condition}")
            response = connection.getresponse()  # the response head comes once it waits
            waiting.append(threading.Thread(target=read_exit, args=(condition, response, connection)))
            waiting[-1].start()
        engine.api.post(f"/containers/{identity}/start")
        assert until(lambda: inspect(engine, identity)["State"]["Status"] == "exited")
    finally:
        engine.api.delete(f"/containers/{identity}", force=1)
    for thread in waiting:
        thread.join(60)
    assert answers == {"next-exit": 1, "removed": 3}


def test_always_restarts_until_a_stop(engine: Engine) -> None:
    identity = create(engine, "exit 0", "always")
    try:
        engine.api.post(f"/containers/{identity}/start")
        assert until(lambda: inspect(engine, identity)["RestartCount"] >= 3)
        answer = engine.api.delete(f"/containers/{identity}")
        assert answer.status == 409
        # During a run or between two runs, a stop is final.
        assert engine.api.post(f"/containers/{identity}/stop").status == 204
        now = inspect(engine, identity)
        assert (now["State"]["Status"], now["State"]["Restarting"]) == ("exited", False)
        count = now["RestartCount"]
        engine.api.post(f"/containers/{identity}/wait")
        assert inspect(engine, identity)["RestartCount"] == count
    finally:
        engine.api.delete(f"/containers/{identity}", force=1)


def test_rm_and_a_policy_exclude_each_other(engine: Engine) -> None:
    body = {"Image": "busybox", "HostConfig": {"AutoRemove": True, "RestartPolicy": {"Name": "always"}}}
    answer = engine.api.post("/containers/create", body)
    assert answer.error == (400, "can't create 'AutoRemove' container with restart policy")


def test_a_container_that_waits_for_its_restart_can_be_removed(engine: Engine) -> None:
    identity = create(engine, "exit 1", "always")
    engine.api.post(f"/containers/{identity}/start")
    assert until(lambda: inspect(engine, identity)["State"]["Restarting"])
    assert engine.api.delete(f"/containers/{identity}", force=1).status == 204
    assert engine.api.get(f"/containers/{identity}/json").status == 404


@pytest.mark.slow
def test_restart_of_the_daemon(own_engine: Engine) -> None:
    """A graceful restart and a `kill -9`: running containers continue, exits are known, policies apply."""
    engine = own_engine
    if engine.kind == "dockerd":
        pytest.skip("dockerd takes its containers along")
    runs = create(engine, "i=0; while :; do echo $i; i=$((i+1)); sleep 0.2; done")
    paused = create(engine, "sleep 600")
    ends = create(engine, "while [ ! -e /flag/now ]; do sleep 0.05; done; exit 9", Binds=["flag:/flag"])
    removed = create(
        engine, "while [ ! -e /flag/now ]; do sleep 0.05; done", AutoRemove=True, RestartPolicy={}, Binds=["flag:/flag"]
    )
    again = create(engine, "while [ ! -e /flag/now ]; do sleep 0.05; done; sleep 600", "unless-stopped")
    stopped = create(engine, "sleep 600", "unless-stopped")
    try:
        for identity in (runs, paused, ends, removed, again, stopped):
            assert engine.api.post(f"/containers/{identity}/start").status == 204
        engine.api.post(f"/containers/{paused}/pause")
        engine.api.post(f"/containers/{stopped}/kill")
        pid = inspect(engine, runs)["State"]["Pid"]
        flag = f"{engine.api.get('/volumes/flag').json()['Mountpoint']}/now"

        engine.restart()
        assert inspect(engine, runs)["State"]["Pid"] == pid
        assert inspect(engine, paused)["State"]["Status"] == "paused"
        assert inspect(engine, stopped)["State"]["Status"] == "exited"

        engine.kill("wharfd")
        with open(flag, "w"):
            pass
        with open(f"/proc/{pid}/stat"):
            pass  # it runs without the daemon
        engine.start()
        assert until(lambda: inspect(engine, ends)["State"]["Status"] == "exited")
        assert inspect(engine, ends)["State"]["ExitCode"] == 9
        assert until(lambda: engine.api.get(f"/containers/{removed}/json").status == 404)
        assert inspect(engine, runs)["State"]["Pid"] == pid
        assert inspect(engine, again)["State"]["Running"]
        assert engine.api.post(f"/containers/{paused}/unpause").status == 204
        # No line was lost without the daemon.
        lines = engine.docker("logs", runs).stdout.split()
        assert lines == [str(number) for number in range(len(lines))]
    finally:
        for identity in (runs, paused, ends, removed, again, stopped):
            engine.api.delete(f"/containers/{identity}", force=1)
        engine.api.delete("/volumes/flag", force=1)


def test_a_daemon_without_restart_policies(own_engine: Engine) -> None:
    """With `--restart=false`, what ended without the daemon stays stopped; later exits are restarted."""
    engine = own_engine
    if engine.kind == "dockerd":
        pytest.skip("dockerd takes its containers along")
    engine.daemon.argv.append("--restart=false")
    engine.restart()
    ends = create(engine, "exec sleep 600", "always")
    waits = create(engine, "exit 1", "always")
    try:
        for identity in (ends, waits):
            assert engine.api.post(f"/containers/{identity}/start").status == 204
        assert until(lambda: inspect(engine, waits)["State"]["Restarting"])
        pid = inspect(engine, ends)["State"]["Pid"]
        engine.kill("wharfd")
        os.kill(pid, signal.SIGKILL)
        engine.start()
        assert until(lambda: inspect(engine, ends)["State"]["Status"] == "exited")
        assert until(lambda: inspect(engine, waits)["State"]["Status"] == "exited")
        engine.restart()
        assert {inspect(engine, identity)["State"]["Status"] for identity in (ends, waits)} == {"exited"}
        engine.api.post(f"/containers/{ends}/start")
        os.kill(inspect(engine, ends)["State"]["Pid"], signal.SIGKILL)
        assert until(lambda: inspect(engine, ends)["State"]["Running"] and inspect(engine, ends)["RestartCount"] == 1)
    finally:
        for identity in (ends, waits):
            engine.api.delete(f"/containers/{identity}", force=1)
        engine.daemon.argv.remove("--restart=false")
        engine.restart()


@pytest.mark.slow
def test_a_shim_or_the_supervisor_that_dies(own_engine: Engine) -> None:
    engine = own_engine
    if engine.kind != "wharf":
        pytest.skip("the embedded supervisor only")
    one, two = create(engine, "sleep 600"), create(engine, "sleep 600", "always")
    try:
        for identity in (one, two):
            assert engine.api.post(f"/containers/{identity}/start").status == 204
        pid = inspect(engine, one)["State"]["Pid"]
        engine.kill("wharf-supervis")
        assert until(lambda: engine.api.post(f"/containers/{one}/pause").status == 204)
        assert inspect(engine, one)["State"]["Pid"] == pid
        assert engine.api.post(f"/containers/{one}/unpause").status == 204
        first = inspect(engine, two)["State"]["Pid"]
        engine.kill("wharf-shim")
        assert until(lambda: inspect(engine, one)["State"]["Status"] == "exited")
        assert inspect(engine, one)["State"]["ExitCode"] == 137
        assert until(lambda: inspect(engine, two)["State"]["Pid"] not in (0, first))
    finally:
        for identity in (one, two):
            engine.api.delete(f"/containers/{identity}", force=1)


@pytest.mark.slow
def test_kill_of_all_processes(own_engine: Engine) -> None:
    """As after a power loss: containers with a policy restart, others are known to have exited, `--rm` removes."""
    engine = own_engine
    if engine.kind != "wharf":
        pytest.skip("the embedded supervisor only")
    plain = create(engine, "sleep 600", Binds=["kept:/v"])
    again = create(engine, "sleep 600", "always", Binds=["kept:/v"], Tmpfs={"/t": ""})
    unless = create(engine, "sleep 600", "unless-stopped", IpcMode="shareable")
    stopped = create(engine, "sleep 600", "unless-stopped")
    removed = create(engine, "sleep 600", AutoRemove=True, RestartPolicy={})
    everyone = (plain, again, unless, stopped, removed)
    try:
        for identity in everyone:
            assert engine.api.post(f"/containers/{identity}/start").status == 204
        engine.api.post(f"/containers/{stopped}/kill")
        pids = [inspect(engine, identity)["State"]["Pid"] for identity in (plain, again, unless, removed)]
        for name in ("wharfd", "wharf-supervis", "wharf-shim"):
            engine.kill(name)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert until(lambda: not any(start_time(pid) for pid in pids))
        engine.start()
        for identity, status in ((plain, "exited"), (again, "running"), (unless, "running"), (stopped, "exited")):
            assert until(lambda id=identity, word=status: inspect(engine, id)["State"]["Status"] == word)  # type: ignore[misc]
        assert until(lambda: engine.api.get(f"/containers/{removed}/json").status == 404)
        assert inspect(engine, plain)["State"]["ExitCode"] in (137, 255)
        assert engine.api.post(f"/containers/{plain}/start").status == 204
        assert engine.docker("exec", again, "echo", "alive").stdout == "alive\n"
    finally:
        for identity in everyone:
            engine.api.delete(f"/containers/{identity}", force=1)
        engine.api.delete("/volumes/kept", force=1)


@pytest.mark.slow
def test_layers_emptied_by_a_power_cut_are_unpacked_again(own_engine: Engine) -> None:
    """Layers that had not reached the disk are unpacked again: for new containers, and below existing ones."""
    engine = own_engine
    if engine.kind != "wharf":
        pytest.skip("the embedded supervisor only")
    old = create(engine, "cat /kept; busybox true && echo whole", "no")
    try:
        answer = engine.api.request("PUT", f"/containers/{old}/archive?path=/", body=images.layer({"kept": b"mine\n"}))
        assert answer.status == 200, answer.body
        for name in ("wharfd", "wharf-supervis"):
            engine.kill(name)
        store = engine.resources.root / "data/containerd"
        with contextlib.closing(sqlite3.connect(store / "metadata/meta.db")) as connection, connection:
            layers = connection.execute("SELECT number FROM snapshot WHERE kind = 3").fetchall()
            connection.executemany("INSERT OR REPLACE INTO unsettled VALUES (?, 'an earlier boot')", layers)
        assert layers
        for (number,) in layers:
            for path in store.glob(f"io.containerd.snapshotter.v1.overlayfs/snapshots/{number}/fs/bin/*"):
                if path.is_file() and not path.is_symlink():
                    os.truncate(path, 0)
        engine.start()
        assert engine.docker("start", "-a", old).stdout == "mine\nwhole\n"
        assert engine.docker("run", "--rm", "--network", "none", "busybox", "echo", "new").stdout == "new\n"
    finally:
        engine.api.delete(f"/containers/{old}", force=1)


@pytest.mark.slow
@pytest.mark.parametrize("after", [3, 4, 6])
def test_daemon_killed_during_creates_starts_and_removals(own_engine: Engine, after: int) -> None:
    """`kill -9` while containers are created, started and removed: the next daemon finds a consistent state and removes
    what no record refers to."""
    engine = own_engine
    if engine.kind == "dockerd":
        pytest.skip("dockerd's own matter")
    stop = threading.Event()
    done: list[str] = []

    def work(worker: int) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            name = f"chaos-{after}-{worker}-{number}"
            body = {"Image": "busybox", "Cmd": ["sleep", "600"], "Volumes": {"/v": {}}}
            with contextlib.suppress(OSError, http.client.HTTPException):
                engine.api.post("/containers/create", body, name=name)
                engine.api.post(f"/containers/{name}/start")
                if number % 2:
                    engine.api.delete(f"/containers/{name}", force=1, v=1)
                done.append(name)

    workers = [threading.Thread(target=work, args=(worker,)) for worker in range(3)]
    for thread in workers:
        thread.start()
    try:
        assert until(lambda: len(done) >= after)
        engine.kill("wharfd")
    finally:
        stop.set()
        for thread in workers:
            thread.join(120)
    engine.start()
    known = {row["Id"] for row in engine.api.get("/containers/json", all=1).json()}
    for identity in known:
        state = inspect(engine, identity)["State"]
        assert state["Running"] == (state["Pid"] > 0)
        assert state["Pid"] == 0 or start_time(state["Pid"]) is not None
    directories = Path(engine.resources.root, "data", "containers")
    assert until(lambda: set(os.listdir(directories)) <= known)
    for identity in known:
        assert engine.api.delete(f"/containers/{identity}", force=1, v=1).status == 204
    assert until(lambda: not os.listdir(directories))
    assert until(lambda: not engine.find("wharf-shim"))
    assert until(lambda: not cgroups_of_containers(engine))
    # Anonymous volumes of unfinished creates are removed by a prune.
    engine.api.post("/volumes/prune")
    assert engine.api.get("/volumes").json()["Volumes"] == []


def cgroups_of_containers(engine: Engine) -> list[Path]:
    return [path for path in cgroups_named(engine.resources.footprint.cgroup) if len(path.name) == 64]
