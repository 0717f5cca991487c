"""Pulls of the images of tasks."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator

import pytest

from engine.common.errors import Kind, WharfError, not_found
from server.registry.auth import ANONYMOUS, Credentials
from server.registry.progress import Message
from server.registry.reference import Reference
from server.swarm.agent.images import Pulls
from server.swarm.agent.tests.fakes import FakeDispatcher


class FakeImages:
    """A registry that has all images, and answers when ``open`` is set."""

    def __init__(self) -> None:
        self.local: set[str] = set()
        self.pulls: list[tuple[str, Credentials]] = []
        self.open = asyncio.Event()
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
        self.local.add(reference.familiar)
        yield {"status": "done"}


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
