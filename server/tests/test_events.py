"""The event bus: order, past events, filters, slow listeners."""

import asyncio
import time

import pytest

from api_models.filters import Filters
from server.access.caller import Caller
from server.events import EventBus
from server.events.bus import BACKLOG, RING
from server.events.message import EventMessage
from server.events.wire import document


async def _all(bus: EventBus, filters: dict[str, list[str]] | None = None) -> list[str]:
    until = time.time_ns()
    return [event.action async for event in bus.subscribe(0, until, Filters(filters or {}))]


def _filled() -> EventBus:
    bus = EventBus()
    bus.publish("container", "create", "c1", {"name": "web", "image": "busybox:latest", "env": "test"})
    bus.publish("container", "exec_create: sh", "c1", {"name": "web", "image": "busybox:latest"})
    bus.publish("network", "connect", "n1", {"name": "bridge", "container": "c1"})
    bus.publish("image", "pull", "busybox:latest", {"name": "busybox"})
    bus.publish("container", "health_status: healthy", "c2", {"name": "db", "image": "localhost:5000/pg"})
    return bus


@pytest.mark.parametrize(
    ("filters", "actions"),
    [
        ({"type": ["network"]}, ["connect"]),
        ({"container": ["web"]}, ["create", "exec_create: sh"]),
        ({"container": ["c"]}, ["create", "exec_create: sh", "health_status: healthy"]),
        ({"event": ["exec_create"]}, ["exec_create: sh"]),
        ({"event": ["health_status"], "type": ["container"]}, ["health_status: healthy"]),
        ({"event": ["create", "pull"]}, ["create", "pull"]),
        ({"event": ["creat"]}, []),
        ({"image": ["busybox"]}, ["create", "exec_create: sh", "pull"]),
        ({"image": ["localhost:5000/pg"]}, ["health_status: healthy"]),
        ({"label": ["env=test"]}, ["create"]),
        ({"scope": ["swarm"]}, []),
    ],
)
def test_filters(filters: dict[str, list[str]], actions: list[str]) -> None:
    async def scenario() -> list[str]:
        return await _all(_filled(), filters)

    assert asyncio.run(scenario()) == actions


def test_listeners_get_everything_in_order_and_past_only_when_asked() -> None:
    async def scenario() -> None:
        bus = _filled()
        live = bus.subscribe()
        marks = [event.time_ns async for event in bus.subscribe(0, time.time_ns())]
        assert marks == sorted(set(marks))
        since = bus.subscribe(marks[-1])
        bus.publish("volume", "create", "v", {})
        assert (await anext(live)).kind == "volume"
        assert (await anext(since)).action == "health_status: healthy"
        assert (await anext(since)).kind == "volume"
        assert bus.listeners == 2
        waiting = asyncio.ensure_future(anext(live))
        await asyncio.sleep(0)
        await live.aclose()
        with pytest.raises(StopAsyncIteration):
            await waiting
        await since.aclose()
        assert bus.listeners == 0

    asyncio.run(scenario())


def test_until_in_the_future_ends_the_stream() -> None:
    async def scenario() -> None:
        bus = EventBus()
        stream = bus.subscribe(until_ns=time.time_ns() + 50_000_000)
        assert [event async for event in stream] == []
        assert bus.listeners == 0

    asyncio.run(scenario())


def test_a_listener_that_does_not_read_is_dropped() -> None:
    async def scenario() -> None:
        bus = EventBus()
        stream = bus.subscribe()
        for number in range(BACKLOG + 5):
            bus.publish("container", str(number), "c", {})
        seen = [event.action async for event in stream]
        assert seen == [str(number) for number in range(BACKLOG)]

    asyncio.run(scenario())


def test_a_receiver_gets_what_its_reader_waits_for_and_the_iteration_the_rest() -> None:
    async def scenario() -> None:
        bus = EventBus()
        stream = bus.subscribe(filters=Filters({"type": ["container"]}))
        received: list[str] = []
        ready = True

        def receive(event: EventMessage) -> bool:
            if ready:
                received.append(event.action)
            return ready

        stream.receiver = receive
        bus.publish("container", "before the reader", "c", {})
        assert (await anext(stream)).action == "before the reader"
        waiting = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        bus.publish("container", "one", "c", {})
        bus.publish("network", "other type", "n", {})
        bus.publish("container", "two", "c", {})
        ready = False
        bus.publish("container", "refused", "c", {})
        ready = True
        bus.publish("container", "behind it", "c", {})  # must not overtake
        assert received == ["one", "two"]
        assert (await waiting).action == "refused"
        assert (await anext(stream)).action == "behind it"
        await stream.aclose()

    asyncio.run(scenario())


def test_old_and_new_spelling() -> None:
    bus = EventBus()
    event = bus.publish("container", "die", "c1", {"image": "busybox", "exitCode": "0"})
    seen = document(event)
    assert (seen["status"], seen["id"], seen["from"], seen["Type"], seen["Action"]) == (
        "die",
        "c1",
        "busybox",
        "container",
        "die",
    )
    assert seen["time"] == seen["timeNano"] // 10**9
    assert "status" not in document(bus.publish("network", "connect", "n", {}))


def test_what_a_user_does_is_no_part_of_the_past_of_others() -> None:
    async def scenario() -> None:
        bus = EventBus()
        alice, bob = (bus.seen_by(Caller(name, administrator=False)) for name in ("alice", "bob"))
        bus.publish("container", "first", "a1", {}, owner="alice")
        for number in range(RING + 5):
            bus.publish("container", str(number), "b1", {}, owner="bob")
        bus.publish("container", "job", "a2", {}, owner="alice:0f3c")
        assert await _all(alice) == ["first"]
        assert await _all(bob) == [str(number) for number in range(5, RING + 5)]
        everything = await _all(bus)
        assert (everything[0], everything[1], everything[-1], len(everything)) == ("first", "5", "job", RING + 2)
        live = alice.subscribe()
        assert (alice.listeners, bob.listeners, bus.listeners) == (1, 0, 1)
        await live.aclose()

    asyncio.run(scenario())
