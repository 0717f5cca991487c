"""What a user may have of the content, which is stored once for all owners."""

from server.images.context import ImageContext


async def digests_of(context: ImageContext) -> set[str]:
    """The digests of all documents and blobs below the images that exist for the owner."""
    trees = await context.trees.get_all(record.target for record in await context.names.all())
    return {digest for tree in trees.values() for digest in tree.blobs}
