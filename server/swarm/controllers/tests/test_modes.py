"""Global services and jobs."""

from pathlib import Path

from api_models.swarm.service import GlobalJob, GlobalService, ReplicatedJob, ServiceMode
from api_models.swarm.task import Placement, RestartPolicy
from server.swarm.controllers.orchestrator.tasks import alive
from server.swarm.controllers.tests.world import World, play, task_spec
from server.swarm.model.taskstate import TaskState

EVERYWHERE = ServiceMode(global_=GlobalService())


def _nodes(world: World, name: str) -> list[str]:
    return sorted(task.node_id for task in world.running(name))


def test_a_global_service_follows_the_nodes(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.node("n1")
        await world.service("web", EVERYWHERE)
        await world.service("ssd", EVERYWHERE, task_spec(placement=Placement(constraints=("node.labels.disk==ssd",))))
        await world.settle()
        assert _nodes(world, "web") == ["n1"]
        await world.node("n2", disk="ssd")
        await world.node("n3")
        await world.settle()
        assert _nodes(world, "web") == ["n1", "n2", "n3"]
        assert _nodes(world, "ssd") == ["n2"]
        await world.set_node("n2", availability="drain")
        await world.settle()
        assert _nodes(world, "web") == ["n1", "n3"]
        assert _nodes(world, "ssd") == []
        await world.set_node("n2", availability="active")
        await world.set_node("n3", availability="pause")
        await world.settle()
        assert _nodes(world, "web") == ["n1", "n2", "n3"]
        await world.agents["n3"].end(next(task for task in world.running("web") if task.node_id == "n3"))
        await world.advance(10)
        assert _nodes(world, "web") == ["n1", "n2"]
        await world.remove_node("n1")
        await world.settle()
        assert _nodes(world, "web") == ["n2"]

    play(tmp_path, scenario)


def test_a_global_task_is_restarted_on_its_node(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        agent = await world.node("n1")
        await world.node("n2")
        await world.service("web", EVERYWHERE)
        await world.settle()
        await agent.end(next(task for task in world.running("web") if task.node_id == "n1"))
        await world.settle()
        assert _nodes(world, "web") == ["n2"]
        await world.advance(5)
        assert _nodes(world, "web") == ["n1", "n2"]

    play(tmp_path, scenario)


def test_a_global_task_waits_for_its_node(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.node("n1")
        await world.set_node("n1", state="disconnected")
        await world.service("web", EVERYWHERE)
        await world.settle()
        assert [task.status.err for task in world.tasks("web")] == ["1 node not available for new tasks"]
        await world.set_node("n1", state="ready")
        await world.settle()
        assert [task.status.message for task in world.running("web")] == ["running"]

    play(tmp_path, scenario)


def test_a_replicated_job_runs_until_it_is_complete(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        agent = await world.node("n1")
        await world.service("job", ServiceMode(replicated_job=ReplicatedJob(max_concurrent=2, total_completions=5)))
        await world.settle()
        assert [task.desired for task in world.running("job")] == [TaskState.COMPLETE] * 2
        first, second = world.running("job")
        await agent.end(first, TaskState.COMPLETE)
        await world.settle()
        assert [task.slot for task in world.running("job")] == [1, 2]
        # A failed one runs again, in its slot.
        await agent.end(second)
        await world.advance(5)
        assert sorted(task.slot for task in world.running("job")) == [1, 2]
        agent.fate["job"] = TaskState.COMPLETE
        for task in world.running("job"):
            await agent.end(task, TaskState.COMPLETE)
        await world.advance(60)
        done = [task for task in world.tasks("job") if task.state is TaskState.COMPLETE]
        assert [task.slot for task in done] == [0, 1, 2, 3, 4]
        assert not any(alive(task) and not task.state.ended for task in world.tasks("job"))
        # An update runs all of it again.
        await world.update("job", task_template=task_spec(force_update=1))
        await world.advance(60)
        done = [task for task in world.tasks("job") if task.state is TaskState.COMPLETE and task.job_iteration == 1]
        assert len(done) == 5

    play(tmp_path, scenario)


def test_the_first_slot_of_a_job_moves_to_another_node(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.node("n1")
        await world.node("n2", availability="pause")
        await world.service("job", ServiceMode(replicated_job=ReplicatedJob()))
        await world.settle()
        await world.set_node("n2", availability="active")
        await world.set_node("n1", availability="drain")
        await world.settle()
        assert [(task.slot, task.node_id) for task in world.running("job")] == [(0, "n2")]
        assert len(world.tasks("job")) == 2

    play(tmp_path, scenario)


def test_a_job_gives_up_when_its_attempts_are_over(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        agent = await world.node("n1")
        agent.fate["job"] = TaskState.FAILED
        policy = RestartPolicy(condition="on-failure", max_attempts=1)
        await world.service("job", ServiceMode(replicated_job=ReplicatedJob()), task_spec(restart_policy=policy))
        await world.advance(120)
        assert [task.state for task in world.tasks("job")] == [TaskState.FAILED] * 2

    play(tmp_path, scenario)


def test_a_global_job_runs_once_on_each_node(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        for name in ("n1", "n2"):
            agent = await world.node(name)
            agent.fate["job"] = TaskState.COMPLETE
        await world.service("job", ServiceMode(global_job=GlobalJob()))
        await world.advance(30)
        assert sorted((task.node_id, task.state) for task in world.tasks("job")) == [
            ("n1", TaskState.COMPLETE),
            ("n2", TaskState.COMPLETE),
        ]
        third = await world.node("n3")
        third.fate["job"] = TaskState.COMPLETE
        await world.settle()
        assert len(world.tasks("job")) == 3
        await world.update("job", task_template=task_spec(force_update=1))
        await world.advance(30)
        assert [task.job_iteration for task in world.tasks("job")] == [1, 1, 1]

    play(tmp_path, scenario)
