"""The drivers of GPUs for device requests: how ``--gpus`` of Docker 29 selects and prepares them.

A request names a driver or, with capabilities such as ``gpu``, selects the first driver of this host that has them:

* ``nvidia`` has two ways, also known as drivers of their own. ``nvidia.cdi`` injects the CDI devices
  ``nvidia.com/gpu``; it needs their specifications or NVIDIA's ``nvidia-cdi-hook``. ``nvidia.runtime-hook`` adds the
  hook of the NVIDIA container toolkit, which reads the GPUs from environment variables. The second is used if the first
  fails.
* ``amd`` injects the CDI devices ``amd.com/gpu`` or, if that fails, sets the environment variable that AMD's OCI
  runtime reads. Without a name, it is selected only on a host without NVIDIA's drivers.
"""

import copy
import logging
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from api_models.resources import DeviceRequest
from engine.common.errors import WharfError, internal, invalid
from server.containers.spec import cdi

log = logging.getLogger(__name__)

Json = dict[str, Any]
#: Edits the spec for a request, with the capabilities that selected the driver.
Way = Callable[[Json, DeviceRequest, Sequence[str]], None]

_HOOK = "nvidia-container-runtime-hook"
_CDI_HOOK = "nvidia-cdi-hook"
_AMD_RUNTIME = "amd-container-runtime"
_NVIDIA_GPU, _AMD_GPU = "nvidia.com/gpu", "amd.com/gpu"
#: The values of NVIDIA_DRIVER_CAPABILITIES. Each is also a capability of a device request.
_NVIDIA = ("compute", "compat32", "graphics", "utility", "video", "display")


@dataclass(frozen=True, slots=True)
class _Driver:
    """A driver of this host. ``ways`` are tried in order. Without capabilities, it is selected by name only.
    ``kind``: the CDI devices of its first way; "": that way uses no CDI."""

    ways: tuple[Way, ...]
    capabilities: frozenset[str] = frozenset()
    kind: str = ""

    def matching(self, request: DeviceRequest) -> Sequence[str] | None:
        """Return the first alternative of the request of which the driver has all capabilities."""
        if self.capabilities:
            for alternative in request.capabilities or ():
                if self.capabilities.issuperset(alternative):
                    return alternative
        return None


def inject(directories: tuple[str, ...], request: DeviceRequest, spec: Json) -> None:
    """Add the GPUs of a request to the spec. Blocks.

    :raises WharfError: INTERNAL: no driver supports the request, or all ways of the driver fail; INVALID_ARGUMENT: both
        a count and ids are set.
    """
    _edit(_select(cdi.load(directories), request), request, spec)


def cdi_kind(registry: cdi.Registry, request: DeviceRequest) -> str:
    """The kind of CDI devices of which a request selects some.

    :raises WharfError: as ``inject``; also INVALID_ARGUMENT: the driver of the request does not use CDI.
    """
    driver = _select(registry, request)
    if not driver.kind:
        raise invalid(f"the device driver {_asked(request)} uses no CDI devices: its GPUs can't be allocated")
    return driver.kind


def _select(registry: cdi.Registry, request: DeviceRequest) -> _Driver:
    """:raises WharfError: as ``inject``, except for a driver that fails."""
    drivers = _drivers(registry)
    if request.driver:
        driver = drivers.get(request.driver)
    else:
        driver = next((each for each in drivers.values() if each.matching(request) is not None), None)
    if driver is None:
        raise no_driver(request)
    if request.count and request.device_ids:
        raise invalid("cannot set both Count and DeviceIDs on device request")
    return driver


def no_driver(request: DeviceRequest) -> WharfError:
    """dockerd's error for a device request that no driver supports."""
    return internal(f"could not select device driver {_asked(request)}")


def _asked(request: DeviceRequest) -> str:
    alternatives = " ".join(f"[{' '.join(each)}]" for each in request.capabilities or ())
    return f'"{request.driver}" with capabilities: [{alternatives}]'


def inject_devices(registry: cdi.Registry, names: Sequence[str], spec: Json) -> None:
    """Add CDI devices to the spec.

    :raises WharfError: INTERNAL: one of them doesn't exist, or its specification is not valid.
    """
    try:
        cdi.inject(spec, names, registry)
    except cdi.CdiError as error:
        problems = "".join(f"; {file}: {reason}" for file, reason in registry.problems.items())
        raise internal(f"CDI device injection failed: {error}{problems}") from None


def _drivers(registry: cdi.Registry) -> dict[str, _Driver]:
    """Return the drivers of this host by name, in the order in which capabilities select them."""
    drivers: dict[str, _Driver] = {}
    if registry.names(_NVIDIA_GPU) or shutil.which(_CDI_HOOK) is not None:
        drivers["nvidia.cdi"] = _Driver((_by_cdi(registry, _NVIDIA_GPU),), kind=_NVIDIA_GPU)
    if shutil.which(_HOOK) is not None:
        drivers["nvidia.runtime-hook"] = _Driver((_by_hook,))
    if drivers:
        ways = tuple(way for driver in drivers.values() for way in driver.ways)
        kind = next(iter(drivers.values())).kind
        drivers["nvidia"] = _Driver(ways, frozenset(("gpu", "nvidia", *_NVIDIA)), kind)
    amd: list[Way] = []
    kind = _AMD_GPU if registry.names(_AMD_GPU) else ""
    if kind:
        amd.append(_by_cdi(registry, kind))
    if shutil.which(_AMD_RUNTIME) is not None:
        amd.append(_by_runtime)
    if amd:
        drivers["amd"] = _Driver(tuple(amd), frozenset(("gpu", "amd")), kind)
    return drivers


def _edit(driver: _Driver, request: DeviceRequest, spec: Json) -> None:
    """Edit the spec in the first way that succeeds; a way that fails leaves no trace."""
    selected = driver.matching(request) or ()
    failures: list[WharfError] = []
    for way in driver.ways:
        edited = copy.deepcopy(spec)
        try:
            way(edited, request, selected)
        except WharfError as error:
            failures.append(error)
            continue
        for failure in failures:
            log.warning("--gpus: another way is used: %s", failure.message)
        spec.clear()
        spec.update(edited)
        return
    raise internal("\n".join(failure.message for failure in failures))


def _gpus(request: DeviceRequest) -> list[str]:
    """Return the requested GPUs: ids, or numbers from 0; none if the count is 0."""
    if request.device_ids:
        return list(request.device_ids)
    return ["all"] if request.count < 0 else [str(number) for number in range(request.count)]


def _by_cdi(registry: cdi.Registry, kind: str) -> Way:
    def edit(spec: Json, request: DeviceRequest, _selected: Sequence[str]) -> None:
        names = [name if "=" in name else f"{kind}={name}" for name in _gpus(request)]
        if names:
            inject_devices(registry, names, spec)

    return edit


def _by_hook(spec: Json, request: DeviceRequest, selected: Sequence[str]) -> None:
    gpus = _gpus(request)
    if not gpus:
        return
    env = spec["process"]["env"]
    env.append(f"NVIDIA_VISIBLE_DEVICES={','.join(gpus)}")
    if capabilities := [each for each in selected if each in _NVIDIA]:
        env.append(f"NVIDIA_DRIVER_CAPABILITIES={','.join(capabilities)}")
    entry = {
        "path": shutil.which(_HOOK),
        "args": [_HOOK, "prestart"],
        "env": [f"{k}={v}" for k, v in os.environ.items()],
    }
    spec.setdefault("hooks", {}).setdefault("prestart", []).append(entry)


def _by_runtime(spec: Json, request: DeviceRequest, _selected: Sequence[str]) -> None:
    spec["process"]["env"].append(f"AMD_VISIBLE_DEVICES={','.join(_gpus(request)) or 'void'}")
