"""Where tasks run, and why they do not."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from api_models.swarm.common import Driver
from api_models.swarm.network import EndpointSpec, PortConfig
from api_models.swarm.node import EngineDescription, NodeDescription, NodeSpec, NodeStatus, PluginDescription
from api_models.swarm.task import (
    DiscreteResource,
    GenericResource,
    NamedResource,
    Placement,
    PlacementPreference,
    Platform,
    ResourceRequirements,
    Resources,
    SpreadOver,
    TaskSpec,
)
from server.swarm.controllers.constraints import node_matches, parse_constraints
from server.swarm.controllers.scheduler.filters import Filters
from server.swarm.controllers.scheduler.nodes import NodeUsage
from server.swarm.controllers.tests.world import World, play, task_spec
from server.swarm.model import images
from server.swarm.model.objects import ESP, Attachment, Node, NodeImages, Task
from server.swarm.model.taskstate import TaskState
from server.swarm.state.state import Put

NODE = Node(
    id="n1",
    spec=NodeSpec(role="manager", availability="active", labels={"disk": "ssd"}),
    description=NodeDescription(
        hostname="Alpha",
        platform=Platform(architecture="x86_64", os="linux"),
        engine=EngineDescription(
            labels={"gpu": "yes"},
            plugins=(
                PluginDescription(type="Log", name="json-file"),
                PluginDescription(type="Volume", name="nfs"),
            ),
        ),
    ),
    status=NodeStatus(state="ready", addr="10.0.0.5"),
)


@pytest.mark.parametrize(
    ("expression", "met"),
    [
        ("node.id==n1", True),
        ("node.id != n1", False),
        ("node.hostname == alpha", True),
        ("node.role==manager", True),
        ("node.role==worker", False),
        ("node.platform.os == linux", True),
        ("node.platform.arch==x86_64", True),
        ("node.labels.disk == ssd", True),
        ("node.labels.disk != ssd", False),
        ("node.labels.zone != a", True),
        ("node.labels.Disk == ssd", False),
        ("engine.labels.gpu == YES", True),
        ("node.ip == 10.0.0.0/24", True),
        ("node.ip != 10.0.0.5", False),
        ("node.ip == nonsense", False),
        ("node.other == x", False),
    ],
)
def test_constraints_are_compared(expression: str, *, met: bool) -> None:
    assert node_matches((expression,), NODE) is met


@pytest.mark.parametrize(
    ("expression", "sentence"),
    [
        ("node.id", "constraint expected one operator from ==, !="),
        ("node.id > 3", "constraint expected one operator from ==, !="),
        ("1node==x", "key '1node' is invalid"),
        ("node.id==", "value '' is invalid"),
        ("node.id==a;b", "value 'a;b' is invalid"),
    ],
)
def test_wrong_constraints_are_refused(expression: str, sentence: str) -> None:
    with pytest.raises(ValueError) as error:
        parse_constraints([expression])
    assert str(error.value) == sentence


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, ""),
        ({"placement": Placement(constraints=("node.id==x",))}, "scheduling constraints not satisfied on 1 node"),
        ({"placement": Placement(platforms=(Platform(architecture="amd64", os="linux"),))}, ""),
        ({"placement": Placement(platforms=(Platform(os="windows"),))}, "unsupported platform on 1 node"),
        (
            {"resources": ResourceRequirements(reservations=Resources(memory_bytes=1))},
            "insufficient resources on 1 node",
        ),
        ({"log_driver": Driver(name="json-file")}, ""),
        ({"log_driver": Driver(name="splunk")}, "missing plugin on 1 node"),
        ({"log_driver": Driver(name="none")}, ""),
    ],
)
def test_filters_explain_themselves(fields: Mapping[str, object], reason: str) -> None:
    task = Task(spec=TaskSpec(**fields))  # type: ignore[arg-type]
    usage = NodeUsage(NODE, [], 0)
    filters = Filters(task)
    assert filters.passes(usage) is (reason == "")
    assert filters.explain([usage]) == reason


def test_only_nodes_with_esp_have_tasks_of_encrypted_networks() -> None:
    task = Task(attachments=(Attachment(network_id="n", encrypted=True),))
    engine = replace(NODE.description.engine, plugins=(ESP,))
    able = NodeUsage(replace(NODE, description=replace(NODE.description, engine=engine)), [], 0)
    filters = Filters(task)
    assert filters.passes(able)
    assert filters.explain([NodeUsage(NODE, [], 0)] * 2 + [able]) == (
        "the kernel has no IPsec ESP (CONFIG_INET_ESP, module esp4) on 2 nodes"
    )
    assert Filters(replace(task, attachments=(Attachment(network_id="n"),))).passes(NodeUsage(NODE, [], 0))


def test_equal_nodes_are_chosen_by_their_images(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        for name in ("a", "b", "c"):
            await world.node(name)
        await world.state.commit([Put(NodeImages(id="c", keys=images.keys_of(["docker.io/library/busybox:latest"])))])
        spec = task_spec()
        assert spec.container_spec is not None
        spec = replace(spec, container_spec=replace(spec.container_spec, image="busybox"))
        await world.service("first", 1, spec)
        await world.settle()
        assert [task.node_id for task in world.tasks("first")] == ["c"]
        # The image decides between equal nodes only: this one has a task more than the others.
        await world.service("second", 1, spec)
        await world.settle()
        assert [task.node_id for task in world.tasks("second")] == ["a"]
        await world.service("wide", 3, spec)
        await world.settle()
        assert {task.node_id for task in world.tasks("wide")} == {"a", "b", "c"}

    play(tmp_path, scenario)


def _error(world: World, name: str) -> str:
    return world.tasks(name)[0].status.err


def test_a_task_without_a_node_says_why_and_waits(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.service("web", 1, task_spec(placement=Placement(constraints=("node.labels.disk==ssd",))))
        await world.settle()
        assert _error(world, "web") == "no suitable node"
        assert world.tasks("web")[0].state is TaskState.PENDING
        await world.node("n1")
        await world.node("n2")
        await world.node("n3", availability="drain", disk="ssd")
        await world.settle()
        assert _error(world, "web") == (
            "no suitable node (scheduling constraints not satisfied on 2 nodes; 1 node not available for new tasks)"
        )
        await world.set_node("n3", availability="active")
        await world.settle()
        assert [(task.node_id, task.status.err) for task in world.running("web")] == [("n3", "")]

    play(tmp_path, scenario)


def test_reservations_are_counted_and_released(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.node("n1", resources=Resources(nano_cpus=4 * 10**9, memory_bytes=100))
        await world.node("n2", resources=Resources(nano_cpus=2 * 10**9, memory_bytes=100))
        one = ResourceRequirements(reservations=Resources(nano_cpus=10**9, memory_bytes=10))
        await world.service("web", 6, task_spec(resources=one))
        await world.settle()
        assert sorted(task.node_id for task in world.running("web")) == ["n1"] * 4 + ["n2"] * 2
        await world.service("more", 1, task_spec(resources=one))
        await world.settle()
        assert _error(world, "more") == "no suitable node (insufficient resources on 2 nodes)"
        await world.update("web", replicas=5)
        await world.settle()
        assert len(world.running("more")) == 1

    play(tmp_path, scenario)


def test_generic_resources_are_claimed_by_name(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        gpus = tuple(
            GenericResource(named_resource_spec=NamedResource(kind="gpu", value=value)) for value in ("a", "b", "c")
        )
        await world.node("n1", resources=Resources(generic_resources=gpus))
        wanted = GenericResource(discrete_resource_spec=DiscreteResource(kind="gpu", value=2))
        task = task_spec(resources=ResourceRequirements(reservations=Resources(generic_resources=(wanted,))))
        await world.service("one", 1, task)
        await world.settle()
        assert world.running("one")[0].generic_resources == gpus[:2]
        await world.service("two", 1, task)
        await world.settle()
        assert world.running("two") == []
        await world.remove("one")
        await world.settle()
        assert len(world.running("two")) == 1

    play(tmp_path, scenario)


def test_host_ports_and_replicas_are_limited_for_each_node(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.node("n1")
        await world.node("n2")
        port = PortConfig(protocol="tcp", target_port=80, published_port=8080, publish_mode="host")
        await world.service("web", 3, endpoint_spec=EndpointSpec(ports=(port,)))
        await world.service("few", 3, task_spec(placement=Placement(max_replicas=1)))
        await world.settle()
        for name, reason in (
            ("web", "no suitable node (host-mode port already in use on 2 nodes)"),
            ("few", "no suitable node (max replicas per node limit exceed)"),
        ):
            assert sorted(task.node_id for task in world.running(name)) == ["n1", "n2"]
            assert [task.status.err for task in world.tasks(name) if task.state is TaskState.PENDING] == [reason]

    play(tmp_path, scenario)


def test_an_update_waits_for_the_port_of_the_old_task(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        agent = await world.node("n1")
        port = PortConfig(protocol="tcp", target_port=80, published_port=8080, publish_mode="host")
        await world.service("web", 1, endpoint_spec=EndpointSpec(ports=(port,)))
        await world.settle()
        agent.stubborn = True
        await world.update("web", task_template=task_spec("new"))
        await world.settle()
        assert [task.state for task in world.tasks("web")] == [TaskState.RUNNING, TaskState.PENDING]
        agent.stubborn = False
        await agent.work()
        await world.settle()
        assert [task.state for task in world.tasks("web")] == [TaskState.SHUTDOWN, TaskState.RUNNING]

    play(tmp_path, scenario)


def test_preferences_spread_over_labels(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        for name, zone in (("n1", "a"), ("n2", "a"), ("n3", "a"), ("n4", "b")):
            await world.node(name, zone=zone)
        spread = PlacementPreference(spread=SpreadOver(spread_descriptor="node.labels.zone"))
        await world.service("web", 6, task_spec(placement=Placement(preferences=(spread,))))
        await world.settle()
        assert sorted(task.node_id for task in world.running("web")) == ["n1", "n2", "n3", "n4", "n4", "n4"]

    play(tmp_path, scenario)


def test_a_task_whose_node_no_longer_fits_moves(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.node("n1")
        await world.node("n2")
        await world.service("web", 2)
        await world.settle()
        # Both nodes meet the constraint or one of them: only the other task is replaced.
        kept = next(task.id for task in world.running("web") if task.node_id == "n1")
        await world.update("web", task_template=task_spec(placement=Placement(constraints=("node.id==n1",))))
        await world.advance(20)
        assert {task.node_id for task in world.running("web")} == {"n1"}
        assert kept in {task.id for task in world.running("web")}
        moved = next(task for task in world.tasks("web") if task.node_id == "n2")
        assert moved.desired is TaskState.SHUTDOWN

    play(tmp_path, scenario)


def test_tasks_leave_a_node_that_has_become_smaller(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        small = await world.node("n1", resources=Resources(memory_bytes=40))
        one = ResourceRequirements(reservations=Resources(memory_bytes=10))
        await world.service("web", 4, task_spec(resources=one))
        await world.service("other", 1)
        await world.settle()
        await world.node("n2", resources=Resources(memory_bytes=40))
        await small.describe(NodeDescription(hostname="n1", resources=Resources(memory_bytes=20)))
        await world.advance(10)
        assert sorted(task.node_id for task in world.running("web")) == ["n1", "n1", "n2", "n2"]
        rejected = [task.status for task in world.tasks("web") if task.state is TaskState.REJECTED]
        assert {(status.message, status.err) for status in rejected} == {
            ("task rejected by constraint enforcer", "assigned node no longer meets constraints")
        }
        assert len(rejected) == 2
        assert len(world.tasks("other")) == 1

    play(tmp_path, scenario)
