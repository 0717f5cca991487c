"""A stand-in for the module ``pynvml`` with GPUs that a test describes."""

from dataclasses import dataclass, field

NOT_SUPPORTED, NOT_FOUND, DRIVER_NOT_LOADED = 3, 6, 9


class NVMLError(Exception):
    def __init__(self, value: int) -> None:
        super().__init__(value)
        self.value = value

    def __str__(self) -> str:
        return {NOT_SUPPORTED: "Not Supported", NOT_FOUND: "Not Found", DRIVER_NOT_LOADED: "Driver Not Loaded"}[
            self.value
        ]


@dataclass
class Sample:
    pid: int
    timeStamp: int
    smUtil: int = 0
    memUtil: int = 0
    encUtil: int = 0
    decUtil: int = 0


@dataclass
class Process:
    pid: int


@dataclass
class Device:
    """``samples`` None: the GPU has partitions."""

    samples: list[Sample] | None = field(default_factory=list)
    compute: list[int] = field(default_factory=list)
    graphics: list[int] = field(default_factory=list)


class FakeNvml:
    """``open``: how often it is initialised at present."""

    NVMLError = NVMLError
    NVML_ERROR_NOT_FOUND = NOT_FOUND

    def __init__(self, *devices: Device, loaded: bool = True) -> None:
        self.devices = devices
        self.loaded = loaded
        self.open = 0

    def nvmlInit(self) -> None:
        if not self.loaded:
            raise NVMLError(DRIVER_NOT_LOADED)
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlDeviceGetCount(self) -> int:
        assert self.open
        return len(self.devices)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Device:
        return self.devices[index]

    def nvmlDeviceGetProcessUtilization(self, device: Device, since_us: int) -> list[Sample]:
        if device.samples is None:
            raise NVMLError(NOT_SUPPORTED)
        found = [sample for sample in device.samples if sample.timeStamp > since_us]
        if not found:
            raise NVMLError(NOT_FOUND)
        return found

    def nvmlDeviceGetComputeRunningProcesses(self, device: Device) -> list[Process]:
        return list(map(Process, device.compute))

    def nvmlDeviceGetGraphicsRunningProcesses(self, device: Device) -> list[Process]:
        return list(map(Process, device.graphics))
