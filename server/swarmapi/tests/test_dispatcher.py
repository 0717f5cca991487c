"""A worker's dispatcher over the network: what it gets, what it is refused, and how it changes its manager."""

import asyncio
import contextlib
from dataclasses import replace
from pathlib import Path

import pytest

from api_models.swarm.container import ContainerSpec
from api_models.swarm.network import NetworkAttachmentConfig
from api_models.swarm.node import NodeDescription
from api_models.swarm.secret import ConfigReference, ConfigSpec, SecretReference, SecretSpec
from api_models.swarm.service import ServiceSpec
from api_models.swarm.task import TaskSpec
from engine.common.errors import Kind, WharfError
from server.swarm.agent.dispatcher import Assignments
from server.swarm.dispatch.assignments import Computation
from server.swarm.dispatch.local import LocalDispatcher
from server.swarm.model import networkkeys
from server.swarm.model.objects import Attachment, Config, Network, Secret, Service, Task, TaskStatus
from server.swarm.model.taskstate import TaskState
from server.swarm.remote.client import Managers
from server.swarm.remote.dispatcher import RemoteDispatcher
from server.swarm.state.state import Put, State
from server.swarmapi.tests.site import Site, identity_of, run, until


def _task(id: str, node_id: str, container: ContainerSpec | None = None) -> Task:
    return Task(
        id=id,
        service_id="s1",
        service_name="web",
        node_id=node_id,
        spec=TaskSpec(container_spec=container or ContainerSpec(image="busybox")),
        status=TaskStatus(state=int(TaskState.ASSIGNED)),
        desired_state=int(TaskState.RUNNING),
        attachments=(Attachment(network_id="n1", addresses=("10.0.1.5/24",)),),
    )


async def _newest(dispatcher: RemoteDispatcher, found: list[Assignments]) -> None:
    with contextlib.suppress(WharfError):
        async for current in dispatcher.assignments():
            found.append(current)  # noqa: PERF401


def test_assignments_come_with_each_change(tmp_path: Path) -> None:
    async def scenario(site: Site) -> None:
        joined, managers = await site.worker()
        stream = RemoteDispatcher(managers).assignments()
        first = await anext(stream)
        assert first == Computation(site.state.tables).of(joined.node_id)
        network = Network(id="n1", name="net", vni=4097, attachable=True)
        await site.state.commit([Put(network), Put(_task("t1", joined.node_id)), Put(_task("t2", "other"))])
        second = await anext(stream)
        assert second == Computation(site.state.tables).of(joined.node_id)
        assert (set(second.tasks), set(second.networks)) == ({"t1"}, {"n1"})
        await stream.aclose()

    run(tmp_path, scenario)


def test_statuses_descriptions_and_heartbeats(tmp_path: Path) -> None:
    async def scenario(site: Site) -> None:
        joined, managers = await site.worker()
        dispatcher = RemoteDispatcher(managers, "0.0.0.0:2377", "192.0.2.77")
        with pytest.raises(WharfError, match="session is over") as over:
            await dispatcher.heartbeat()
        assert over.value.kind is Kind.NOT_FOUND
        await dispatcher.describe(NodeDescription(hostname="renamed"))
        assert await dispatcher.heartbeat() == 5.0
        node = site.state.tables.nodes.get(joined.node_id)
        assert (node.description.hostname, node.status.state, node.status.addr) == ("renamed", "ready", "127.0.0.1")
        assert node.data_path_addr == "192.0.2.77"
        assert node.description.tls_info.trust_root == site.state.cluster.root_certificate
        assert site.state.tables.sessions.find(joined.node_id) is not None
        tasks = [_task(f"t{number}", joined.node_id) for number in range(450)]
        for start in range(0, 450, 100):
            await site.state.commit([Put(task) for task in tasks[start : start + 100]])
        await site.state.commit([Put(_task("foreign", "other"))])
        running = TaskStatus(state=int(TaskState.RUNNING), message="started")
        await dispatcher.report({task.id: running for task in tasks} | {"foreign": running, "none": running})
        assert all(site.state.tables.tasks.get(task.id).state is TaskState.RUNNING for task in tasks)
        assert site.state.tables.tasks.get("foreign").state is TaskState.ASSIGNED
        with pytest.raises(WharfError, match="unknown state"):
            await dispatcher.report({"t1": TaskStatus(state=7)})
        with pytest.raises(WharfError, match="131072"):
            await dispatcher.describe(NodeDescription(hostname="x" * 200_000))

    run(tmp_path, scenario)


def test_a_worker_reads_only_what_its_own_tasks_need(tmp_path: Path) -> None:
    async def scenario(site: Site) -> None:
        joined, managers = await site.worker()
        seal = site.keys.seal
        mine = ContainerSpec(secrets=(SecretReference(secret_id="mine"),), configs=(ConfigReference(config_id="mine"),))
        foreign = ContainerSpec(
            secrets=(SecretReference(secret_id="foreign"),), configs=(ConfigReference(config_id="foreign"),)
        )
        for id in ("mine", "foreign"):
            await site.state.commit(
                [
                    Put(Secret(id=id, spec=SecretSpec(name=id), sealed=seal(b"secret " + id.encode()))),
                    Put(Config(id=id, spec=ConfigSpec(name=id), sealed=seal(b"config " + id.encode()))),
                ]
            )
        await site.state.commit(
            [
                Put(Service(id="s1", spec=ServiceSpec(name="web"), sealed_registry_auth=seal(b"auth"))),
                Put(Service(id="s2", spec=ServiceSpec(name="db"), sealed_registry_auth=seal(b"auth"))),
                Put(_task("t1", joined.node_id, mine)),
                Put(replace(_task("t2", "other", foreign), service_id="s2")),
            ]
        )
        dispatcher = RemoteDispatcher(managers)
        assert (await dispatcher.secret("mine")).data == b"secret mine"
        assert (await dispatcher.config("mine")).data == b"config mine"
        assert await dispatcher.registry_auth("s1") == "auth"
        await site.state.commit([Put(networkkeys.make(site.keys, 1))])
        requests = (
            dispatcher.secret("foreign"),
            dispatcher.config("foreign"),
            dispatcher.registry_auth("s2"),
            dispatcher.network_keys(),
        )
        for request in requests:
            with pytest.raises(WharfError) as refused:
                await request
            assert refused.value.kind is Kind.NOT_FOUND
            assert "foreign" not in site.members.promoted
        encrypted = replace(_task("t3", joined.node_id), attachments=(Attachment(network_id="n", encrypted=True),))
        await site.state.commit([Put(encrypted)])
        keys = site.state.tables.network_keys
        assert keys is not None
        assert await dispatcher.network_keys() == networkkeys.opened(site.keys, keys)

    run(tmp_path, scenario)


def test_a_node_reports_its_images(tmp_path: Path) -> None:
    async def scenario(site: Site) -> None:
        joined, managers = await site.worker()
        dispatcher, images = RemoteDispatcher(managers), site.state.tables.images
        for keys in ("01234567 89abcdef", "", "89abcdef"):
            await dispatcher.report_images(keys)
            assert images.get(joined.node_id).keys == keys
        revision = site.state.revision
        await dispatcher.report_images("89abcdef")
        assert site.state.revision == revision
        for wrong in ("0123", " ".join(["01234567"] * 513)):
            with pytest.raises(WharfError) as refused:
                await dispatcher.report_images(wrong)
            assert refused.value.kind is Kind.INVALID_ARGUMENT

    run(tmp_path, scenario)


def test_containers_of_users_are_attached(tmp_path: Path) -> None:
    async def scenario(site: Site) -> None:
        joined, managers = await site.worker()
        dispatcher = RemoteDispatcher(managers)
        await site.state.commit([Put(Network(id="n1", name="net", attachable=True)), Put(_task("t1", joined.node_id))])
        task_id, network_id = await dispatcher.attach_network("c1", "net", [], ["box"])
        task = site.state.tables.tasks.get(task_id)
        assert (task.node_id, network_id) == (joined.node_id, "n1")
        assert task.spec.networks == (NetworkAttachmentConfig(target="n1", aliases=("box",)),)
        await dispatcher.detach_network("t1")
        assert site.state.tables.tasks.find("t1") is not None
        await dispatcher.detach_network(task_id)
        await dispatcher.detach_network(task_id)
        assert site.state.tables.tasks.find(task_id) is None
        secret = Network(id="n2", name="secret", attachable=True, options={"encrypted": ""})
        await site.state.commit([Put(secret)])
        with pytest.raises(WharfError, match="CONFIG_INET_ESP"):
            await dispatcher.attach_network("c1", "secret", [], [])
        for addresses in (["x"], ["10.0.0.1"] * 3, ["1" * 300]):
            with pytest.raises(WharfError) as refused:
                await dispatcher.attach_network("c1", "net", addresses, [])
            assert refused.value.kind is Kind.INVALID_ARGUMENT

    run(tmp_path, scenario)


def test_streams_and_requests_continue_at_another_manager(tmp_path: Path) -> None:
    async def scenario(site: Site) -> None:
        await site.listen()
        joined, managers = await site.worker()
        dispatcher = RemoteDispatcher(managers)
        found: list[Assignments] = []
        following = asyncio.create_task(_newest(dispatcher, found))
        await until(lambda: bool(found))
        await dispatcher.describe(NodeDescription(hostname="w"))
        first = managers.addresses[0]
        await site.listeners[site.addresses.index(first)].close()
        await site.state.commit([Put(_task("t1", joined.node_id))])
        await until(lambda: "t1" in found[-1].tasks)
        assert await dispatcher.heartbeat() == 5.0
        assert managers.addresses[0] != first
        for listener in site.listeners:
            await listener.close()
        with pytest.raises(WharfError, match="code = Unavailable") as refused:
            await dispatcher.heartbeat()
        assert refused.value.kind is Kind.UNAVAILABLE
        await following

    run(tmp_path, scenario)


def test_the_list_of_managers_is_kept_current(tmp_path: Path) -> None:
    async def scenario(site: Site) -> None:
        joined, managers = await site.worker()
        standings = managers.follow()
        await anext(standings)
        second = await site.listen()
        node = site.state.tables.nodes.get(joined.node_id)
        manager = site.state.tables.nodes.get("manager1").manager
        assert manager is not None
        await site.state.commit([Put(replace(node, manager=replace(manager, addr=second)))])
        standing = await anext(standings)
        assert {each.addr for each in standing.managers} == set(site.addresses)
        assert list(managers.addresses) == site.addresses
        await standings.aclose()

    run(tmp_path, scenario)


class _CutOff(LocalDispatcher):
    """Of a manager that is cut off from the others: it has an old state, but its streams go on."""

    async def heartbeat(self) -> float:
        raise WharfError(Kind.UNAVAILABLE, "no quorum")


def test_a_stream_leaves_a_manager_that_can_not_write(tmp_path: Path) -> None:
    async def scenario(site: Site) -> None:
        joined = await site.join()
        healthy = site.addresses[0]
        cut_off = await site.listen(lambda node_id: _CutOff(site.state, node_id, site.keys, sessions=True))
        managers = Managers(identity_of(joined), [cut_off, healthy])
        dispatcher = RemoteDispatcher(managers)
        found: list[Assignments] = []
        following = asyncio.create_task(_newest(dispatcher, found))
        await until(lambda: _streaming(site) == [0, 1])
        await site.dispatcher(joined.node_id).describe(NodeDescription(hostname="w"))
        assert await dispatcher.heartbeat() == 5.0
        assert list(managers.addresses) == [healthy, cut_off]
        await until(lambda: _streaming(site) == [1, 0])
        await site.state.commit([Put(_task("t1", joined.node_id))])
        await until(lambda: "t1" in found[-1].tasks)
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await managers.close()

    run(tmp_path, scenario)


def test_a_manager_whose_state_lags_waits_for_the_newest(tmp_path: Path) -> None:
    """It would take a node that another manager has just admitted for a removed one, and lose a report."""

    async def scenario(site: Site) -> None:
        lagging = State(site.state.store)
        await lagging.open()
        assert lagging._task is not None

        async def stop() -> None:
            assert lagging._task is not None
            lagging._task.cancel()
            await asyncio.gather(lagging._task, return_exceptions=True)

        def resume() -> None:
            lagging._task = asyncio.create_task(lagging._follow())

        late = await site.listen(lambda node_id: LocalDispatcher(lagging, node_id, site.keys), lagging)
        await stop()
        joined = await site.join()
        managers = Managers(identity_of(joined), [late])
        dispatcher = RemoteDispatcher(managers)
        asyncio.get_running_loop().call_later(0.1, resume)
        assert (await managers.standing()).role == "worker"
        managers._addresses[:] = [late]
        await stop()
        secret = ContainerSpec(secrets=(SecretReference(secret_id="x1"),))
        await site.state.commit(
            [
                Put(Secret(id="x1", spec=SecretSpec(name="x"), sealed=site.keys.seal(b"data"))),
                Put(_task("t1", joined.node_id, secret)),
                Put(_task("t2", joined.node_id)),
            ]
        )
        asyncio.get_running_loop().call_later(0.1, resume)
        assert (await dispatcher.secret("x1")).data == b"data"
        await stop()
        await site.state.commit([Put(_task("t3", joined.node_id))])
        asyncio.get_running_loop().call_later(0.1, resume)
        await dispatcher.report({"t3": TaskStatus(state=int(TaskState.RUNNING))})
        await site.state.synchronize()
        assert site.state.tables.tasks.get("t3").state is TaskState.RUNNING
        await managers.close()
        await lagging.close()

    run(tmp_path, scenario)


def _streaming(site: Site) -> list[int]:
    """How many requests each port serves."""
    return [len(listener._server.state.tasks) for listener in site.listeners]


def test_a_manager_that_hangs_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(site: Site) -> None:
        _, managers = await site.worker()

        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError):
                await reader.read()
            writer.close()

        server = await asyncio.start_server(silent, "127.0.0.1", 0, ssl=site.identity.server())
        hanging = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        managers._addresses.insert(0, hanging)
        dispatcher = RemoteDispatcher(managers)
        with pytest.raises(WharfError, match="session is over"):
            await dispatcher.heartbeat()
        assert list(managers.addresses) == [*site.addresses, hanging]
        server.close()
        await server.wait_closed()

    monkeypatch.setattr("server.swarm.remote.dispatcher._BEAT", 0.2)
    run(tmp_path, scenario)
