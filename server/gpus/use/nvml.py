"""The use of NVIDIA's GPUs by processes, from the driver's management library (NVML). The Python package
``nvidia-ml-py``, which is optional, loads it.

The driver keeps samples of some seconds or more, by process. It has none of GPUs with partitions (MIG): of those, only
the processes that have a context are known. All functions block.
"""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, cast


class _Sample(Protocol):
    """``nvmlProcessUtilizationSample_t``. ``timeStamp``: microseconds since the epoch. The others: percent."""

    pid: int
    timeStamp: int
    smUtil: int
    memUtil: int
    encUtil: int
    decUtil: int


class _Process(Protocol):
    pid: int


class _Module(Protocol):
    """What is used of the module ``pynvml``. Every function raises ``NVMLError``."""

    NVMLError: type[Exception]
    NVML_ERROR_NOT_FOUND: int

    def nvmlInit(self) -> None: ...
    def nvmlShutdown(self) -> None: ...
    def nvmlDeviceGetCount(self) -> int: ...
    def nvmlDeviceGetHandleByIndex(self, index: int) -> object: ...
    def nvmlDeviceGetProcessUtilization(self, handle: object, since_us: int) -> Sequence[_Sample]: ...
    def nvmlDeviceGetComputeRunningProcesses(self, handle: object) -> Sequence[_Process]: ...
    def nvmlDeviceGetGraphicsRunningProcesses(self, handle: object) -> Sequence[_Process]: ...


@dataclass(slots=True)
class Processes:
    """``used_us``: when a process has used a GPU last, in microseconds since the epoch. ``unknown``: processes with a
    context on a GPU whose use isn't known, each with the reason. ``failed``: why nothing is known of other processes;
    "": they use no GPU."""

    used_us: dict[int, int] = field(default_factory=dict)
    unknown: dict[int, str] = field(default_factory=dict)
    failed: str = ""


def read(since_us: int) -> Processes:
    """The processes that have used a GPU since a time (microseconds since the epoch), as far as the driver has
    samples."""
    try:
        module = cast(_Module, importlib.import_module("pynvml"))
    except ImportError:
        return Processes(failed="the Python package nvidia-ml-py is not installed")
    found = Processes()
    try:
        # Not kept open: it would stay in the way of an update of the driver.
        module.nvmlInit()
        try:
            for index in range(module.nvmlDeviceGetCount()):
                _add(found, module, module.nvmlDeviceGetHandleByIndex(index), since_us)
        finally:
            module.nvmlShutdown()
    except module.NVMLError as error:
        found.failed = f"NVML: {error}"
    return found


def _add(found: Processes, module: _Module, handle: object, since_us: int) -> None:
    try:
        samples = module.nvmlDeviceGetProcessUtilization(handle, since_us)
    except module.NVMLError as error:
        if cast(Any, error).value == module.NVML_ERROR_NOT_FOUND:
            return  # no samples: no process has used it
        for processes in (module.nvmlDeviceGetComputeRunningProcesses, module.nvmlDeviceGetGraphicsRunningProcesses):
            found.unknown |= dict.fromkeys((each.pid for each in processes(handle)), f"NVML: {error}")
        return
    for sample in samples:
        if sample.smUtil or sample.memUtil or sample.encUtil or sample.decUtil:
            found.used_us[sample.pid] = max(found.used_us.get(sample.pid, 0), sample.timeStamp)
