"""Pulls of the images of tasks."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Sequence

import pytest

from engine.common import timeouts
from engine.common.errors import Kind, WharfError, not_found
from server.config.model import Config
from server.registry.auth import ANONYMOUS, Credentials
from server.registry.client import Repository
from server.registry.progress import Message
from server.registry.reference import Reference, parse
from server.registry.source import Source
from server.swarm.agent.dispatcher import NodeAddress
from server.swarm.agent.images import Pulls
from server.swarm.agent.tests.fakes import FakeDispatcher


class FakeImages:
    """A registry that has all images, answers when ``open`` is set, and sends them when ``content`` is, too."""

    def __init__(self) -> None:
        self.local: set[str] = set()
        self.pulls: list[tuple[str, Credentials]] = []
        self.open = asyncio.Event()
        self.content = asyncio.Event()
        self.content.set()
        self.refusal: WharfError | None = None
        self.cancelled = 0

    async def find_id(self, ref: str) -> str | None:
        return f"sha256:{ref}" if ref in self.local else None

    async def pull(self, reference: Reference, *, credentials: Credentials = ANONYMOUS) -> AsyncIterator[Message]:
        self.pulls.append((reference.familiar, credentials))
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.refusal is not None:
            raise self.refusal
        yield {"status": "Pulling from a"}
        await self.content.wait()
        self.local.add(reference.familiar)

    async def references(self) -> AsyncIterator[set[str]]:
        yield self.local

    async def pull_from(self, source: Source, reference: Reference) -> None:
        assert isinstance(source, PeerNodes)
        source.pulls.append(reference.familiar)
        source.begun.set()
        await source.open.wait()
        if source.refusal is not None:
            raise source.refusal
        self.local.add(reference.familiar)


class PeerNodes(Repository):
    """Other nodes, which have the image."""

    def __init__(self) -> None:
        super().__init__(Config(), parse("a:1"))
        self.pulls: list[str] = []
        self.asked: list[tuple[str, str, Sequence[NodeAddress]]] = []
        self.refusal: WharfError | None = None
        self.begun = asyncio.Event()
        self.open = asyncio.Event()
        self.open.set()

    def __call__(self, reference: Reference, service_id: str, nodes: Sequence[NodeAddress]) -> "PeerNodes":
        self.asked.append((reference.familiar, service_id, nodes))
        return self


@pytest.mark.parametrize(
    ("refusal", "asked"),
    [
        (WharfError(Kind.INTERNAL, "dial tcp: no such host"), True),
        (not_found("pull access denied for a"), True),
        (WharfError(Kind.RESOURCE_EXHAUSTED, "no space left on device"), False),
        (None, False),
    ],
)
def test_other_nodes_are_asked_after_the_registry(refusal: WharfError | None, asked: bool) -> None:
    async def scenario() -> None:
        images, dispatcher, nodes = FakeImages(), FakeDispatcher(), PeerNodes()
        images.open.set()
        images.refusal = refusal
        pulls = Pulls(images, dispatcher, nodes)
        await pulls.ensure("a:1", "s")
        assert nodes.asked == []  # no node is known
        dispatcher.peers = [NodeAddress("n2", "10.0.0.2")]
        images.local.clear()
        await pulls.ensure("a:1", "s")
        assert nodes.asked == ([("a:1", "s", dispatcher.peers)] if asked else [])
        assert nodes.pulls == (["a:1"] if asked else [])
        assert bool(images.local) == (asked or refusal is None)

    asyncio.run(scenario())


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(timeouts._SECONDS, "swarm.registry", 0.01)


@pytest.mark.usefixtures("impatient")
def test_other_nodes_are_asked_while_a_registry_gives_no_answer() -> None:
    async def scenario() -> None:
        images, dispatcher, nodes = FakeImages(), FakeDispatcher(), PeerNodes()
        dispatcher.peers = [NodeAddress("n2", "10.0.0.2")]
        async with asyncio.timeout(10):
            await Pulls(images, dispatcher, nodes).ensure("a:1", "s")
        assert (images.local, images.cancelled, nodes.pulls) == ({"a:1"}, 1, ["a:1"])

    asyncio.run(scenario())


@pytest.mark.usefixtures("impatient")
def test_a_late_answer_of_the_registry_decides() -> None:
    async def scenario() -> None:
        images, dispatcher, nodes = FakeImages(), FakeDispatcher(), PeerNodes()
        dispatcher.peers = [NodeAddress("n2", "10.0.0.2")]
        nodes.open.clear()
        images.content.clear()
        pull = asyncio.create_task(Pulls(images, dispatcher, nodes).ensure("a:1", "s"))
        await nodes.begun.wait()
        images.open.set()
        await asyncio.sleep(0.02)
        # The other nodes are no longer asked.
        nodes.open.set()
        await asyncio.sleep(0.02)
        assert not images.local
        images.content.set()
        async with asyncio.timeout(10):
            await pull
        assert (images.local, nodes.pulls) == ({"a:1"}, ["a:1"])

    asyncio.run(scenario())


@pytest.mark.usefixtures("impatient")
def test_the_nodes_go_on_when_the_registry_fails_late(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        images, dispatcher, nodes = FakeImages(), FakeDispatcher(), PeerNodes()
        dispatcher.peers = [NodeAddress("n2", "10.0.0.2")]
        nodes.open.clear()
        pull = asyncio.create_task(Pulls(images, dispatcher, nodes).ensure("a:1", "s"))
        await nodes.begun.wait()
        images.refusal = WharfError(Kind.INTERNAL, "dial tcp: i/o timeout")
        images.open.set()
        await asyncio.sleep(0.02)
        nodes.open.set()
        async with asyncio.timeout(10):
            await pull
        assert (images.local, nodes.pulls) == ({"a:1"}, ["a:1"])

    asyncio.run(scenario())
    assert "failed" not in caplog.text


@pytest.mark.usefixtures("impatient")
def test_a_registry_may_be_slow_where_no_node_has_the_image() -> None:
    async def scenario() -> None:
        images, dispatcher, nodes = FakeImages(), FakeDispatcher(), PeerNodes()
        dispatcher.peers = [NodeAddress("n2", "10.0.0.2")]
        nodes.refusal = not_found("no manager has the image a:1")
        pull = asyncio.create_task(Pulls(images, dispatcher, nodes).ensure("a:1", "s"))
        await nodes.begun.wait()
        await asyncio.sleep(0.02)
        images.open.set()
        async with asyncio.timeout(10):
            await pull
        assert (images.local, nodes.pulls) == ({"a:1"}, ["a:1"])

    asyncio.run(scenario())


def test_a_failure_of_other_nodes_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        images, dispatcher, nodes = FakeImages(), FakeDispatcher(), PeerNodes()
        images.open.set()
        images.refusal = not_found("pull access denied for a")
        dispatcher.peers = [NodeAddress("n2", "10.0.0.2")]
        nodes.refusal = not_found("node n2: No such image: a:1")
        await Pulls(images, dispatcher, nodes).ensure("a:1", "s")

    asyncio.run(scenario())
    assert "no other node sent image a:1: node n2: No such image: a:1" in caplog.text
    assert "pulling image a:1 failed: pull access denied for a" in caplog.text


def test_ten_tasks_pull_an_image_once() -> None:
    async def scenario() -> None:
        images = FakeImages()
        pulls = Pulls(images, FakeDispatcher())
        waiting = [asyncio.create_task(pulls.ensure("a:1", "s")) for _ in range(10)]
        await asyncio.sleep(0.01)
        waiting[0].cancel()
        await asyncio.wait(waiting[:1])
        images.open.set()
        await asyncio.gather(*waiting[1:])
        assert images.pulls == [("a:1", ANONYMOUS)]
        await pulls.ensure("a:1", "s")
        assert len(images.pulls) == 1

    asyncio.run(scenario())


def test_the_last_waiter_ends_a_pull() -> None:
    async def scenario() -> None:
        images = FakeImages()
        pulls = Pulls(images, FakeDispatcher())
        waiting = [asyncio.create_task(pulls.ensure("a:1", "s")) for _ in range(2)]
        await asyncio.sleep(0.01)
        for task in waiting:
            assert images.cancelled == 0
            task.cancel()
            await asyncio.wait({task})
        assert images.cancelled == 1

    asyncio.run(scenario())


def test_a_pull_has_the_credentials_of_the_service() -> None:
    async def scenario() -> None:
        images, dispatcher = FakeImages(), FakeDispatcher()
        images.open.set()
        document = json.dumps({"username": "u", "password": "p"}).encode()
        dispatcher.auth["s"] = base64.urlsafe_b64encode(document).decode()
        await Pulls(images, dispatcher).ensure("a:1", "s")
        await Pulls(images, dispatcher).ensure("b:1", "other")
        assert images.pulls == [("a:1", Credentials("u", "p")), ("b:1", ANONYMOUS)]

    asyncio.run(scenario())


def test_a_failed_pull_is_logged_and_leaves_the_error_to_the_create(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        images = FakeImages()
        images.open.set()
        images.refusal = not_found("pull access denied for a")
        await Pulls(images, FakeDispatcher()).ensure("a:1", "s")

    asyncio.run(scenario())
    assert "pulling image a:1 failed: pull access denied for a" in caplog.text


def test_without_a_manager_there_are_no_credentials_and_no_pull() -> None:
    async def scenario() -> None:
        images, dispatcher = FakeImages(), FakeDispatcher()
        dispatcher.down = True
        with pytest.raises(WharfError) as caught:
            await Pulls(images, dispatcher).ensure("a:1", "s")
        assert caught.value.kind is Kind.UNAVAILABLE
        assert images.pulls == []

    asyncio.run(scenario())
