"""Start, stop, kill, pause, rename, wait and rm, with dockerd's statuses, states and events."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from compat_tests.fields.matrix import honours
from compat_tests.support.containerd import ctr
from compat_tests.support.containers import state
from compat_tests.support.engines import Engine
from compat_tests.support.polling import until

TRAP = "trap 'echo term; exit 5' TERM; echo ready; while :; do sleep 0.1; done"


@pytest.fixture
def sleeper(engine: Engine) -> Iterator[str]:
    """A running container that ignores SIGTERM (it is PID 1 without a handler)."""
    identity = create(engine, Cmd=["sleep", "600"])
    assert engine.api.post(f"/containers/{identity}/start").status == 204
    yield identity
    engine.api.delete(f"/containers/{identity}", force=1, v=1)


def create(engine: Engine, name: str = "", **config: Any) -> str:
    host = {"NetworkMode": "none", **config.pop("HostConfig", {})}
    query = {"name": name} if name else {}
    answer = engine.api.post("/containers/create", {"Image": "busybox", **config, "HostConfig": host}, **query)
    assert answer.status == 201, answer.body
    return str(answer.json()["Id"])


def wait(engine: Engine, identity: str, condition: str = "not-running") -> dict[str, Any]:
    found: dict[str, Any] = engine.api.post(f"/containers/{identity}/wait", condition=condition).json()
    return found


@pytest.mark.core
@honours("Config.Labels")
def test_from_created_to_removed(engine: Engine) -> None:
    began = int(time.time()) - 1
    identity = create(engine, name="life", Cmd=["sh", "-c", "exit 3"], Labels={"color": "red"})
    assert state(engine, identity)["Status"] == "created"
    assert engine.api.post(f"/containers/{identity}/start").status == 204
    assert wait(engine, identity) == {"StatusCode": 3}
    now = state(engine, identity)
    assert (now["Status"], now["Running"], now["ExitCode"], now["Pid"], now["Error"]) == ("exited", False, 3, 0, "")
    assert now["StartedAt"] < now["FinishedAt"]
    assert engine.api.delete(f"/containers/{identity}").status == 204
    assert engine.api.get("/containers/life/json").error == (404, "No such container: life")
    filters = json.dumps({"container": [identity], "type": ["container"]})
    lines = engine.api.get("/events", since=began, until=int(time.time()) + 1, filters=filters).lines()
    assert [line["Action"] for line in lines] == ["create", "start", "die", "destroy"]
    common = {"image": "busybox", "name": "life", "color": "red"}
    assert lines[0]["Actor"]["Attributes"] == common
    died = lines[2]["Actor"]["Attributes"]
    assert int(died.pop("execDuration")) < 60  # whole seconds
    assert died == {**common, "exitCode": "3"}


def test_statuses_in_unsuitable_states(engine: Engine, sleeper: str) -> None:
    post = engine.api.post
    assert post(f"/containers/{sleeper}/start").status == 304
    assert post(f"/containers/{sleeper}/unpause").error == (500, f"Container {sleeper} is not paused")
    assert post(f"/containers/{sleeper}/pause").status == 204
    assert state(engine, sleeper)["Status"] == "paused"
    assert post(f"/containers/{sleeper}/pause").error == (409, f"Container {sleeper} is already paused")
    assert post(f"/containers/{sleeper}/start").error == (
        409,
        "cannot start a paused container, try unpause instead",
    )
    name = engine.api.get(f"/containers/{sleeper}/json").json()["Name"]
    assert engine.api.delete(f"/containers/{sleeper}").error == (
        409,
        f'cannot remove container "{name}": container is paused and must be unpaused first',
    )
    assert post(f"/containers/{sleeper}/unpause").status == 204
    assert engine.api.delete(f"/containers/{sleeper}").error == (
        409,
        f'cannot remove container "{name}": container is running: stop the container before removing or force remove',
    )
    assert post(f"/containers/{sleeper}/stop", t=0).status == 204
    assert state(engine, sleeper)["ExitCode"] == 137
    assert post(f"/containers/{sleeper}/stop").status == 304
    not_running = f"container {sleeper} is not running"
    assert post(f"/containers/{sleeper}/kill").error == (409, f"cannot kill container: {sleeper}: {not_running}")
    assert post(f"/containers/{sleeper}/pause").error == (409, not_running)
    for namespace, status in (("Pid", 500), ("Ipc", 409)):
        joined = create(engine, HostConfig={f"{namespace}Mode": f"container:{sleeper}"})
        failed = f"failed to join {namespace.upper()} namespace: {not_running}"
        assert post(f"/containers/{joined}/start").error == (status, failed)
        engine.api.delete(f"/containers/{joined}")
    assert post(f"/containers/{sleeper}/start").status == 204
    assert state(engine, sleeper)["Running"]


@pytest.mark.core
@pytest.mark.parametrize(
    ("path", "query"), [("stop", {}), ("stop", {"signal": "SIGTERM", "t": 60}), ("kill", {"signal": "15"})]
)
def test_stop_timeout_and_signal(engine: Engine, path: str, query: dict[str, object]) -> None:
    identity = create(engine, Cmd=["sh", "-c", TRAP], StopTimeout=60)
    try:
        engine.api.post(f"/containers/{identity}/start")
        assert until(lambda: "ready" in engine.docker("logs", identity).stdout)
        assert engine.api.post(f"/containers/{identity}/{path}", **query).status == 204
        assert wait(engine, identity) == {"StatusCode": 5}
    finally:
        engine.api.delete(f"/containers/{identity}", force=1)


def test_signals_by_name_and_number(engine: Engine) -> None:
    script = "trap 'echo usr1' USR1; trap 'echo hup' HUP; echo ready; while :; do sleep 0.1; done"
    identity = create(engine, Cmd=["sh", "-c", script])
    try:
        engine.api.post(f"/containers/{identity}/start")

        def logged(word: str) -> bool:
            return word in engine.docker("logs", identity).stdout

        assert until(lambda: logged("ready"))
        assert engine.api.post(f"/containers/{identity}/kill", signal="SIGUSR1").status == 204
        assert until(lambda: logged("usr1"))
        assert engine.api.post(f"/containers/{identity}/kill", signal="1").status == 204
        assert until(lambda: logged("hup"))
        assert engine.api.post(f"/containers/{identity}/kill", signal="ODD").error == (
            400,
            f"cannot kill container: {identity}: invalid signal: ODD",
        )
        assert engine.api.post(f"/containers/{identity}/kill").status == 204
        assert state(engine, identity)["ExitCode"] == 137
    finally:
        engine.api.delete(f"/containers/{identity}", force=1)


def test_restart_keeps_the_container(engine: Engine, sleeper: str) -> None:
    first = state(engine, sleeper)
    assert engine.api.post(f"/containers/{sleeper}/restart", t=0).status == 204
    second = state(engine, sleeper)
    assert second["Running"]
    assert second["StartedAt"] > first["StartedAt"]
    assert second["Pid"] != first["Pid"]
    assert engine.api.get(f"/containers/{sleeper}/json").json()["RestartCount"] == 0
    assert engine.api.post("/containers/nosuch/restart").error == (404, "No such container: nosuch")


@pytest.mark.core
def test_wait_conditions(engine: Engine) -> None:
    """Each waiter is registered before the event: the response head is sent immediately."""
    identity = create(engine, Cmd=["sh", "-c", "exit 4"], HostConfig={"AutoRemove": True})
    answers: dict[str, Any] = {}
    waiting: list[threading.Thread] = []
    for condition in ("next-exit", "removed"):
        connection = engine.api.connection()
        connection.request("POST", f"/containers/{identity}/wait?condition={condition}")
        response = connection.getresponse()  # returns with the response head, before the container runs
        assert response.status == 200

        def read(condition: str = condition, response: Any = response, connection: Any = connection) -> None:
            answers[condition] = json.loads(response.read())
            connection.close()

        waiting.append(threading.Thread(target=read))
        waiting[-1].start()
    assert wait(engine, identity) == {"StatusCode": 0}
    assert engine.api.post(f"/containers/{identity}/start").status == 204
    for thread in waiting:
        thread.join(60)
    assert answers == {"next-exit": {"StatusCode": 4}, "removed": {"StatusCode": 4}}
    assert engine.api.get(f"/containers/{identity}/json").status == 404
    assert engine.api.post(f"/containers/{identity}/wait", condition="odd").status == 400


def test_renamed_and_updated_while_many_wait(engine: Engine, sleeper: str) -> None:
    """No waiter is lost, no name stays reserved, and the last update counts."""
    codes: list[int] = []
    faults: list[tuple[str, int, bytes]] = []

    def waiter() -> None:
        codes.append(wait(engine, sleeper)["StatusCode"])

    def change(worker: int) -> None:
        for turn in range(8):
            for path, body, query in (
                ("rename", None, {"name": f"load-{worker}-{turn}"}),
                ("update", {"Memory": (16 + turn) << 20, "MemorySwap": -1}, {}),
            ):
                answer = engine.api.post(f"/containers/{sleeper}/{path}", body, **query)
                if answer.status not in (200, 204):
                    faults.append((path, answer.status, answer.body))

    waiting = [threading.Thread(target=waiter) for _ in range(6)]
    changing = [threading.Thread(target=change, args=(worker,)) for worker in range(3)]
    for thread in (*waiting, *changing):
        thread.start()
    for thread in changing:
        thread.join(90)
    assert faults == []
    found = engine.api.get(f"/containers/{sleeper}/json").json()
    name = found["Name"][1:]
    assert found["HostConfig"]["Memory"] == 23 << 20
    other_names = [each for worker in range(3) for turn in range(8) if (each := f"load-{worker}-{turn}") != name]
    assert [each for each in other_names if engine.api.get(f"/containers/{each}/json").status != 404] == []
    assert engine.api.post(f"/containers/{name}/kill").status == 204
    for thread in waiting:
        thread.join(60)
    assert codes == [137] * 6


def test_names_are_unique_and_valid(engine: Engine, sleeper: str) -> None:
    other = create(engine, name="other", Cmd=["true"])
    try:
        assert engine.api.post(f"/containers/{sleeper}/rename", name="renamed").status == 204
        assert engine.api.get("/containers/renamed/json").json()["Id"] == sleeper
        conflict = (
            f'Conflict. The container name "/renamed" is already in use by container "{sleeper}". '
            "You have to remove (or rename) that container to be able to reuse that name."
        )
        body = {"Image": "busybox", "Cmd": ["true"]}
        assert engine.api.post("/containers/create", body, name="renamed").error == (409, conflict)
        assert engine.api.post(f"/containers/{other}/rename", name="renamed").error == (
            409,
            f"Error when allocating new name: {conflict}",
        )
        assert engine.api.post(f"/containers/{other}/rename", name="other").error == (
            400,
            "Renaming a container with the same name as its current name",
        )
        assert engine.api.post(f"/containers/{other}/rename", name="").error == (
            400,
            "Neither old nor new names may be empty",
        )
        assert engine.api.post("/containers/create", body, name="a b").error == (
            400,
            "Invalid container name (a b), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed",
        )
        # A released name can be used.
        assert engine.api.post(f"/containers/{sleeper}/rename", name="once-more").status == 204
        assert engine.api.post(f"/containers/{other}/rename", name="renamed").status == 204
    finally:
        engine.api.delete(f"/containers/{other}")


def test_errors_name_the_container(engine: Engine, sleeper: str) -> None:
    assert engine.api.post(f"/containers/{sleeper}/stop", signal="ODD").error == (
        500,
        f"cannot stop container: {sleeper}: invalid signal: ODD",
    )
    for host in ({"IpcMode": "container:nosuch"}, {"PidMode": "container:nosuch"}):
        answer = engine.api.post("/containers/create", {"Image": "busybox", "HostConfig": host})
        assert answer.error == (400, "No such container: nosuch")
    answer = engine.api.post("/containers/create", {"Image": "busybox", "WorkingDir": "/etc/passwd"})
    assert answer.error == (500, "Cannot mkdir: /etc/passwd is not a directory")
    identity = create(engine, WorkingDir="/home/new/place")
    try:
        # create makes the working directory, so files can be copied before the first start
        head = engine.api.request("HEAD", f"/containers/{identity}/archive", query={"path": "/home/new/place"})
        assert head.status == 200
    finally:
        engine.api.delete(f"/containers/{identity}")
    answer = engine.api.post(f"/containers/{sleeper}/rename", name="a b")
    assert answer.error[1].startswith("Error when allocating new name: Invalid container name (/a b), only")


def test_failed_start_is_shown_in_state(engine: Engine) -> None:
    identity = create(engine, Cmd=["/no/such/program"])
    try:
        status, text = engine.api.post(f"/containers/{identity}/start").error
        assert status == 400
        assert "no such file or directory" in text
        now = state(engine, identity)
        assert (now["Status"], now["ExitCode"], now["Error"]) == ("created", 127, text)
        assert until(lambda: not engine.find("runc"))
    finally:
        assert engine.api.delete(f"/containers/{identity}").status == 204


@pytest.mark.core
def test_oom_kill_is_shown_in_state(engine: Engine) -> None:
    limits = {"Memory": 16 << 20, "MemorySwap": 16 << 20}
    identity = create(engine, Cmd=["sh", "-c", "head -c 200m /dev/zero | tail -c 200m"], HostConfig=limits)
    try:
        engine.api.post(f"/containers/{identity}/start")
        wait(engine, identity)
        assert until(lambda: bool(state(engine, identity)["OOMKilled"]))
    finally:
        engine.api.delete(f"/containers/{identity}", force=1)


def test_prune_by_labels_and_time(engine: Engine, sleeper: str) -> None:
    labelled = create(engine, Cmd=["true"], Labels={"keep": "1"})
    unlabelled = create(engine, Cmd=["true"])
    try:
        bad = engine.api.post("/containers/prune", filters='{"odd": ["1"]}')
        assert bad.error == (400, "invalid filter 'odd'")
        report = engine.api.post("/containers/prune", filters='{"label!": ["keep"]}').json()
        assert report["ContainersDeleted"] == [unlabelled]
        assert engine.api.get(f"/containers/{sleeper}/json").status == 200
        empty = engine.api.post("/containers/prune", filters='{"label": ["nosuch"]}').json()
        assert empty == {"ContainersDeleted": None, "SpaceReclaimed": 0}
    finally:
        engine.api.delete(f"/containers/{labelled}")


@pytest.mark.parametrize("by_name", [True, False])
def test_containers_in_ctr(engine: Engine, *, by_name: bool) -> None:
    """`docker info` names its address."""
    containerd = engine.api.get("/v1.51/info").json()["Containerd"]
    id = engine.api.get("/images/busybox/json").json()["Id"]
    reference = "busybox" if by_name else id[7:19]
    box = engine.docker("run", "-d", "--network", "none", reference, "sleep", "600").stdout.strip()
    try:
        namespace = containerd["Namespaces"]["Containers"]
        table = ctr(Path(containerd["Address"]), "containers", "ls", namespace=namespace).stdout
        row = next(line.split() for line in table.splitlines() if line.startswith(box))
        assert row[1] == ("docker.io/library/busybox:latest" if by_name else "-")
    finally:
        engine.docker("rm", "-f", box)
