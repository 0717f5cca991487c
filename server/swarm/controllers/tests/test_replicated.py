"""Replicated services: slots, scaling, restarts, nodes that come and go."""

from pathlib import Path

from api_models.swarm.task import RestartPolicy
from server.swarm.controllers.tests.world import World, play, task_spec
from server.swarm.model.taskstate import TaskState


def test_a_new_service_is_assigned_by_one_commit_and_runs(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.node("n1")
        await world.settle()
        changes = world.state.subscribe()
        await world.service("web", 10)
        created = world.state.revision
        await changes.next()
        events = await changes.next()
        assert {event.item.version for event in events} == {created + 1}
        assert len(events) == 10
        await world.settle()
        assert [task.slot for task in world.running("web")] == list(range(1, 11))
        assert len(world.tasks("web")) == 10
        # Creation, assignment, and the report of the agent.
        assert world.state.revision == created + 2

    play(tmp_path, scenario)


def test_scaling_adds_and_removes_slots(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.node("n1")
        await world.node("n2")
        await world.service("web", 2)
        await world.settle()
        assert sorted(task.node_id for task in world.running("web")) == ["n1", "n2"]
        await world.update("web", replicas=5)
        await world.settle()
        assert [task.slot for task in world.running("web")] == [1, 2, 3, 4, 5]
        await world.update("web", replicas=2)
        await world.settle()
        assert [task.slot for task in world.tasks("web")] == [1, 2]
        assert sorted(task.node_id for task in world.running("web")) == ["n1", "n2"]
        await world.update("web", replicas=0)
        await world.settle()
        assert world.tasks("web") == []

    play(tmp_path, scenario)


def test_a_failed_task_is_replaced_after_the_delay(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        agent = await world.node("n1")
        await world.service("web", 2)
        await world.settle()
        first = world.running("web")[0]
        await agent.end(first)
        await world.settle()
        old, new = (task for task in world.tasks("web") if task.slot == 1)
        assert (old.desired, old.state) == (TaskState.SHUTDOWN, TaskState.FAILED)
        assert (new.desired, new.state) == (TaskState.READY, TaskState.READY)
        await world.advance(4.9)
        assert len(world.running("web")) == 1
        await world.advance(0.1)
        assert world.running("web")[0].id == new.id

    play(tmp_path, scenario)


def test_attempts_are_limited_and_conditions_observed(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        agent = await world.node("n1")
        agent.fate["twice"] = TaskState.FAILED
        agent.fate["once"] = TaskState.FAILED
        agent.fate["done"] = TaskState.COMPLETE
        await world.service(
            "twice", 1, task_spec(restart_policy=RestartPolicy(condition="any", max_attempts=2, delay=0))
        )
        await world.service("once", 1, task_spec(restart_policy=RestartPolicy(condition="none")))
        await world.service("done", 1, task_spec(restart_policy=RestartPolicy(condition="on-failure")))
        await world.advance(60)
        assert [task.state for task in world.tasks("twice")] == [TaskState.FAILED] * 3
        assert [task.state for task in world.tasks("once")] == [TaskState.FAILED]
        assert [task.state for task in world.tasks("done")] == [TaskState.COMPLETE]
        # Another leader sees the same.
        await world.restart()
        await world.advance(60)
        assert len(world.tasks("twice")) == 3
        # A new spec begins anew.
        agent.fate.clear()
        await world.update("twice", task_template=task_spec("busybox:2"))
        await world.advance(10)
        assert len(world.running("twice")) == 1

    play(tmp_path, scenario)


def test_a_window_forgets_old_restarts(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        agent = await world.node("n1")
        policy = RestartPolicy(condition="any", max_attempts=1, delay=0, window=10 * 10**9)
        await world.service("web", 1, task_spec(restart_policy=policy))
        for _ in range(3):
            await world.advance(20)
            await agent.end(world.running("web")[0])
        await world.advance(1)
        assert len(world.running("web")) == 1
        await agent.end(world.running("web")[0])
        await world.advance(60)
        assert world.running("web") == []

    play(tmp_path, scenario)


def test_the_history_of_a_slot_is_limited(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        agent = await world.node("n1")
        agent.fate["web"] = TaskState.FAILED
        await world.service("web", 1, task_spec(restart_policy=RestartPolicy(delay=1_000_000_000)))
        for _ in range(12):
            await world.advance(1)
        assert len(world.tasks("web")) == 5

    play(tmp_path, scenario)


def test_tasks_of_a_lost_node_run_elsewhere_and_come_to_one_copy(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        cut = await world.node("n1")
        other = await world.node("n2")
        await world.service("web", 4)
        await world.settle()
        await cut.stop()
        await world.set_node("n1", state="down")
        await world.advance(6)
        assert {task.node_id for task in world.running("web")} == {"n2"}
        assert len(cut.running) == 2
        await world.set_node("n1", state="ready")
        cut.start()
        await world.settle()
        assert not cut.running
        assert len(other.running) == 4

    play(tmp_path, scenario)


def test_draining_moves_tasks_without_delay_and_pausing_keeps_them(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.node("n1")
        await world.node("n2")
        await world.service("web", 4)
        await world.settle()
        await world.set_node("n1", availability="drain")
        await world.settle()
        assert {task.node_id for task in world.running("web")} == {"n2"}
        await world.set_node("n1", availability="pause")
        await world.update("web", replicas=6)
        await world.settle()
        assert {task.node_id for task in world.running("web")} == {"n2"}
        await world.set_node("n1", availability="active")
        await world.update("web", replicas=8)
        await world.settle()
        assert sum(task.node_id == "n1" for task in world.running("web")) == 2

    play(tmp_path, scenario)


def test_a_removed_node_orphans_its_tasks(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.node("n1")
        await world.service("web", 1)
        await world.settle()
        await world.remove_node("n1")
        await world.advance(10)
        old, new = world.tasks("web")
        assert old.state is TaskState.ORPHANED
        assert new.status.err == "no suitable node"
        await world.node("n2")
        await world.settle()
        assert [task.id for task in world.running("web")] == [new.id]

    play(tmp_path, scenario)


def test_a_removed_service_leaves_nothing(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        agent = await world.node("n1")
        agent.slow.add("slow")
        await world.service("web", 3)
        await world.service("slow", 2)
        await world.service("nowhere", 1, task_spec(placement=None))
        await world.settle()
        agent.stubborn = True
        for name in ("web", "slow", "nowhere"):
            await world.remove(name)
        await world.settle()
        assert {task.desired for task in world.state.tables.tasks} == {TaskState.REMOVE}
        agent.stubborn = False
        await agent.work()
        await world.settle()
        assert len(world.state.tables.tasks) == 0
        assert not agent.running

    play(tmp_path, scenario)


def test_many_replicas_are_made_in_several_commits(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.node("n1")
        await world.service("web", 300)
        await world.settle()
        assert [task.slot for task in world.running("web")] == list(range(1, 301))
        await world.remove("web")
        await world.settle()
        assert len(world.state.tables.tasks) == 0

    play(tmp_path, scenario)
