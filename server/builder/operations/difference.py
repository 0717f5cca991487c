"""Creates a layer of the changes that a process made in its root."""

import asyncio
import contextlib
import logging
import os
import shutil
from collections.abc import Awaitable, Sequence
from dataclasses import replace

from engine.api.client import Engine
from engine.api.labels import UNCOMPRESSED
from engine.api.types import Descriptor, Mount
from engine.common.errors import Kind, WharfError

log = logging.getLogger("wharf.build")

GZIP_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


async def difference(engine: Engine, id: str, parent: str, rootfs: tuple[Mount, ...]) -> tuple[Descriptor, str]:
    """Return the descriptor and the diff id of the changes. ``parent``: the chain id that the root was made from."""
    lower = lower_mounts(rootfs)
    view = ""
    if lower is None and parent:
        view = f"{id}-lower"
        lower = await engine.snapshots.view(view, parent)
    try:
        descriptor = await engine.diff.diff(lower or (), rootfs, media_type=GZIP_LAYER, ref=id)
    finally:
        if view:
            await asyncio.shield(clean_up(engine.snapshots.remove(view)))
    info = await engine.content.info(descriptor.digest)
    return descriptor, info.labels[UNCOMPRESSED]


def lower_mounts(rootfs: Sequence[Mount]) -> tuple[Mount, ...] | None:
    """Return a read-only mount of a writable overlay's lower layers, as a view of its parent is; ``None`` for other
    types."""
    if len(rootfs) != 1 or rootfs[0].type != "overlay":
        return None
    options = [option for option in rootfs[0].options if not option.startswith(("upperdir=", "workdir="))]
    directories = next((option.removeprefix("lowerdir=") for option in options if option.startswith("lowerdir=")), "")
    if not directories:
        return None
    if ":" not in directories:
        return (Mount(type="bind", source=directories, options=("ro", "rbind")),)
    return (replace(rootfs[0], options=tuple(options)),)


async def discard(engine: Engine, id: str, rootfs: Sequence[Mount]) -> None:
    """Remove the snapshot of a failed step. On a full disk the removal itself can't be recorded: then delete the files
    of the upper directory first."""
    try:
        await engine.snapshots.remove(id)
    except WharfError as error:
        if error.kind is Kind.NOT_FOUND:
            return
        options = [option for mount in rootfs for option in mount.options]
        upper = next((option.removeprefix("upperdir=") for option in options if option.startswith("upperdir=")), "")
        if upper:
            await asyncio.to_thread(_empty, upper)
        await clean_up(engine.snapshots.remove(id))


def _empty(directory: str) -> None:
    for entry in os.scandir(directory):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                os.unlink(entry.path)


async def clean_up(work: Awaitable[None]) -> None:
    """Await clean-up after a failure: ignore NOT_FOUND, and log other errors so that they don't hide the failure."""
    try:
        await work
    except WharfError as error:
        if error.kind is not Kind.NOT_FOUND:
            log.warning("clean-up after a failed step: %s", error.message)
