"""Rolling updates."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from api_models.swarm.service import GlobalService, ServiceMode, UpdateConfig
from api_models.swarm.task import RestartPolicy
from server.swarm.controllers.clock import SECOND
from server.swarm.controllers.orchestrator.tasks import alive
from server.swarm.controllers.tests.world import World, play, task_spec
from server.swarm.model.objects import UpdateStatus
from server.swarm.model.taskstate import TaskState
from server.swarm.state.state import Put


def _images(world: World) -> list[str]:
    return [task.spec.container_spec.image for task in world.running("web") if task.spec.container_spec is not None]


def _status(world: World) -> tuple[str, str]:
    status = world.find("web").update_status
    return ("", "") if status is None else (status.state, status.message)


def test_an_update_replaces_tasks_one_by_one_and_stops_them_first(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.node("n1")
        await world.service("web", 3, update_config=UpdateConfig(parallelism=1, delay=10 * SECOND))
        await world.settle()
        assert _status(world) == ("", "")
        await world.update("web", task_template=task_spec("new"))
        await world.settle()
        assert _images(world) == ["new", "busybox", "busybox"]
        assert _status(world) == ("updating", "update in progress")
        await world.advance(9)
        assert _images(world).count("new") == 1
        await world.advance(1)
        assert _images(world) == ["new", "new", "busybox"]
        await world.restart()
        await world.advance(10)
        assert _images(world) == ["new", "new", "new"]
        # The last delay, then a second more than it.
        await world.advance(20)
        assert _status(world)[0] == "updating"
        await world.advance(1)
        assert _status(world) == ("completed", "update completed")
        assert [task.desired for task in world.tasks("web")].count(TaskState.SHUTDOWN) == 3

    play(tmp_path, scenario)


def test_all_at_once_and_only_what_differs(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.node("n1")
        await world.service("web", 3, update_config=UpdateConfig(parallelism=0))
        await world.settle()
        before = {task.id for task in world.running("web")}
        await world.update("web", labels={"a": "b"}, replicas=4)
        await world.settle()
        assert before < {task.id for task in world.running("web")}
        assert _status(world) == ("", "")
        await world.update("web", task_template=task_spec(force_update=1))
        await world.settle()
        assert not before & {task.id for task in world.running("web")}
        assert len(world.running("web")) == 4
        await world.advance(5)
        assert _status(world)[0] == "completed"

    play(tmp_path, scenario)


def test_start_first_keeps_the_old_task_until_the_new_one_runs(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        agent = await world.node("n1")
        await world.service("web", 2, update_config=UpdateConfig(parallelism=1, order="start-first"))
        await world.settle()
        agent.slow.add("web")
        await world.update("web", task_template=task_spec("new"))
        await world.advance(30)
        assert _images(world) == ["busybox", "busybox"]
        assert len([task for task in world.tasks("web") if alive(task)]) == 3
        agent.slow.clear()
        await agent.work()
        await world.advance(1)
        assert _images(world) == ["new", "new"]

    play(tmp_path, scenario)


def test_a_failure_pauses_the_update(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        agent = await world.node("n1")
        await world.service("web", 3, update_config=UpdateConfig(parallelism=1, order="stop-first"))
        await world.settle()
        agent.fate["web"] = TaskState.FAILED
        await world.update("web", task_template=task_spec("bad"))
        await world.advance(60)
        state, message = _status(world)
        assert state == "paused"
        assert message.startswith("update paused due to failure or early termination of task ")
        assert _images(world) == ["busybox", "busybox"]
        # A new update continues.
        agent.fate.clear()
        await world.update("web", task_template=task_spec("good"))
        await world.advance(60)
        assert _images(world) == ["good"] * 3
        assert _status(world)[0] == "completed"

    play(tmp_path, scenario)


def test_a_failure_rolls_back(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        agent = await world.node("n1")
        await world.service(
            "web", 4, update_config=UpdateConfig(parallelism=2, failure_action="rollback", max_failure_ratio=0.3)
        )
        await world.settle()
        agent.slow.add("web")
        await world.update("web", task_template=task_spec("bad"))
        await world.settle()
        starting = [task for task in world.tasks("web") if alive(task) and task.state is TaskState.STARTING]
        assert len(starting) == 2
        await agent.end(starting[0])
        await world.settle()
        assert _status(world)[0] == "updating"
        await agent.end(starting[1])
        agent.slow.clear()
        await agent.work()
        await world.advance(1)
        assert _status(world)[0] == "rollback_started"
        assert _status(world)[1].startswith("update rolled back due to failure or early termination of task ")
        assert world.find("web").previous_spec is None
        await world.advance(60)
        assert _images(world) == ["busybox"] * 4
        assert _status(world) == ("rollback_completed", "rollback completed")

    play(tmp_path, scenario)


def test_a_task_that_ends_while_it_is_watched_is_a_failure(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        agent = await world.node("n1")
        await world.service("web", 1, update_config=UpdateConfig(parallelism=1, monitor=10 * SECOND))
        await world.settle()
        await world.update("web", task_template=task_spec("new"))
        await world.advance(9)
        await agent.end(world.running("web")[0], TaskState.COMPLETE)
        await world.settle()
        assert _status(world)[0] == "paused"
        await world.update("web", task_template=task_spec("newer"))
        await world.advance(30)
        assert _status(world)[0] == "completed"
        await agent.end(world.running("web")[0])
        await world.advance(10)
        assert _status(world)[0] == "completed"

    play(tmp_path, scenario)


def test_failures_do_not_stop_an_update_that_continues(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        agent = await world.node("n1")
        await world.service("web", 3, update_config=UpdateConfig(parallelism=1, failure_action="continue"))
        await world.settle()
        agent.fate["web"] = TaskState.FAILED
        await world.update("web", task_template=task_spec("bad"))
        await world.advance(60)
        assert _images(world) == []
        assert _status(world)[0] == "completed"

    play(tmp_path, scenario)


def test_a_new_update_interrupts_a_running_one(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        agent = await world.node("n1")
        await world.service("web", 3, update_config=UpdateConfig(parallelism=1, order="start-first"))
        await world.settle()
        agent.slow.add("web")
        await world.update("web", task_template=task_spec("second"))
        await world.settle()
        agent.slow.clear()
        await world.update("web", task_template=task_spec("third"))
        await world.advance(60)
        assert _images(world) == ["third"] * 3
        assert len([task for task in world.tasks("web") if alive(task)]) == 3

    play(tmp_path, scenario)


def test_global_services_are_updated_too(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        for name in ("n1", "n2", "n3"):
            await world.node(name)
        await world.service(
            "web", ServiceMode(global_=GlobalService()), update_config=UpdateConfig(parallelism=1, delay=10 * SECOND)
        )
        await world.settle()
        assert sorted(task.node_id for task in world.running("web")) == ["n1", "n2", "n3"]
        await world.update("web", task_template=task_spec("new"))
        await world.settle()
        assert _images(world).count("new") == 1
        await world.advance(60)
        assert _images(world) == ["new"] * 3
        assert sorted(task.node_id for task in world.running("web")) == ["n1", "n2", "n3"]

    play(tmp_path, scenario)


def test_a_rollback_by_hand_uses_the_former_number_of_the_spec(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.node("n1")
        await world.service("web", 3, update_config=UpdateConfig(parallelism=1))
        await world.settle()
        await world.update("web", task_template=task_spec("new"))
        await world.advance(60)
        assert _images(world) == ["new"] * 3
        service = world.find("web")
        assert service.previous_spec is not None
        status = UpdateStatus(
            state="rollback_started", started_ns=world.clock.now(), message="manually requested rollback"
        )
        rolled_back = replace(service, spec=service.previous_spec, spec_version=1, update_status=status)
        await world.state.commit([Put(rolled_back)])
        await world.advance(60)
        assert _images(world) == ["busybox"] * 3
        assert _status(world) == ("rollback_completed", "rollback completed")

    play(tmp_path, scenario)


def test_the_history_keeps_what_an_update_needs(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        agent = await world.node("n1")
        policy = RestartPolicy(max_attempts=1)
        config = UpdateConfig(parallelism=1, max_failure_ratio=0.5, delay=20 * SECOND)
        await world.service("web", 3, task_spec("old", restart_policy=policy), update_config=config)
        await world.settle()
        agent.fate["web"] = TaskState.FAILED
        await world.update("web", task_template=task_spec("bad", restart_policy=policy))
        await world.advance(19)
        assert _status(world)[0] == "updating"
        await world.advance(60)
        assert _status(world)[0] == "paused"
        assert _images(world) == ["old"]

    play(tmp_path, scenario)


def test_the_old_task_has_time_to_stop(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        agent = await world.node("n1")
        await world.service("web", 1)
        await world.settle()
        agent.stubborn = True
        await world.update("web", task_template=task_spec("new"))
        await world.advance(59)
        assert _states(world) == [(TaskState.SHUTDOWN, TaskState.RUNNING), (TaskState.READY, TaskState.READY)]
        await world.advance(1)
        assert _states(world)[1] == (TaskState.RUNNING, TaskState.RUNNING)

    play(tmp_path, scenario)


def _states(world: World) -> Sequence[tuple[TaskState, TaskState]]:
    return [(task.desired, task.state) for task in world.tasks("web")]
