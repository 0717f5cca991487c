"""aiodocker: a second Python client, with a parser of streams of its own."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import aiodocker
import pytest

from compat_tests.support import images
from compat_tests.support.engines import Engine
from compat_tests.support.polling import until


def test_aiodocker_runs_a_container(engine: Engine) -> None:
    async def scenario() -> None:
        async with aiodocker.Docker(url=engine.host) as client:
            api: Any = client
            listeners = engine.api.get("/info").json()["NEventsListener"]
            subscriber = api.events.subscribe()

            def listens() -> bool:
                return bool(engine.api.get("/info").json()["NEventsListener"] > listeners)

            assert await asyncio.to_thread(until, listens)
            created = await api.containers.create(
                {"Image": "busybox", "Cmd": ["cat"], "OpenStdin": True, "AttachStdin": True},
                name=f"aiodocker-{uuid.uuid4().hex[:10]}",
            )
            try:
                stream = created.attach(stdin=True, stdout=True, stderr=True)
                async with stream:
                    await created.start()
                    await stream.write_in(b"hello\n")
                    message = await stream.read_out()
                    assert message is not None
                    assert message.data == b"hello\n"
                execution = await created.exec(["sh", "-c", "echo out; exit 4"])
                async with execution.start(detach=False) as running:
                    answer = await running.read_out()
                    assert answer is not None
                    assert answer.data == b"out\n"
                    assert await running.read_out() is None
                assert (await execution.inspect())["ExitCode"] == 4
                await created.put_archive("/tmp", images.layer({"f": b"abc"}))
                archive = await created.get_archive("/tmp/f")
                assert archive.getnames() == ["f"]
                assert (await created.stats(stream=False))[0]["memory_stats"]["usage"] > 0
                while (event := await asyncio.wait_for(subscriber.get(), 60)) is not None:
                    if (event["Type"], event["Action"], event["Actor"]["ID"]) == ("container", "create", created.id):
                        break
                await created.kill()
                assert (await created.wait())["StatusCode"] == 137
                assert await created.log(stdout=True) == ["hello\n"]
            finally:
                await created.delete(force=True)
            with pytest.raises(aiodocker.DockerError, match="No such container"):
                await api.containers.get("nosuch")
            assert any("busybox:latest" in (image["RepoTags"] or []) for image in await api.images.list())

    asyncio.run(scenario())
