"""The endpoints of the Engine API: one module per group, each with its table ``routes``."""

from collections.abc import Iterator

from server.http.routing import ApiRoute
from server.routes import (
    build,
    buildkit,
    checkpoints,
    container_streams,
    containers,
    events,
    exec,
    files,
    images,
    networks,
    registry,
    system,
    unsupported,
    volumes,
)


def all_routes() -> Iterator[ApiRoute]:
    """Every endpoint, in the order in which they are looked at."""
    for module in (
        system,
        events,
        checkpoints,  # before containers: the name of one that is removed may have slashes
        containers,
        container_streams,
        exec,
        files,
        registry,
        images,
        networks,
        volumes,
        build,
        buildkit,
        unsupported,
    ):
        yield from module.routes
