"""Services: checks, defaults, versions, rollback, references."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from api_models.filters import Filters
from api_models.swarm.secret import SecretSpec
from api_models.swarm.service import ServiceSpec
from engine.common.errors import Kind, WharfError
from server.swarm.model.objects import Network, Secret, Task, TaskStatus
from server.swarm.model.taskstate import TaskState
from server.swarm.operations.services import Registry, Services, Update
from server.swarm.state.state import Put, State
from server.swarm.state.tests.opened import opened

Scenario = Callable[[State, Services], Awaitable[None]]


def _no_constraint(constraints: Iterable[str]) -> None:
    for constraint in constraints:
        raise ValueError(f"constraint expected one operator from ==, != in {constraint}")


def _run(path: Path, scenario: Scenario) -> None:
    async def run() -> None:
        async with opened(path) as (_, state), asyncio.timeout(20):
            services = Services(
                state,
                lambda data: data.decode()[::-1],
                _no_constraint,
                {"mine": "mine", "host": "host", "f00d": "host"}.get,
            )
            await scenario(state, services)

    asyncio.run(run())


def _spec(name: str = "web", **task: Any) -> ServiceSpec:
    template = {"ContainerSpec": {"Image": "busybox"}, **task.pop("TaskTemplate", {})}
    return ServiceSpec.parse({"Name": name, "TaskTemplate": template, **task})


async def _create(services: Services, spec: ServiceSpec) -> str:
    id, warnings = await services.create(spec, Registry())
    assert warnings == []
    return id


def test_a_published_port_needs_the_ingress_network(tmp_path: Path) -> None:
    async def scenario(_: State, services: Services) -> None:
        with pytest.raises(WharfError, match="no ingress network is present"):
            await services.create(_spec(EndpointSpec={"Ports": [{"TargetPort": 80}]}), Registry())

    _run(tmp_path, scenario)


def test_inspect_of_a_plain_service(tmp_path: Path) -> None:
    async def scenario(_: State, services: Services) -> None:
        id = await _create(services, _spec(UpdateConfig={"Parallelism": 2}, TaskTemplate={"RestartPolicy": {}}))
        assert len(id) == 25
        shown = services.inspect("web")
        assert shown["ID"] == id
        assert shown["Version"]["Index"] > 0
        assert shown["Spec"] == {
            "Name": "web",
            "Labels": {},
            "TaskTemplate": {
                "ContainerSpec": {"Image": "busybox", "Isolation": "default"},
                "RestartPolicy": {"Condition": "any", "MaxAttempts": 0},
                "ForceUpdate": 0,
                "Runtime": "container",
            },
            "Mode": {"Replicated": {"Replicas": 1}},
            "UpdateConfig": {
                "Parallelism": 2,
                "FailureAction": "pause",
                "MaxFailureRatio": 0,
                "Order": "stop-first",
            },
        }
        assert "PreviousSpec" not in shown
        complete = services.inspect(id[:10], defaults=True)["Spec"]
        assert complete["TaskTemplate"]["ContainerSpec"]["StopGracePeriod"] == 10_000_000_000
        assert complete["TaskTemplate"]["RestartPolicy"]["Delay"] == 5_000_000_000
        assert complete["UpdateConfig"]["Monitor"] == 5_000_000_000
        assert complete["RollbackConfig"]["Parallelism"] == 1

    _run(tmp_path, scenario)


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"Name": "a.b"}, "name must be valid as a DNS name component"),
        ({"Name": "a" * 64}, "name must be 63 characters or fewer"),
        ({"TaskTemplate": {"ContainerSpec": {"Image": ""}}}, "ContainerSpec: image reference must be provided"),
        ({"TaskTemplate": {"ContainerSpec": {"Image": "A B"}}}, '"A B" is not a valid repository/tag'),
        ({"TaskTemplate": {}}, None),
        ({"Mode": {"Global": {}, "Replicated": {}}}, "must specify only one service mode"),
        ({"Mode": {"GlobalJob": {}}, "UpdateConfig": {}}, "Jobs may not have an update config"),
        ({"UpdateConfig": {"Delay": -1}}, "TaskSpec: update-delay cannot be negative"),
        ({"UpdateConfig": {"MaxFailureRatio": 2}}, "update-maxfailureratio cannot be less than 0 or bigger than 1"),
        ({"UpdateConfig": {"Order": "sideways"}}, "unrecognized update order sideways"),
        ({"TaskTemplate": {"RestartPolicy": {"Delay": -1}}}, "TaskSpec: restart-delay cannot be negative"),
        ({"TaskTemplate": {"RestartPolicy": {"Condition": "never"}}}, 'invalid RestartCondition: "never"'),
        ({"TaskTemplate": {"Resources": {"Limits": {"NanoCPUs": 10}}}}, "Must be at least 0.001"),
        ({"TaskTemplate": {"Resources": {"Limits": {"MemoryBytes": 10}}}}, "Must be at least 4MiB"),
        ({"TaskTemplate": {"Placement": {"Constraints": ["x"]}}}, "constraint expected one operator"),
        ({"TaskTemplate": {"Networks": [{"Target": "none-such"}]}}, "network none-such not found"),
        ({"TaskTemplate": {"Networks": [{"Target": "mine"}]}}, "The network mine cannot be used with services"),
        ({"EndpointSpec": {"Mode": "dnsrr", "Ports": [{"TargetPort": 80}]}}, "can't be used with dnsrr mode"),
        ({"EndpointSpec": {"Mode": "odd"}}, 'invalid resolution mode: "odd"'),
        (
            {
                "EndpointSpec": {
                    "Ports": [{"TargetPort": n, "PublishedPort": 80, "PublishMode": "host"} for n in (1, 2)]
                }
            },
            "EndpointSpec: duplicate published ports provided",
        ),
    ],
)
def test_what_is_refused(tmp_path: Path, body: dict[str, Any], sentence: str | None) -> None:
    async def scenario(state: State, services: Services) -> None:
        task = body.get("TaskTemplate", {})
        if "ContainerSpec" not in task and task != {}:
            task = {"ContainerSpec": {"Image": "busybox"}, **task}
        elif "TaskTemplate" not in body:
            task = {"ContainerSpec": {"Image": "busybox"}}
        spec = ServiceSpec.parse({"Name": "web", **body, "TaskTemplate": task})
        with pytest.raises(WharfError) as refused:
            await services.create(spec, Registry())
        assert refused.value.kind in (Kind.INVALID_ARGUMENT, Kind.NOT_FOUND, Kind.PERMISSION_DENIED)
        assert (sentence or "mismatched Runtime and *Spec fields") in refused.value.message
        assert len(state.tables.services) == 0

    _run(tmp_path, scenario)


def test_a_taken_name_is_a_conflict(tmp_path: Path) -> None:
    async def scenario(_: State, services: Services) -> None:
        await _create(services, _spec())
        with pytest.raises(WharfError, match=r"code = AlreadyExists desc = name conflicts .* web already") as taken:
            await services.create(_spec(), Registry())
        assert taken.value.kind is Kind.CONFLICT

    _run(tmp_path, scenario)


def test_update_needs_the_current_version_and_keeps_the_previous_spec(tmp_path: Path) -> None:
    async def scenario(state: State, services: Services) -> None:
        id = await _create(services, _spec())
        first = services.inspect(id)["Version"]["Index"]
        scaled = _spec(Mode={"Replicated": {"Replicas": 3}})
        await services.update(id, scaled, Update(first), Registry())
        with pytest.raises(WharfError, match="update out of sequence"):
            await services.update(id, scaled, Update(first), Registry())
        shown = services.inspect(id)
        assert shown["Spec"]["Mode"] == {"Replicated": {"Replicas": 3}}
        assert shown["PreviousSpec"]["Mode"] == {"Replicated": {"Replicas": 1}}
        with pytest.raises(WharfError, match="service mode change is not allowed"):
            await services.update(id, _spec(Mode={"Global": {}}), Update(shown["Version"]["Index"]), Registry())
        with pytest.raises(WharfError, match="renaming services is not supported"):
            await services.update(id, _spec("other"), Update(shown["Version"]["Index"]), Registry())
        back = Update(shown["Version"]["Index"], rollback="previous")
        await services.update(id, scaled, back, Registry())
        shown = services.inspect(id)
        assert shown["Spec"]["Mode"] == {"Replicated": {"Replicas": 1}}
        assert shown["UpdateStatus"]["State"] == "rollback_started"
        assert state.tables.services.get(id).spec_version == 1
        await services.update(id, scaled, Update(shown["Version"]["Index"]), Registry())
        assert state.tables.services.get(id).spec_version == 3

    _run(tmp_path, scenario)


def test_a_service_without_a_previous_spec_is_not_rolled_back(tmp_path: Path) -> None:
    async def scenario(_: State, services: Services) -> None:
        id = await _create(services, _spec())
        version = services.inspect(id)["Version"]["Index"]
        with pytest.raises(WharfError, match="does not have a previous spec"):
            await services.update(id, _spec(), Update(version, rollback="previous"), Registry())

    _run(tmp_path, scenario)


def test_credentials_are_sealed_and_kept(tmp_path: Path) -> None:
    async def scenario(state: State, services: Services) -> None:
        id, _ = await services.create(_spec(), Registry(auth="first"))
        assert "first" not in str(services.inspect(id))
        assert state.tables.services.get(id).sealed_registry_auth == "tsrif"
        await services.update(id, _spec(), Update(state.tables.services.get(id).version), Registry())
        assert state.tables.services.get(id).sealed_registry_auth == "tsrif"
        await services.update(id, _spec(), Update(state.tables.services.get(id).version), Registry(auth="other"))
        stored = state.tables.services.get(id)
        assert (stored.sealed_registry_auth, stored.previous_sealed_registry_auth) == ("rehto", "tsrif")
        await services.update(id, _spec(), Update(stored.version, auth_from="previous-spec"), Registry())
        assert state.tables.services.get(id).sealed_registry_auth == "tsrif"

    _run(tmp_path, scenario)


def test_an_image_is_pinned_or_warned_of(tmp_path: Path) -> None:
    async def scenario(_: State, services: Services) -> None:
        async def pin(image: str) -> str:
            if image == "gone":
                raise WharfError(Kind.NOT_FOUND, "no such image")
            return f"{image}@sha256:1"

        id, warnings = await services.create(_spec(), Registry(pin=pin))
        assert warnings == []
        image = services.inspect(id)["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"]
        assert image == "busybox@sha256:1"
        gone = _spec("other", TaskTemplate={"ContainerSpec": {"Image": "gone"}})
        id, warnings = await services.create(gone, Registry(pin=pin))
        assert "image gone could not be accessed on a registry" in warnings[0]

    _run(tmp_path, scenario)


def test_secrets_networks_and_ports_are_checked(tmp_path: Path) -> None:
    async def scenario(state: State, services: Services) -> None:
        network = Network(id="net1", name="back")
        ingress = Network(id="net2", name="ingress", ingress=True)
        secret = Secret(id="sec1", spec=SecretSpec(name="key"))
        await state.commit([Put(network), Put(ingress), Put(secret)])

        def using(id: str, name: str) -> ServiceSpec:
            target = {"SecretID": id, "SecretName": name, "File": {"Name": "key", "UID": "0", "GID": "0", "Mode": 292}}
            return _spec("s" + id, TaskTemplate={"ContainerSpec": {"Image": "busybox", "Secrets": [target]}})

        await _create(services, using("sec1", "key"))
        with pytest.raises(WharfError, match="secret not found: lock"):
            await services.create(using("sec1", "lock"), Registry())
        await _create(services, _spec("n", TaskTemplate={"Networks": [{"Target": "back"}]}))
        assert services.inspect("n")["Spec"]["TaskTemplate"]["Networks"] == [{"Target": "net1"}]
        with pytest.raises(WharfError, match="cannot be explicitly attached to the ingress network"):
            await services.create(_spec("i", TaskTemplate={"Networks": [{"Target": "ingress"}]}), Registry())
        port = {"TargetPort": 80, "PublishedPort": 8080}
        id = await _create(services, _spec("p", EndpointSpec={"Ports": [port]}))
        assert services.inspect("p")["Spec"]["EndpointSpec"] == {
            "Mode": "vip",
            "Ports": [{"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8080, "PublishMode": "ingress"}],
        }
        taken = rf"port '8080' is already in use by service 'p' \({id}\) as an ingress port"
        for mode in ("ingress", "host"):
            with pytest.raises(WharfError, match=taken):
                await services.create(_spec("q", EndpointSpec={"Ports": [{**port, "PublishMode": mode}]}), Registry())
        host = {"TargetPort": 80, "PublishedPort": 9090, "PublishMode": "host"}
        for name in ("h1", "h2"):
            await _create(services, _spec(name, EndpointSpec={"Ports": [host]}))

    _run(tmp_path, scenario)


def test_predefined_networks_keep_their_names(tmp_path: Path) -> None:
    async def scenario(_: State, services: Services) -> None:
        for target in ("host", "f00d"):
            id = await _create(services, _spec(f"on-{target}", TaskTemplate={"Networks": [{"Target": target}]}))
            assert services.inspect(id)["Spec"]["TaskTemplate"]["Networks"] == [{"Target": "host"}]

    _run(tmp_path, scenario)


def test_lists_are_filtered_and_counted(tmp_path: Path) -> None:
    async def scenario(state: State, services: Services) -> None:
        web = await _create(services, _spec("web", Labels={"tier": "front"}, Mode={"Replicated": {"Replicas": 2}}))
        await _create(services, _spec("worker", Mode={"Global": {}}))

        def task(id: str, observed: TaskState) -> Task:
            return Task(id=id, service_id=web, status=TaskStatus(state=int(observed)))

        await state.commit([Put(task("t1", TaskState.RUNNING)), Put(task("t2", TaskState.FAILED))])

        def names(**filters: list[str]) -> set[str]:
            return {each["Spec"]["Name"] for each in services.list(Filters(filters))}

        assert names() == {"web", "worker"}
        assert names(name=["w"]) == {"web", "worker"}
        assert names(name=["web"]) == {"web"}
        assert names(label=["tier=front"]) == {"web"}
        assert names(label=["tier=back"]) == set()
        assert names(mode=["global"]) == {"worker"}
        assert names(id=[web[:6]]) == {"web"}
        assert names(runtime=["plugin"]) == set()
        with pytest.raises(WharfError, match="invalid filter"):
            names(color=["red"])
        counted = {each["Spec"]["Name"]: each["ServiceStatus"] for each in services.list(Filters(), status=True)}
        assert counted["web"] == {"RunningTasks": 1, "DesiredTasks": 2, "CompletedTasks": 0}

    _run(tmp_path, scenario)
