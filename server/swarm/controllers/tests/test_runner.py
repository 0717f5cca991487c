"""The loop of the controllers goes on whatever fails."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from server.swarm.controllers import plan
from server.swarm.controllers.draft import Draft
from server.swarm.controllers.orchestrator import replicated
from server.swarm.controllers.tests.world import World, play
from server.swarm.model.objects import Service
from server.swarm.store.interface import Condition, Write


def test_a_failing_reconcile_is_tried_again_with_growing_delays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failures = 0

    def reconcile(draft: Draft, service: Service) -> None:
        nonlocal failures
        replicated.reconcile(draft, service)
        if service.name == "bad" and failures < 3:
            failures += 1
            raise RuntimeError("broken")

    async def scenario(world: World) -> None:
        await world.node("n1")
        await world.service("bad", 1)
        await world.service("good", 1)
        await world.settle()
        assert len(world.running("good")) == 1
        assert world.tasks("bad") == []
        before = failures
        await world.advance(60)
        assert before < failures == 3
        assert len(world.running("bad")) == 1
        assert "can't be reconciled" in caplog.text

    monkeypatch.setattr(plan, "orchestrator_of", lambda _: reconcile)
    play(tmp_path, scenario)


def test_a_service_that_cannot_be_stored_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(world: World) -> None:
        commit = world.store.commit
        broken = True

        async def refuse(conditions: Sequence[Condition], writes: Sequence[Write]) -> int:
            if broken and any(b'"ServiceName":"bad"' in (write.value or b"") for write in writes):
                raise ValueError("a value has too many bytes")
            return await commit(conditions, writes)

        monkeypatch.setattr(world.store, "commit", refuse)
        await world.stop()
        await world.service("bad", 1)
        await world.service("good", 2)
        await world.node("n1")
        await world.restart()
        await world.settle()
        assert len(world.running("good")) == 2
        assert world.tasks("bad") == []
        broken = False
        await world.advance(10)
        assert len(world.running("bad")) == 1

    play(tmp_path, scenario)
