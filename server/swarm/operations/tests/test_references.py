"""Objects that are removed while a service begins to refer to them."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from api_models.network import IPAM, IPAMPool
from api_models.swarm.container import ContainerSpec
from api_models.swarm.network import NetworkAttachmentConfig
from api_models.swarm.secret import FileTarget, SecretReference, SecretSpec
from api_models.swarm.service import ServiceSpec
from api_models.swarm.task import TaskSpec
from engine.common.errors import Kind, WharfError
from server.swarm.controllers.constraints import parse_constraints
from server.swarm.model.objects import Cluster, Network, Secret
from server.swarm.operations.networks import Networks
from server.swarm.operations.secrets import Secrets
from server.swarm.operations.services import Registry, Services, Update
from server.swarm.state.state import Put, State
from server.swarm.state.tests.opened import opened


class _Sealer:
    def seal(self, data: bytes) -> str:
        return data.decode()

    def open(self, text: str) -> bytes:
        return text.encode()


class _Swarm:
    """Two managers with one store, each with its own copy of the state."""

    def __init__(self, states: Sequence[State]) -> None:
        first, second = states
        self.state = first
        self.services = Services(first, lambda data: data.decode(), parse_constraints, lambda _: None)
        self.secrets = Secrets(second, _Sealer())
        self.networks = Networks(second, "n1", _Sealer())


def _play(path: Path, scenario: Callable[[_Swarm], Awaitable[None]]) -> None:
    async def run() -> None:
        async with opened(path) as (store, state), asyncio.timeout(20):
            other = State(store)
            await other.open()
            try:
                ipam = IPAM(config=(IPAMPool(subnet="10.0.1.0/24"),))
                await state.commit(
                    [
                        Put(Cluster(id="swarm")),
                        Put(Secret(id="x1", spec=SecretSpec(name="key"), sealed="data")),
                        Put(Network(id="net1", name="front", ipam=ipam)),
                    ]
                )
                await other.synchronize()
                await scenario(_Swarm((state, other)))
            finally:
                await other.close()

    asyncio.run(run())


def _spec(name: str, *, secret: bool = False, network: bool = False) -> ServiceSpec:
    secrets = (SecretReference(secret_id="x1", secret_name="key", file=FileTarget(name="key")),) if secret else None
    return ServiceSpec(
        name=name,
        task_template=TaskSpec(
            container_spec=ContainerSpec(image="busybox", secrets=secrets),
            networks=(NetworkAttachmentConfig(target="front"),) if network else None,
        ),
    )


async def _both(first: Awaitable[object], second: Awaitable[object]) -> list[str]:
    """The sentences of those that fail."""
    results = await asyncio.gather(first, second, return_exceptions=True)
    return [result.message for result in results if isinstance(result, WharfError)]


@pytest.mark.parametrize("service_first", [True, False])
def test_a_secret_is_removed_while_a_service_is_made_with_it(tmp_path: Path, service_first: bool) -> None:
    async def scenario(swarm: _Swarm) -> None:
        create = swarm.services.create(_spec("web", secret=True), Registry())
        remove = swarm.secrets.remove("key")
        failures = await _both(*((create, remove) if service_first else (remove, create)))
        tables = swarm.state.tables
        await swarm.state.synchronize()
        # One of them was refused, and no service refers to a missing secret.
        assert len(failures) == 1
        assert (tables.secrets.find("x1") is None) == (tables.services.named("web") is None)
        used = "rpc error: code = InvalidArgument desc = secret 'key' is in use by the following service: web"
        gone = "rpc error: code = InvalidArgument desc = secret not found: key"
        assert failures == [used if tables.services.named("web") is not None else gone]

    _play(tmp_path, scenario)


def test_a_secret_is_removed_while_a_service_is_updated(tmp_path: Path) -> None:
    async def scenario(swarm: _Swarm) -> None:
        await swarm.services.create(_spec("web"), Registry())
        version = swarm.services.get("web").version
        update = swarm.services.update("web", _spec("web", secret=True), Update(version), Registry())
        failures = await _both(update, swarm.secrets.remove("key"))
        await swarm.state.synchronize()
        container = swarm.services.get("web").spec.task_template.container_spec
        assert container is not None
        assert len(failures) == 1
        assert bool(container.secrets) == (swarm.state.tables.secrets.find("x1") is not None)

    _play(tmp_path, scenario)


def test_a_network_is_removed_while_a_service_is_made_on_it(tmp_path: Path) -> None:
    async def scenario(swarm: _Swarm) -> None:
        create = swarm.services.create(_spec("web", network=True), Registry())
        failures = await _both(swarm.networks.remove("net1"), create)
        await swarm.state.synchronize()
        tables = swarm.state.tables
        assert len(failures) == 1
        assert (tables.networks.find("net1") is None) == (tables.services.named("web") is None)

    _play(tmp_path, scenario)


def test_services_without_a_race_are_not_refused(tmp_path: Path) -> None:
    async def scenario(swarm: _Swarm) -> None:
        names = [f"s{number}" for number in range(30)]
        await asyncio.gather(*(swarm.services.create(_spec(name, secret=True), Registry()) for name in names))
        with pytest.raises(WharfError) as error:
            await swarm.secrets.remove("key")
        assert error.value.kind is Kind.INVALID_ARGUMENT
        for name in names:
            await swarm.services.remove(name)
        await swarm.secrets.remove("key")

    _play(tmp_path, scenario)
