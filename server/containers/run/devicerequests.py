"""``--gpus`` and ``--device vendor.com/class=name``: device requests, resolved at start.

The driver ``cdi`` takes names of CDI devices. All others are drivers of GPUs (``gpus``). On an engine with a policy the
allocator of GPUs names the devices, before the start.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from api_models.resources import DeviceRequest
from engine.common.errors import invalid
from server.containers.context import ContainerContext
from server.containers.model import Container
from server.containers.run import gpus
from server.containers.spec import cdi


async def inject(context: ContainerContext, container: Container, spec: dict[str, Any]) -> None:
    """Adds the requested devices to the spec.

    :raises WharfError: INTERNAL: no driver supports the request, or a device doesn't exist; INVALID_ARGUMENT: both a
        count and ids are set, or a CDI device has a count or options.
    """
    requests = container.host_config.device_requests or ()
    if context.gpus is not None and requests:
        await asyncio.to_thread(
            _inject_names, context.config.cdi_spec_dirs, await context.gpus.devices(container), spec
        )
        return
    for request in requests:
        await asyncio.to_thread(_inject, context.config.cdi_spec_dirs, request, spec)


def _inject(directories: tuple[str, ...], request: DeviceRequest, spec: dict[str, Any]) -> None:
    if request.driver != "cdi":
        gpus.inject(directories, request, spec)
        return
    if not directories:
        raise gpus.no_driver(request)
    if request.count:
        raise invalid("unexpected count in CDI device request")
    if request.options:
        raise invalid("unexpected options in CDI device request")
    gpus.inject_devices(cdi.load(directories), request.device_ids or (), spec)


def _inject_names(directories: tuple[str, ...], names: Sequence[str], spec: dict[str, Any]) -> None:
    gpus.inject_devices(cdi.load(directories), names, spec)


def discovered(directories: tuple[str, ...]) -> list[dict[str, str]]:
    """``docker info``'s ``DiscoveredDevices``. Blocks."""
    return [{"Source": "cdi", "ID": name} for name in cdi.load(directories).names()]
