"""``docker load``: names the images of an archive and unpacks them for this host."""

from collections.abc import AsyncIterator

from engine.api.types import ImageRecord, Platform
from engine.common.errors import Kind, WharfError
from server.images.archive.reader import Loaded, load
from server.images.context import ImageContext
from server.images.model import dangling_name
from server.images.rootfs import unpack_image
from server.registry.progress import Report
from server.registry.reference import parse


async def load_archive(
    context: ImageContext, body: AsyncIterator[bytes], report: Report, *, platform: Platform | None = None
) -> None:
    """Load every image of the archive; of a broken image, nothing."""
    # Remove the content for other platforms before the answer.
    async with context.engine.leases.acquire(sync=platform is not None):
        for loaded in await load(context.engine, body, platform=platform):
            await _one(context, loaded, report, platform)


async def _one(context: ImageContext, loaded: Loaded, report: Report, platform: Platform | None) -> None:
    digest = loaded.target.digest
    record = ImageRecord(loaded.name or dangling_name(digest), loaded.target)
    context.resolver.forget(digest)
    try:
        image = await context.resolver.resolve_record(record, platform)
    except WharfError as error:
        if error.kind is not Kind.NOT_FOUND:
            raise
    else:
        await unpack_image(context.engine, image)
    if loaded.name:
        old = await context.names.get(loaded.name)
        familiar = parse(loaded.name).familiar
        if await context.names.assign(record) and old is not None:
            text = f"The image {familiar} already exists, renaming the old one with ID {old.target.digest}"
            await report.stream(f"{text} to empty string\n")
        await report.stream(f"Loaded image: {familiar}\n")
    else:
        if not await context.names.find_by_digest(digest):
            await context.names.put(record)
        await report.stream(f"Loaded image ID: {digest}\n")
    await context.publish_with_labels("load", digest, digest)
