"""The use of NVIDIA's GPUs, with a stand-in for the driver's library."""

import sys
from collections.abc import Callable

import pytest

from server.gpus.use import nvml
from server.gpus.use.nvml import Processes
from server.gpus.use.tests.fake_nvml import Device, FakeNvml, Sample

Install = Callable[..., FakeNvml]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    def work(*devices: Device, loaded: bool = True) -> FakeNvml:
        fake = FakeNvml(*devices, loaded=loaded)
        monkeypatch.setitem(sys.modules, "pynvml", fake)
        return fake

    return work


def test_samples_of_processes(install: Install) -> None:
    busy = Device([Sample(10, 500, smUtil=90), Sample(10, 400, smUtil=3), Sample(11, 500), Sample(12, 300, encUtil=5)])
    fake = install(busy, Device([Sample(13, 600, memUtil=1)]), Device([]))
    assert nvml.read(350) == Processes(used_us={10: 500, 13: 600})
    assert nvml.read(700) == Processes()
    assert fake.open == 0


def test_a_gpu_with_partitions(install: Install) -> None:
    fake = install(Device(None, compute=[10], graphics=[11]), Device([Sample(12, 5, decUtil=9)]))
    reason = "NVML: Not Supported"
    assert nvml.read(0) == Processes(used_us={12: 5}, unknown={10: reason, 11: reason})
    assert fake.open == 0


def test_nothing_is_known(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install(loaded=False)
    assert nvml.read(0) == Processes(failed="NVML: Driver Not Loaded")
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert nvml.read(0) == Processes(failed="the Python package nvidia-ml-py is not installed")
