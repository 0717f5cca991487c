"""Tasks of nodes that are lost, and of those that return."""

from pathlib import Path

from api_models.network import IPAM, IPAMPool
from api_models.swarm.network import NetworkAttachmentConfig
from api_models.swarm.service import GlobalJob, GlobalService, ReplicatedJob, ServiceMode
from server.swarm.controllers.orchestrator.tasks import alive
from server.swarm.controllers.tests.world import World, play, task_spec
from server.swarm.model.objects import Network, Task
from server.swarm.model.taskstate import TaskState
from server.swarm.state.state import Put

DAY = 24 * 3600


def _addresses(tasks: list[Task]) -> list[str]:
    return [address for task in tasks for each in task.attachments for address in each.addresses]


def _of(world: World, name: str, node: str) -> list[Task]:
    return [task for task in world.tasks(name) if task.node_id == node]


def test_tasks_are_replaced_and_their_addresses_stay_theirs_while_they_may_run(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        # Four addresses for tasks, beside those of the gateway and the service.
        ipam = IPAM(config=(IPAMPool(subnet="10.0.1.0/29", gateway="10.0.1.1"),))
        await world.state.commit([Put(Network(id="front", name="front", ipam=ipam))])
        lost = await world.node("n1")
        spec = task_spec(networks=(NetworkAttachmentConfig(target="front"),))
        await world.service("web", 2, spec)
        await world.settle()
        await world.node("n2")
        await lost.vanish()
        await world.settle()
        old = _of(world, "web", "n1")
        assert [(task.desired, task.state) for task in old] == [(TaskState.SHUTDOWN, TaskState.RUNNING)] * 2
        await world.advance(5)
        new = world.running("web")
        assert [task.node_id for task in new] == ["n2"] * 2
        assert len({*_addresses(old), *_addresses(new)}) == 4
        # Others wait for addresses that the lost tasks may still have.
        await world.update("web", replicas=4)
        await world.settle()
        assert len(world.running("web")) == 2
        await world.advance(DAY)
        assert {world.state.tables.tasks.get(task.id).state for task in old} == {TaskState.ORPHANED}
        assert len(world.running("web")) == 4
        addresses = _addresses(world.running("web"))
        assert len(set(addresses)) == 4

    play(tmp_path, scenario, sessions=True)


def test_a_node_that_returns_comes_to_one_copy(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        lost, other = await world.node("n1"), await world.node("n2")
        await world.service("web", 6)
        await world.settle()
        assert len(lost.running) == 3
        await lost.vanish()
        await world.advance(6)
        assert (len(lost.running), len(other.running)) == (3, 6)
        await lost.come_back()
        await world.settle()
        assert (len(lost.running), len(other.running)) == (0, 6)
        assert {task.state for task in _of(world, "web", "n1")} == {TaskState.SHUTDOWN}
        assert len(world.running("web")) == 6
        # It gets tasks again.
        await world.update("web", replicas=12)
        await world.settle()
        assert len(lost.running) == 6

    play(tmp_path, scenario, sessions=True)


def test_a_node_that_returns_before_the_delay_of_the_replacements(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        lost = await world.node("n1")
        await world.node("n2")
        await world.service("web", 4)
        await world.settle()
        await lost.vanish()
        await world.advance(2)
        await lost.come_back()
        await world.advance(10)
        assert len(world.running("web")) == 4
        assert sum(len(agent.running) for agent in world.agents.values()) == 4

    play(tmp_path, scenario, sessions=True)


def test_an_unknown_node_keeps_its_tasks_and_gets_no_others(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        lost = await world.node("n1")
        await world.node("n2")
        await world.service("web", 2)
        await world.settle()
        before = {task.id for task in world.running("web")}
        await world.stop()
        await lost.vanish()
        await world.restart()
        await world.settle()
        await world.update("web", replicas=6)
        await world.settle()
        assert world.state_of("n1") == "unknown"
        assert len(_of(world, "web", "n1")) == 1
        assert before <= {task.id for task in world.running("web")}
        await world.advance(40)
        assert world.state_of("n1") == "down"
        assert {task.node_id for task in world.running("web")} == {"n2"}

    play(tmp_path, scenario, sessions=True)


def test_global_services_stop_on_a_lost_node_and_begin_again(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        lost = await world.node("n1")
        await world.node("n2")
        await world.service("all", ServiceMode(global_=GlobalService()))
        await world.settle()
        await lost.vanish()
        await world.advance(10)
        (old,) = _of(world, "all", "n1")
        assert (old.desired, old.state) == (TaskState.SHUTDOWN, TaskState.RUNNING)
        await lost.come_back()
        await world.advance(10)
        assert sorted(task.node_id for task in world.running("all")) == ["n1", "n2"]
        assert lost.running == {task.id for task in _of(world, "all", "n1") if alive(task)}

    play(tmp_path, scenario, sessions=True)


def test_jobs_of_a_lost_node_run_elsewhere(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        lost = await world.node("n1")
        await world.service("job", ServiceMode(replicated_job=ReplicatedJob(max_concurrent=2, total_completions=2)))
        await world.service("each", ServiceMode(global_job=GlobalJob()))
        await world.settle()
        other = await world.node("n2")
        await world.settle()
        await lost.vanish()
        await world.advance(6)
        assert [task.node_id for task in world.running("job")] == ["n2"] * 2
        assert [task.node_id for task in world.running("each")] == ["n2"]
        for task in (*world.running("job"), *world.running("each")):
            await other.end(task, TaskState.COMPLETE)
        await world.settle()
        assert world.running("job") == []
        await lost.come_back()
        await world.advance(10)
        # The node's own run of the global job begins again; the other job is complete.
        assert [task.node_id for task in world.running("each")] == ["n1"]
        assert world.running("job") == []
        assert lost.running == {task.id for task in world.running("each")}

    play(tmp_path, scenario, sessions=True)


def test_drained_and_paused_nodes_that_are_lost(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        lost = await world.node("n1")
        await world.node("n2")
        await world.service("web", 4)
        await world.settle()
        await world.set_node("n1", availability="pause")
        await lost.vanish()
        await world.advance(6)
        assert {task.node_id for task in world.running("web")} == {"n2"}
        await world.set_node("n1", availability="drain")
        await lost.come_back()
        await world.settle()
        assert not lost.running
        assert len(world.running("web")) == 4

    play(tmp_path, scenario, sessions=True)
