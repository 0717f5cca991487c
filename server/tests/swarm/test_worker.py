"""Tasks from their assignment to their removal, over the fake engine."""

import asyncio
import json
from dataclasses import replace

import pytest

from api_models.container import HealthConfig
from engine.common.errors import Kind, WharfError
from server.containers.hooks import call
from server.containers.model import Health
from server.swarm.agent import worker
from server.swarm.agent.tests.fakes import NODE, make_task
from server.swarm.agent.worker import clear
from server.swarm.model.objects import TaskStatus
from server.swarm.model.taskstate import TaskState
from server.tests.daemon import Daemon
from server.tests.swarm.harness import Swarm, run

R, S, REMOVE = TaskState.RUNNING, TaskState.SHUTDOWN, TaskState.REMOVE


def test_a_task_runs_is_stopped_and_removed(daemon: Daemon) -> None:
    async def scenario(swarm: Swarm) -> None:
        swarm.dispatcher.put(make_task("t1", env=("A=1",), args=("-b",)))
        task = await swarm.dispatcher.reaches("t1", R)
        container = swarm.container("t1")
        assert (container.name, container.managed, container.running) == ("web.1.t1", True, True)
        assert (container.path, container.args) == ("top", ["-b"])
        assert "A=1" in (container.config.env or ())
        assert container.labels["com.docker.swarm.task.id"] == "t1"
        assert (task.status.message, task.status.err, task.status.applied_by) == ("started", "", NODE)
        assert task.status.container is not None
        assert task.status.container.container_id == container.id
        swarm.dispatcher.desire("t1", S)
        task = await swarm.dispatcher.reaches("t1", S)
        assert task.status.message == "shutdown"
        assert not container.running
        assert swarm.names() == ["web.1.t1"]
        swarm.dispatcher.delete("t1")
        await swarm.until(lambda: not swarm.names())

    run(daemon, scenario)


def test_an_exit_is_reported_with_its_code(daemon: Daemon) -> None:
    async def scenario(swarm: Swarm) -> None:
        swarm.dispatcher.put(make_task("good"), make_task("bad"))
        await swarm.dispatcher.reaches("good", R)
        await swarm.dispatcher.reaches("bad", R)
        swarm.exit("good", 0)
        swarm.exit("bad", 3)
        good = await swarm.dispatcher.reaches("good", TaskState.COMPLETE)
        bad = await swarm.dispatcher.reaches("bad", TaskState.FAILED)
        assert (good.status.message, good.status.err) == ("finished", "")
        assert (bad.status.message, bad.status.err) == ("started", "task: non-zero exit (3)")
        assert bad.status.container is not None
        assert bad.status.container.exit_code == 3

    run(daemon, scenario)


def test_the_removal_of_a_service_stops_and_removes_its_containers(daemon: Daemon) -> None:
    async def scenario(swarm: Swarm) -> None:
        swarm.dispatcher.put(make_task("t1"), make_task("t2", TaskState.READY))
        await swarm.dispatcher.reaches("t1", R)
        await swarm.dispatcher.reaches("t2", TaskState.READY)
        for id in ("t1", "t2"):
            swarm.dispatcher.desire(id, REMOVE)
        await swarm.dispatcher.until(lambda: not swarm.dispatcher.tasks)
        await swarm.until(lambda: not swarm.names())

    run(daemon, scenario)


def test_ten_tasks_need_few_reports(daemon: Daemon) -> None:
    async def scenario(swarm: Swarm) -> None:
        ids = [f"t{number}" for number in range(10)]
        swarm.dispatcher.put(*map(make_task, ids))
        for id in ids:
            await swarm.dispatcher.reaches(id, R)
        assert len(swarm.dispatcher.reports) <= 5

    run(daemon, scenario)


def test_a_prepared_task_waits_for_its_start(daemon: Daemon) -> None:
    async def scenario(swarm: Swarm) -> None:
        swarm.dispatcher.put(make_task("t1", TaskState.READY))
        ready = await swarm.dispatcher.reaches("t1", TaskState.READY)
        assert (ready.status.message, swarm.container("t1").state.status) == ("prepared", "created")
        swarm.dispatcher.desire("t1", R)
        await swarm.dispatcher.reaches("t1", R)

    run(daemon, scenario)


def test_a_task_that_never_started_is_shut_down(daemon: Daemon) -> None:
    async def scenario(swarm: Swarm) -> None:
        swarm.dispatcher.put(make_task("t1", TaskState.READY), make_task("t2", S))
        await swarm.dispatcher.reaches("t1", TaskState.READY)
        swarm.dispatcher.desire("t1", S)
        await swarm.dispatcher.reaches("t1", S)
        await swarm.dispatcher.reaches("t2", S)
        assert swarm.names() == ["web.1.t1"]

    run(daemon, scenario)


def test_a_task_without_its_image_is_rejected(daemon: Daemon) -> None:
    async def scenario(swarm: Swarm) -> None:
        swarm.dispatcher.put(make_task("t1", image="localhost:1/nosuch"))
        task = await swarm.dispatcher.reaches("t1", TaskState.REJECTED)
        assert (task.status.message, task.status.err) == ("preparing", "No such image: localhost:1/nosuch:latest")

    run(daemon, scenario)


def test_an_invalid_spec_is_rejected(daemon: Daemon) -> None:
    async def scenario(swarm: Swarm) -> None:
        swarm.dispatcher.put(make_task("t1", hostname="{{.Service.Nosuch}}"), make_task("t2", image=""))
        first = await swarm.dispatcher.reaches("t1", TaskState.REJECTED)
        assert first.status.message == "resolving controller failed"
        assert first.status.err == (
            'expanding hostname failed: template: expansion:1:10: executing "expansion" at <.Service.Nosuch>: '
            "can't evaluate field Nosuch in type struct { ID string; Name string; Labels map[string]string }"
        )
        second = await swarm.dispatcher.reaches("t2", TaskState.REJECTED)
        assert second.status.err == "dockerexec: image required"

    run(daemon, scenario)


def test_a_failed_start_fails_the_task(daemon: Daemon) -> None:
    async def scenario(swarm: Swarm) -> None:
        swarm.containers.refusal = WharfError(Kind.INVALID_ARGUMENT, "exec: no such file")
        swarm.dispatcher.put(make_task("t1"))
        task = await swarm.dispatcher.reaches("t1", TaskState.FAILED)
        assert (task.status.message, task.status.err) == (
            "starting",
            "starting container failed: exec: no such file",
        )
        assert task.status.container is not None
        assert task.status.container.exit_code == 127

    run(daemon, scenario)


def _set_health(swarm: Swarm, id: str, status: str) -> None:
    container = swarm.container(id)
    container.state.health = Health(status=status)
    call(swarm.containers.hooks.health, container)


CHECK = HealthConfig(test=("CMD", "true"), interval=3600 * 10**9)


def test_a_task_with_a_health_check_runs_when_it_is_healthy(daemon: Daemon) -> None:
    async def scenario(swarm: Swarm) -> None:
        swarm.dispatcher.put(make_task("t1", healthcheck=CHECK))
        await swarm.dispatcher.reaches("t1", TaskState.STARTING)
        _set_health(swarm, "t1", "healthy")
        await swarm.dispatcher.reaches("t1", R)
        _set_health(swarm, "t1", "unhealthy")
        task = await swarm.dispatcher.reaches("t1", TaskState.FAILED)
        assert task.status.err == "task: non-zero exit (143): dockerexec: unhealthy container"
        assert not swarm.container("t1").running

    run(daemon, scenario)


def test_a_task_that_never_gets_healthy_fails(daemon: Daemon) -> None:
    async def scenario(swarm: Swarm) -> None:
        swarm.dispatcher.put(make_task("t1", healthcheck=CHECK), make_task("t2", healthcheck=CHECK))
        await swarm.dispatcher.reaches("t1", TaskState.STARTING)
        await swarm.dispatcher.reaches("t2", TaskState.STARTING)
        _set_health(swarm, "t1", "unhealthy")
        swarm.exit("t2", 1)
        first = await swarm.dispatcher.reaches("t1", TaskState.FAILED)
        assert first.status.err == "task: non-zero exit (143): dockerexec: unhealthy container"
        second = await swarm.dispatcher.reaches("t2", TaskState.FAILED)
        assert second.status.err == "task: non-zero exit (1)"

    run(daemon, scenario)


def test_the_next_agent_adopts_what_runs_and_removes_the_rest(daemon: Daemon) -> None:
    started: list[int] = []

    async def first(swarm: Swarm) -> None:
        swarm.dispatcher.put(*map(make_task, ("kept", "exited", "gone")))
        for id in ("kept", "exited", "gone"):
            await swarm.dispatcher.reaches(id, R)
        started.append(swarm.container("kept").state.started_ns)

    async def between(swarm: Swarm) -> None:
        swarm.dispatcher.down = True

    async def second(swarm: Swarm) -> None:
        await swarm.dispatcher.reaches("exited", TaskState.FAILED)
        await swarm.until(lambda: swarm.names() == ["web.1.exited", "web.1.kept"])
        assert (await swarm.dispatcher.reaches("kept", R)).status.message == "started"
        assert swarm.container("kept").state.started_ns == started[0]
        swarm.exit("kept", 0)
        await swarm.dispatcher.reaches("kept", TaskState.COMPLETE)

    async def offline(swarm: Swarm) -> None:
        """While no manager is reached, tasks go on and containers exit."""
        swarm.exit("exited", 9)
        await swarm.until(lambda: not swarm.container("exited").running)
        swarm.dispatcher.down = False
        swarm.dispatcher.delete("gone")

    run(daemon, first, between, offline, second)


def test_reports_wait_for_the_managers(daemon: Daemon) -> None:
    async def scenario(swarm: Swarm) -> None:
        swarm.dispatcher.put(make_task("t1"))
        await swarm.dispatcher.reaches("t1", R)
        swarm.dispatcher.down = True
        swarm.exit("t1", 1)
        await asyncio.sleep(0.2)
        assert swarm.dispatcher.tasks["t1"].state is R
        swarm.dispatcher.down = False
        await swarm.dispatcher.reaches("t1", TaskState.FAILED)

    run(daemon, scenario)


def test_a_node_that_leaves_has_no_containers_of_tasks(daemon: Daemon) -> None:
    async def tasks(swarm: Swarm) -> None:
        swarm.dispatcher.put(make_task("t1"), make_task("t2", TaskState.READY))
        await swarm.dispatcher.reaches("t1", R)
        await swarm.dispatcher.reaches("t2", TaskState.READY)

    async def leave(swarm: Swarm) -> None:
        swarm.dispatcher.tasks.clear()
        swarm.dispatcher.down = True
        await clear(swarm.neighbours)
        assert swarm.names() == ["mine"]

    daemon.create("mine")
    run(daemon, tasks, leave)


def test_docker_ps_filters_the_containers_of_tasks(daemon: Daemon) -> None:
    async def scenario(swarm: Swarm) -> None:
        swarm.dispatcher.put(make_task("t1"))
        await swarm.dispatcher.reaches("t1", R)

    daemon.create("forged", Labels={"com.docker.swarm.task": "", "com.docker.swarm.task.id": "t1"})
    run(daemon, scenario)

    def names(**filters: list[str]) -> list[str]:
        rows = daemon.get("/containers/json", all=1, filters=json.dumps(filters)).json()
        return sorted(row["Names"][0] for row in rows)

    assert names(**{"is-task": ["true"]}) == ["/web.1.t1"]
    assert names(**{"is-task": ["false"]}) == ["/forged"]
    assert names() == ["/forged", "/web.1.t1"]


def test_a_job_runs_to_its_end(daemon: Daemon) -> None:
    async def scenario(swarm: Swarm) -> None:
        swarm.dispatcher.put(make_task("t1", TaskState.COMPLETE))
        await swarm.dispatcher.reaches("t1", R)
        swarm.exit("t1", 0)
        await swarm.dispatcher.reaches("t1", TaskState.COMPLETE)

    run(daemon, scenario)


def test_a_task_whose_container_a_client_removes_fails(daemon: Daemon) -> None:
    async def scenario(swarm: Swarm) -> None:
        swarm.dispatcher.put(make_task("t1"))
        await swarm.dispatcher.reaches("t1", R)
        await swarm.containers.remove("web.1.t1", force=True)
        task = await swarm.dispatcher.reaches("t1", TaskState.FAILED)
        assert task.status.err == "task: non-zero exit (137)"
        swarm.dispatcher.desire("t1", REMOVE)
        swarm.dispatcher.delete("t1")

    run(daemon, scenario)


def test_the_container_is_removed_before_the_task(daemon: Daemon) -> None:
    async def scenario(swarm: Swarm) -> None:
        swarm.dispatcher.put(make_task("t1"))
        await swarm.dispatcher.reaches("t1", R)
        swarm.dispatcher.desire("t1", REMOVE)
        await swarm.dispatcher.until(lambda: not swarm.dispatcher.tasks)
        assert swarm.names() == []

    run(daemon, scenario)


def test_a_lost_container_fails_a_task_that_ran(daemon: Daemon) -> None:
    async def scenario(swarm: Swarm) -> None:
        running, stopping = make_task("t1"), make_task("t2", S)
        status = TaskStatus(state=int(R), message="started")
        swarm.dispatcher.put(replace(running, status=status), replace(stopping, status=status))
        task = await swarm.dispatcher.reaches("t1", TaskState.FAILED)
        assert task.status.err == "No such container: web.1.t1"
        await swarm.dispatcher.reaches("t2", S)

    run(daemon, scenario)


def test_a_node_that_changes_is_described_again(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(swarm: Swarm) -> None:
        def labels() -> object:
            described = swarm.dispatcher.description
            return described and described.engine.labels

        await swarm.dispatcher.until(lambda: swarm.dispatcher.description is not None)
        assert labels() is None
        system = daemon.services.system
        swarm.dispatcher.down = True
        system.config = replace(system.config, labels=("disk=ssd",))
        await asyncio.sleep(0.05)  # the managers can't be reached at first
        swarm.dispatcher.down = False
        await swarm.dispatcher.until(lambda: labels() == {"disk": "ssd"})
        swarm.dispatcher.description = None
        await asyncio.sleep(0.05)
        assert swarm.dispatcher.description is None  # what the managers know is not repeated

    monkeypatch.setattr(worker, "_LOOK", 0.01)
    run(daemon, scenario)
