"""The dispatcher of a manager's own node."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from api_models.swarm.cluster import SwarmSpec, TaskDefaults
from api_models.swarm.common import Driver
from api_models.swarm.container import ContainerSpec
from api_models.swarm.node import NodeDescription, NodeStatus
from api_models.swarm.secret import ConfigReference, ConfigSpec, SecretReference, SecretSpec
from api_models.swarm.service import ServiceSpec
from api_models.swarm.task import TaskSpec
from engine.common.errors import Kind, WharfError
from server.swarm.dispatch.local import LocalDispatcher
from server.swarm.model.objects import Cluster, Config, Node, Secret, Service, Task, TaskStatus
from server.swarm.model.taskstate import TaskState
from server.swarm.state.state import Put, State
from server.swarm.state.tests.opened import opened


class _Keys:
    def open(self, text: str, /) -> bytes:
        return text.removeprefix("sealed:").encode()


def _task(
    id: str,
    *,
    node_id: str = "n1",
    state: TaskState = TaskState.ASSIGNED,
    desired: TaskState = TaskState.RUNNING,
    container: ContainerSpec | None = None,
) -> Task:
    return Task(
        id=id,
        service_id="s1",
        service_name="web",
        slot=1,
        node_id=node_id,
        spec=TaskSpec(container_spec=container),
        status=TaskStatus(state=int(state)),
        desired_state=int(desired),
    )


def _run(path: Path, scenario: Callable[[State, LocalDispatcher], Awaitable[None]]) -> None:
    async def run() -> None:
        async with opened(path) as (_, state), asyncio.timeout(20):
            await state.commit([Put(Cluster(id="swarm")), Put(Node(id="n1", status=NodeStatus(addr="10.0.0.1")))])
            await scenario(state, LocalDispatcher(state, "n1", _Keys(), now=lambda: 77))

    asyncio.run(run())


def _status(state: TaskState) -> TaskStatus:
    return TaskStatus(state=int(state), message=state.text)


def test_reports_only_raise_the_state_of_own_tasks(tmp_path: Path) -> None:
    async def scenario(state: State, dispatcher: LocalDispatcher) -> None:
        await state.commit([Put(_task("t1")), Put(_task("t2", node_id="n2")), Put(_task("t3"))])
        await dispatcher.report(
            {id: _status(TaskState.RUNNING) for id in ("t1", "t2", "missing")} | {"t3": _status(TaskState.NEW)}
        )
        assert [state.tables.tasks.get(id).state for id in ("t1", "t2", "t3")] == [
            TaskState.RUNNING,
            TaskState.ASSIGNED,
            TaskState.ASSIGNED,
        ]
        task = state.tables.tasks.get("t1")
        assert (task.status.applied_by, task.running_ns) == ("n1", 77)
        revision = state.revision
        await dispatcher.report({"t1": _status(TaskState.STARTING)})
        await dispatcher.report({"t1": task.status})
        assert state.revision == revision

    _run(tmp_path, scenario)


def test_a_task_to_remove_is_deleted_when_it_has_ended(tmp_path: Path) -> None:
    async def scenario(state: State, dispatcher: LocalDispatcher) -> None:
        await state.commit([Put(_task("t1", desired=TaskState.REMOVE))])
        await dispatcher.report({"t1": _status(TaskState.RUNNING)})
        assert state.tables.tasks.find("t1") is not None
        await dispatcher.report({"t1": _status(TaskState.SHUTDOWN)})
        assert state.tables.tasks.find("t1") is None

    _run(tmp_path, scenario)


def test_reports_that_come_together_are_one_commit(tmp_path: Path) -> None:
    async def scenario(state: State, dispatcher: LocalDispatcher) -> None:
        tasks = [_task(f"t{number}") for number in range(50)]
        await state.commit([Put(task) for task in tasks])
        revision = state.revision
        await asyncio.gather(*(dispatcher.report({task.id: _status(TaskState.RUNNING)}) for task in tasks))
        assert all(task.state is TaskState.RUNNING for task in state.tables.tasks)
        assert state.revision <= revision + 2

    _run(tmp_path, scenario)


def test_assignments_come_again_after_changes_only(tmp_path: Path) -> None:
    async def scenario(state: State, dispatcher: LocalDispatcher) -> None:
        stream = dispatcher.assignments()
        assert (await anext(stream)).tasks == {}
        new = _task("t0", state=TaskState.PENDING)
        await state.commit([Put(new), Put(_task("other", node_id="n2"))])
        await state.commit([Put(_task("t1")), Put(_task("t2", desired=TaskState.REMOVE))])
        assert set((await anext(stream)).tasks) == {"t1", "t2"}
        waiting = asyncio.ensure_future(anext(stream))
        await state.commit([Put(replace(state.tables.tasks.get("other"), slot=3))])
        await asyncio.sleep(0.05)
        assert not waiting.done()
        driver = Driver(name="syslog")
        spec = SwarmSpec(task_defaults=TaskDefaults(log_driver=driver))
        await state.commit([Put(replace(state.cluster, spec=spec))])
        assert [task.spec.log_driver for task in (await waiting).tasks.values()] == [driver] * 2

    _run(tmp_path, scenario)


def test_a_description_makes_the_node_ready(tmp_path: Path) -> None:
    async def scenario(state: State, dispatcher: LocalDispatcher) -> None:
        await dispatcher.describe(NodeDescription(hostname="alpha"))
        node = state.tables.nodes.get("n1")
        assert (node.description.hostname, node.status) == ("alpha", NodeStatus(state="ready", addr="10.0.0.1"))
        await dispatcher.describe(NodeDescription(hostname="alpha"))
        assert state.tables.nodes.get("n1").version == node.version

    _run(tmp_path, scenario)


def test_payloads_are_for_tasks_that_refer_to_them(tmp_path: Path) -> None:
    async def scenario(state: State, dispatcher: LocalDispatcher) -> None:
        container = ContainerSpec(
            secrets=(SecretReference(secret_id="x1"),), configs=(ConfigReference(config_id="c1"),)
        )
        await state.commit(
            [
                Put(Service(id="s1", spec=ServiceSpec(name="web"), sealed_registry_auth="sealed:auth")),
                Put(Secret(id="x1", spec=SecretSpec(name="one"), sealed="sealed:data")),
                Put(Secret(id="x2", spec=SecretSpec(name="two"), sealed="sealed:data")),
                Put(Config(id="c1", spec=ConfigSpec(name="c", templating=Driver(name="golang")), sealed="sealed:conf")),
                Put(_task("t1", container=container)),
            ]
        )
        secret, config = await dispatcher.secret("x1"), await dispatcher.config("c1")
        assert (secret.data, secret.template, config.data, config.template) == (b"data", False, b"conf", True)
        assert await dispatcher.registry_auth("s1") == "auth"
        for request in (dispatcher.secret("x2"), dispatcher.secret("none"), dispatcher.config("x1")):
            with pytest.raises(WharfError) as error:
                await request
            assert error.value.kind is Kind.NOT_FOUND
        await dispatcher.report({"t1": _status(TaskState.FAILED)})
        for request in (dispatcher.secret("x1"), dispatcher.config("c1")):
            with pytest.raises(WharfError):
                await request
        with pytest.raises(WharfError, match="service s1 not found"):
            await dispatcher.registry_auth("s1")

    _run(tmp_path, scenario)


def test_a_node_that_followed_another_manager_begins_a_new_session(tmp_path: Path) -> None:
    """The session has the lease of that manager, which nobody keeps alive any more."""

    async def scenario(state: State, dispatcher: LocalDispatcher) -> None:
        first, second = (LocalDispatcher(state, "n1", _Keys(), sessions=True, manager=name) for name in ("m1", "m2"))
        await first.describe(NodeDescription(hostname="alpha"))
        await first.heartbeat()
        await first.describe(NodeDescription(hostname="beta"))
        await first.heartbeat()
        assert state.tables.sessions.get("n1").manager == "m1"
        await second.describe(NodeDescription(hostname="beta"))
        assert state.tables.sessions.get("n1").manager == "m2"
        with pytest.raises(WharfError) as over:
            await first.heartbeat()
        assert over.value.kind is Kind.NOT_FOUND
        await first.describe(NodeDescription(hostname="beta"))
        await second.end()
        await first.heartbeat()
        assert state.tables.sessions.get("n1").manager == "m1"

    _run(tmp_path, scenario)
