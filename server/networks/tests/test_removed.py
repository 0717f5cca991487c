"""A waiter for a removed container's lock detects the removal and writes no record again."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from api_models.network import EndpointSettings
from engine.common import timeouts
from engine.common.errors import Kind, WharfError
from server.containers.context import ContainerContext
from server.containers.model import Container
from server.containers.registry import Registry
from server.containers.rename import rename
from server.containers.run.tests.test_life import make
from server.networks import endpoints, query
from server.networks.context import NetworkContext as Networks
from server.networks.model import Network
from server.networks.sandboxes import connect


@pytest.fixture
def gone() -> Container:
    container = make()
    container.state.dead = True
    container.networking["net"] = EndpointSettings()
    return container


def refused(work: Any) -> WharfError:
    with pytest.raises(WharfError) as caught:
        asyncio.run(work)
    return caught.value


def test_it_gets_no_other_name(gone: Container) -> None:
    context = cast(ContainerContext, cast(Any, SimpleNamespace(registry=Registry())))
    assert refused(rename(context, gone, "other")).kind is Kind.CONFLICT
    assert context.registry.of("").by_name("other") is None
    context.registry.reserve("other", "f" * 64)  # it is free


def test_it_is_on_no_network_any_more(gone: Container) -> None:
    context = cast(Networks, cast(Any, SimpleNamespace(sandboxes={})))
    network = cast(Network, cast(Any, SimpleNamespace(name="net", id="n", driver="bridge")))
    for work in (connect.disconnect(context, network, gone), connect.remove_settings(context, "net", gone)):
        assert refused(work).kind is Kind.CONFLICT
    assert refused(connect.connect(context, network.name, network, gone, EndpointSettings())).kind is Kind.CONFLICT


def test_its_record_is_not_written(gone: Container) -> None:
    written: list[Container] = []

    async def put(container: Container, *, frees: bool) -> None:
        assert frees
        written.append(container)

    context = cast(ContainerContext, cast(Any, SimpleNamespace(store=SimpleNamespace(put=put))))
    asyncio.run(ContainerContext.save(context, gone))
    assert written == []
    gone.state.dead = False
    asyncio.run(ContainerContext.save(context, gone))
    assert written == [gone]


def test_a_network_that_was_removed_meanwhile_takes_nobody() -> None:
    context = cast(Networks, cast(Any, SimpleNamespace(networks={}, last={})))
    network = cast(Network, cast(Any, SimpleNamespace(name="net", id="n")))
    with pytest.raises(WharfError, match="network net not found") as caught:
        endpoints.create(context, make(), network, EndpointSettings())
    assert caught.value.kind is Kind.NOT_FOUND


@pytest.mark.parametrize(("ending", "used"), [({}, True), ({"c": object()}, False)])
def test_a_network_is_used_from_the_first_step_of_a_start(ending: dict[str, object], used: bool) -> None:
    """It has an endpoint before the container has its namespace; one that has ended is only still being taken off."""
    context = cast(Networks, cast(Any, SimpleNamespace(sandboxes={}, ending=ending)))
    network = cast(Network, cast(Any, SimpleNamespace(endpoints={"c": object()})))
    assert query.used(context, network) is used


def test_a_record_that_a_full_disk_refused_is_written_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeouts, "seconds", lambda _name: 0.0)
    attempts: list[str] = []

    async def put(container: Container, *, frees: bool) -> None:
        attempts.append(container.id)
        if len(attempts) < 4:
            raise WharfError(Kind.RESOURCE_EXHAUSTED, "write metadata: no space left on device")

    async def scenario() -> None:
        services = ("engine", "bus", "images", "networks", "volumes")
        needed = (*services, "config", "defaults", "runtimes", "limits", "facts", "owner_remaps")
        context = ContainerContext(**cast(Any, {**dict.fromkeys(needed), "store": SimpleNamespace(put=put)}))
        container = make()
        async with container.lock:
            await context.save_state(container)
            await context.save_state(container)
        await asyncio.gather(*context.tasks)
        assert len(attempts) == 4

    asyncio.run(scenario())
