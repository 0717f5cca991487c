"""The measurements, in the order of the table. `memory-fresh` comes first: nothing may have run on the engines."""

from __future__ import annotations

from compat_tests.bench import (
    builds,
    cli,
    everyday,
    files,
    images,
    lifecycle,
    lists,
    memory,
    networks,
    peaks,
    startup,
    streams,
    swarm,
    users,
)
from compat_tests.bench.measure import Measurement

ROWS: dict[str, Measurement] = {
    "memory-fresh": memory.fresh,
    "startup": startup.startup,
    "run": lifecycle.run,
    "exec": lifecycle.exec_true,
    "lifecycle": lifecycle.lifecycle,
    "burst": lifecycle.burst,
    "at-once": lifecycle.at_once,
    "many": lists.many,
    "crowd": lists.crowd,
    "overviews": cli.overviews,
    "users-run": users.run,
    "users-lists": users.lists,
    "memory-each": memory.each,
    "health": everyday.health,
    "attach": streams.attach,
    "logs": streams.logs,
    "networks": networks.created,
    "ports": networks.ports,
    "traffic": networks.traffic,
    "services": swarm.services,
    "failover": swarm.failover,
    "images": images.transfers,
    "images-made": images.made,
    "files": files.copies,
    "peaks": peaks.peaks,
    "build-steps": builds.steps,
    "build-large": builds.large,
    "build-stages": builds.stages,
    "memory-used": memory.used,
}
