"""Which measurement applies to a container, and how two of them compare."""

import asyncio
import sys
import threading
import time
from pathlib import Path

import pytest

from engine.common import timeouts
from server.gpus.catalog import Gpu
from server.gpus.use import drm, nvml
from server.gpus.use.drm import Clients, Counter
from server.gpus.use.meter import Meter, Target, Use
from server.gpus.use.tests.fake_nvml import Device, FakeNvml, Sample

NVIDIA = Gpu("nvidia.com/gpu=0", ("nvidia.com/gpu=0",), nodes=frozenset({"/dev/nvidia0", "/dev/dri/renderD128"}))
AMD = Gpu("amd.com/gpu=0", ("amd.com/gpu=0",), nodes=frozenset({"/dev/dri/renderD129"}))
OTHER = Gpu("lab.example/gpu=0", ("lab.example/gpu=0",), nodes=frozenset({"/dev/lab"}))
ENGINE = ("0000:03:00.0", "1", "compute")


@pytest.fixture
def cgroup(tmp_path: Path) -> str:
    """A cgroup whose processes, 10 and 11, are in it and in one below it."""
    (tmp_path / "below").mkdir()
    (tmp_path / "cgroup.procs").write_text("10\n")
    (tmp_path / "below" / "cgroup.procs").write_text("11\n")
    return str(tmp_path)


def measure(measured: Meter, target: Target) -> Use:
    return asyncio.run(measured.measure({"c": target}))["c"]


def target(cgroup: str, *gpus: Gpu | None, started_ns: int = 1) -> Target:
    return Target(started_ns, ("/no/such/cgroup", cgroup), gpus)


def test_drm(cgroup: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clients = Clients({ENGINE: Counter(10**15)})

    def read(pids: list[int]) -> Clients:
        assert sorted(pids) == [10, 11]
        return clients

    monkeypatch.setattr(drm, "read", read)
    measured = Meter()
    # What was used before the first measurement isn't used now.
    assert measure(measured, target(cgroup, AMD)) == Use()
    assert measure(measured, target(cgroup, AMD)) == Use()
    clients = Clients({ENGINE: Counter(2 * 10**15)})
    assert measure(measured, target(cgroup, AMD)) == Use(used=True)
    clients = Clients(clients.counters, unknown="no times")
    assert measure(measured, target(cgroup, AMD)) == Use(unknown="no times")
    clients = Clients(computing=True)
    assert measure(measured, target(cgroup, AMD)) == Use(used=True)
    # Another run begins anew.
    clients = Clients({ENGINE: Counter(3 * 10**15)})
    assert measure(measured, target(cgroup, AMD, started_ns=2)) == Use()


def test_nvidia(cgroup: str, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time_ns() // 1000
    gpu = Device([Sample(11, now, smUtil=5), Sample(4711, now + 10**9, smUtil=5)])
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(gpu))
    measured = Meter()
    assert measure(measured, target(cgroup, NVIDIA)) == Use(used=True)
    # The sample is older than the measurement before.
    assert measure(measured, target(cgroup, NVIDIA)) == Use()
    gpu.samples, gpu.compute = None, [10]
    assert measure(measured, target(cgroup, NVIDIA)) == Use(unknown="NVML: Not Supported")
    gpu.compute = [4711]
    assert measure(measured, target(cgroup, NVIDIA)) == Use()
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert measure(measured, target(cgroup, NVIDIA)).unknown == "the Python package nvidia-ml-py is not installed"


def test_the_library_is_not_loaded_for_other_gpus(cgroup: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "read", lambda since_us: pytest.fail("read"))
    monkeypatch.setattr(drm, "read", lambda pids: Clients())
    assert measure(Meter(), target(cgroup, AMD)) == Use()


def test_gpus_of_no_known_driver(cgroup: str) -> None:
    assert measure(Meter(), target(cgroup, OTHER)).unknown == "lab.example/gpu=0: no driver of this device is known"
    assert measure(Meter(), target(cgroup, None)).unknown == "a GPU is in no CDI specification any more"


def test_a_driver_that_hangs_has_one_thread(cgroup: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hung, calls = threading.Event(), []

    def read(pids: list[int]) -> Clients:
        calls.append(pids)
        hung.wait(60)
        return Clients()

    monkeypatch.setattr(drm, "read", read)

    async def work() -> list[str]:
        measured = Meter()
        monkeypatch.setattr(timeouts, "seconds", lambda name: 0.01)
        found = [(await measured.measure({"c": target(cgroup, AMD)}))["c"].unknown for _ in range(3)]
        assert len(calls) == 1
        hung.set()
        assert measured._measuring is not None
        await measured._measuring
        monkeypatch.setattr(timeouts, "seconds", lambda name: 60)
        assert (await measured.measure({"c": target(cgroup, AMD)}))["c"] == Use()
        return found

    assert asyncio.run(work()) == ["the driver doesn't answer"] * 3
