"""``docker load``: names the images of an archive and unpacks them for this host."""

from collections.abc import AsyncIterator, Sequence
from functools import partial

from engine.api.types import ImageRecord, Platform
from engine.common.errors import Kind, WharfError, not_found
from server.images.archive.reader import Loaded, load
from server.images.context import ImageContext
from server.images.model import Image, dangling_name
from server.images.rootfs import unpack_image
from server.registry import oci
from server.registry.progress import Report
from server.registry.reference import parse


async def load_archive(
    context: ImageContext,
    body: AsyncIterator[bytes],
    report: Report,
    *,
    platforms: Sequence[Platform] = (),
    quiet: bool = True,
) -> None:
    """Load every image of the archive; of a broken image, nothing. ``platforms``: load nothing else of each image.
    ``quiet``: report no progress of the layers.

    :raises WharfError: INVALID_ARGUMENT for a broken archive; NOT_FOUND if an image lacks one of the platforms.
    """
    # Remove the content for other platforms before the answer.
    async with context.engine.leases.acquire(sync=bool(platforms)):
        progress = None if quiet else partial(report.bar, "Loading layer")
        own = await context.own_digests()
        found = await load(context.engine, body, platforms=platforms, own=own, progress=progress)
        # Look for the platforms of all images before the first gets its name.
        images = [await _images(context, loaded, platforms) for loaded in found]
        for loaded, wanted in zip(found, images, strict=True):
            await _one(context, loaded, report, wanted)
    if platforms:
        for loaded in found:
            context.resolver.forget(loaded.target.digest)  # the documents of other platforms are gone


async def _images(context: ImageContext, loaded: Loaded, platforms: Sequence[Platform]) -> list[Image]:
    """Return the images to unpack: those of the platforms, or else that which runs on this host."""
    context.resolver.forget(loaded.target.digest)
    images: list[Image] = []
    for wanted in platforms or (None,):
        try:
            image = await context.resolver.resolve_record(_record(loaded), wanted)
            if wanted is not None or oci.rank(context.resolver.host, image.platform) is not None:
                images.append(image)
        except WharfError as error:
            if error.kind is not Kind.NOT_FOUND:
                raise
            if wanted is not None:
                name = parse(loaded.name).familiar if loaded.name else loaded.target.digest
                raise not_found(
                    f"image {name} doesn't provide the requested platform ([{oci.format_platform(wanted)}])"
                ) from None
    return images


def _record(loaded: Loaded) -> ImageRecord:
    return ImageRecord(loaded.name or dangling_name(loaded.target.digest), loaded.target)


async def _one(context: ImageContext, loaded: Loaded, report: Report, images: Sequence[Image]) -> None:
    digest = loaded.target.digest
    record = _record(loaded)
    for image in images:
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
