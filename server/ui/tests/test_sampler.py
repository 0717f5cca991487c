"""Samples of counters."""

import asyncio
import time

import pytest

from server.tests.daemon import Daemon
from server.ui import sampler as module
from server.ui.history import STEP, History, Sample
from server.ui.sampler import Pass, Sampler


def make(daemon: Daemon) -> Sampler:
    return Sampler(daemon.services.containers, daemon.services.networks.interfaces, History())


def test_a_pass_comes_in_the_middle_of_each_point(monkeypatch: pytest.MonkeyPatch) -> None:
    for now in (1000.0, 1000.4, 1002.5, 1004.99):
        monkeypatch.setattr(time, "time", lambda now=now: now)
        assert now + module._to_next_point() == pytest.approx(1000 + STEP * 1.5)


def test_the_machine_is_sampled(daemon: Daemon) -> None:
    sampler = make(daemon)
    assert sampler._read([]).machine is None
    busy = time.monotonic() + 0.2
    while time.monotonic() < busy:
        pass
    found = sampler._read([]).machine
    assert found is not None
    assert found.cpu > 0
    assert found.memory > 1 << 20


def test_watchers_get_each_pass(daemon: Daemon) -> None:
    sampler = make(daemon)
    done = Pass(time.time(), Sample(1.0, 2.0), {"a": Sample(3.0, 4.0)})

    async def watch() -> list[Pass]:
        with sampler.watched() as first, sampler.watched() as second:
            waiting = [asyncio.ensure_future(anext(each)) for each in (first, second)]
            await asyncio.sleep(0)
            gone = asyncio.ensure_future(anext(second := sampler._passes()))
            await asyncio.sleep(0)
            gone.cancel()  # a watcher that leaves takes nothing from the others
            await asyncio.sleep(0)
            sampler._publish(done)
            return [await each for each in waiting]

    assert daemon.wait(watch()) == [done, done]
    assert sampler.history.of("a", done.time, STEP)["cpu"] == [3.0]
    assert sampler.history.of("", done.time, STEP)["memory"] == [2.0]


def test_a_container_that_was_started_anew_begins_anew(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    daemon.load("busybox:latest")
    container = daemon.run("web")
    sampler = make(daemon)
    counters = [1.0, 3.0, 1.0, 1.5]

    class Cgroups:
        def __init__(self, layout: object) -> None:
            pass

        def read(self, cgroup: str, *, quota: bool) -> object:
            from server.metrics.cgroups import Usage

            return Usage(cpu_seconds=counters.pop(0), working_set=100)

    monkeypatch.setattr(module, "Cgroups", Cgroups)
    assert sampler._read([container]).containers == {}
    assert sampler._read([container]).containers[container.id].cpu > 0
    container.state.started_ns += 1
    assert sampler._read([container]).containers == {}
    assert sampler._read([container]).containers[container.id].cpu > 0
