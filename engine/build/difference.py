"""What a process changed in its root, as a layer in the content store."""

import asyncio
import logging
from collections.abc import Awaitable, Sequence
from dataclasses import replace

from engine.api.client import Engine
from engine.api.types import Descriptor, Mount
from engine.errors import Kind, WharfError

log = logging.getLogger("wharf.build")

GZIP_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


async def difference(engine: Engine, id: str, parent: str, rootfs: tuple[Mount, ...]) -> tuple[Descriptor, str]:
    """The descriptor and the diff id. ``parent`` is the chain that the root was made from."""
    lower = below(rootfs)
    view = ""
    if lower is None and parent:
        view = f"{id}-lower"
        lower = await engine.snapshots.view(view, parent)
    try:
        descriptor = await engine.diff.diff(lower or (), rootfs, media_type=GZIP_LAYER, ref=id)
    finally:
        if view:
            await asyncio.shield(quietly(engine.snapshots.remove(view)))
    info = await engine.content.info(descriptor.digest)
    return descriptor, info.labels["containerd.io/uncompressed"]


def below(rootfs: Sequence[Mount]) -> tuple[Mount, ...] | None:
    """What a writable overlay stands on, read-only, as a view of its parent would be; ``None`` for another kind."""
    if len(rootfs) != 1 or rootfs[0].type != "overlay":
        return None
    options = [option for option in rootfs[0].options if not option.startswith(("upperdir=", "workdir="))]
    directories = next((option.removeprefix("lowerdir=") for option in options if option.startswith("lowerdir=")), "")
    if not directories:
        return None
    if ":" not in directories:
        return (Mount(type="bind", source=directories, options=("ro", "rbind")),)
    return (replace(rootfs[0], options=tuple(options)),)


async def quietly(work: Awaitable[None]) -> None:
    """Clean-up after a failure: what is gone already is fine, and a second failure must not hide the first."""
    try:
        await work
    except WharfError as error:
        if error.kind is not Kind.NOT_FOUND:
            log.warning("clean-up after a failed step: %s", error.message)
