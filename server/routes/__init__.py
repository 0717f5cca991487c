"""The endpoints of the Engine API: one module per group, each with a table ``routes``."""

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
    gpus,
    images,
    job_sockets,
    metrics,
    networks,
    registry,
    swarm,
    system,
    timelines,
    ui,
    unsupported,
    volumes,
    wharf,
)


def all_routes() -> Iterator[ApiRoute]:
    """Yield every endpoint, in the order of matching."""
    for module in (
        system,
        metrics,
        events,
        checkpoints,  # before containers, whose remove route matches names with slashes
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
        wharf,
        gpus,
        job_sockets,
        timelines,
        ui,
        swarm,
        unsupported,
    ):
        yield from module.routes
