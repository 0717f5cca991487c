"""``--gpus`` and ``--device vendor.com/class=name``: device requests, resolved at start.

The driver ``cdi`` takes names of CDI devices. The driver ``nvidia`` (also selected by the capability ``gpu``) uses the
hook of the NVIDIA container toolkit, which reads the GPUs from environment variables; if the hook isn't installed, the
CDI devices ``nvidia.com/gpu``.
"""

import asyncio
import os
import shutil
from collections.abc import Sequence
from typing import Any

from api_models.container import HostConfig
from api_models.resources import DeviceRequest
from engine.common.errors import WharfError, internal, invalid
from server.containers.context import ContainerContext
from server.containers.spec import cdi

_HOOK = "nvidia-container-runtime-hook"
_GPUS = "nvidia.com/gpu"
#: The values of NVIDIA_DRIVER_CAPABILITIES. Each is also a capability of a device request.
_NVIDIA = ("compute", "compat32", "graphics", "utility", "video", "display")
_KNOWN = frozenset(("gpu", "nvidia", *_NVIDIA))


async def inject(context: ContainerContext, host: HostConfig, spec: dict[str, Any]) -> None:
    """Adds the requested devices to the spec.

    :raises WharfError: INTERNAL: no driver supports the request, or a device doesn't exist; INVALID_ARGUMENT: both a
        count and ids are set.
    """
    for request in host.device_requests or ():
        await asyncio.to_thread(_inject, context.settings.cdi_spec_dirs, request, spec)


def _inject(directories: tuple[str, ...], request: DeviceRequest, spec: dict[str, Any]) -> None:
    if request.driver == "cdi":
        if not directories:
            raise no_driver(request)
        if request.count:
            raise internal("unexpected count in CDI device request")
        if request.options:
            raise internal("unexpected options in CDI device request")
        _cdi(cdi.load(directories), request.device_ids or (), spec)
        return
    selected = _capabilities(request)
    if request.driver not in ("", "nvidia") or selected is None:
        raise no_driver(request)
    hook = shutil.which(_HOOK)
    registry = cdi.load(directories) if hook is None else cdi.Registry()
    if hook is None and not registry.names(_GPUS):
        raise no_driver(request)
    if request.count and request.device_ids:
        raise invalid("cannot set both Count and DeviceIDs on device request")
    if hook is None:
        _cdi(registry, [name if "=" in name else f"{_GPUS}={name}" for name in _gpus(request)], spec)
        return
    env = spec["process"]["env"]
    env.append(f"NVIDIA_VISIBLE_DEVICES={','.join(_gpus(request)) or 'void'}")
    if capabilities := [each for each in selected if each in _NVIDIA]:
        env.append(f"NVIDIA_DRIVER_CAPABILITIES={','.join(capabilities)}")
    entry = {"path": hook, "args": [_HOOK, "prestart"], "env": [f"{k}={v}" for k, v in os.environ.items()]}
    spec.setdefault("hooks", {}).setdefault("prestart", []).append(entry)


def _gpus(request: DeviceRequest) -> list[str]:
    if request.device_ids:
        return list(request.device_ids)
    return ["all"] if request.count < 0 else [str(number) for number in range(request.count)]


def _capabilities(request: DeviceRequest) -> list[str] | None:
    """The first alternative of the request of which the driver has all capabilities; None: there is none."""
    if request.driver and not request.capabilities:
        return []
    for alternative in request.capabilities or ():
        if _KNOWN.issuperset(alternative):
            return list(alternative)
    return None


def _cdi(registry: cdi.Registry, names: Sequence[str], spec: dict[str, Any]) -> None:
    try:
        cdi.inject(spec, names, registry)
    except cdi.CdiError as error:
        problems = "".join(f"; {file}: {reason}" for file, reason in registry.problems.items())
        raise internal(f"CDI device injection failed: {error}{problems}") from None


def no_driver(request: DeviceRequest) -> WharfError:
    """dockerd's error for a device request that no driver supports."""
    alternatives = " ".join(f"[{' '.join(each)}]" for each in request.capabilities or ())
    return internal(f'could not select device driver "{request.driver}" with capabilities: [{alternatives}]')


def discovered(directories: tuple[str, ...]) -> list[dict[str, str]]:
    """``docker info``'s ``DiscoveredDevices``. Blocks."""
    return [{"Source": "cdi", "ID": name} for name in cdi.load(directories).names()]
