"""The services for running containers, made from the containers' context (called by the composition root)."""

from dataclasses import dataclass

from server.containers.context import ContainerContext
from server.containers.exec.health import HealthChecks
from server.containers.exec.service import Exec
from server.containers.inspect.stats import Stats
from server.containers.logs.follow import Logs
from server.containers.stdio.attach import Attachments


@dataclass(frozen=True, slots=True)
class Running:
    """Exec, logs, attach, stats and health checks. They register hooks, so make them before ``Containers.load``; call
    ``open`` after ``Containers.open`` and ``close`` before ``Containers.close``."""

    exec: Exec
    logs: Logs
    attachments: Attachments
    stats: Stats
    health: HealthChecks

    async def open(self) -> None:
        """Continues the execs and health checks that the last daemon began."""
        await self.exec.resume()
        self.health.open()

    async def close(self) -> None:
        await self.health.close()
        await self.exec.close()
        await self.stats.close()
        self.attachments.close()
        await self.logs.close()


def make_running(context: ContainerContext) -> Running:
    logs, execs = Logs(context), Exec(context)
    return Running(
        exec=execs,
        logs=logs,
        attachments=Attachments(context, logs),
        stats=Stats(context),
        health=HealthChecks(context, execs),
    )
