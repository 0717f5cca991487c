"""What a node tells of its images."""

import asyncio
from collections.abc import AsyncIterator

from server.registry.reference import parse
from server.swarm.agent.imagereport import report_images
from server.swarm.agent.tests.fakes import FakeDispatcher
from server.swarm.model import images
from server.swarm.model.objects import NodeImages

DIGEST = f"sha256:{'ab' * 32}"


def test_a_node_has_an_image_by_its_tag_or_digest() -> None:
    node = NodeImages(keys=images.keys_of({"docker.io/library/busybox:latest", DIGEST}))
    for image in ("busybox", "busybox:latest", "docker.io/library/busybox", f"other:1@{DIGEST}", f"other@{DIGEST}"):
        assert images.has(node, images.wanted(image)), image
    for image in ("busybox:1", "other/busybox", f"busybox@sha256:{'cd' * 32}", "A?", ""):
        assert not images.has(node, images.wanted(image)), image
    assert not images.has(None, images.wanted("busybox"))


def test_the_report_is_bounded() -> None:
    keys = images.keys_of(str(parse(f"image:{number}")) for number in range(5000))
    assert len(keys) == 9 * images.MAX_KEYS - 1
    assert images.valid(keys)
    assert images.valid("")
    for text in (f"{keys} 01234567", "0123456", "0123456!", " 01234567"):
        assert not images.valid(text)


def test_only_changes_are_reported_also_after_a_failure() -> None:
    async def scenario() -> None:
        dispatcher = FakeDispatcher()
        found: asyncio.Queue[set[str]] = asyncio.Queue()

        async def references() -> AsyncIterator[set[str]]:
            while True:
                yield await found.get()

        async def reported(count: int) -> None:
            async with asyncio.timeout(10):
                while len(dispatcher.images) < count:  # noqa: ASYNC110
                    await asyncio.sleep(0.005)

        working = asyncio.create_task(report_images(references(), dispatcher, pause=0.01))
        found.put_nowait({"a:1"})
        await reported(1)
        found.put_nowait({"a:1"})
        dispatcher.down = True
        found.put_nowait({"a:1", "b:1"})
        await asyncio.sleep(0.05)
        assert len(dispatcher.images) == 1
        dispatcher.down = False
        await reported(2)
        await asyncio.sleep(0.05)
        assert dispatcher.images == [images.keys_of({"a:1"}), images.keys_of({"a:1", "b:1"})]
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)

    asyncio.run(scenario())
