"""What works on running containers, made from the containers' context (called by the composition root)."""

from dataclasses import dataclass

from server.containers.context import ContainerContext
from server.containers.exec.health import HealthChecks
from server.containers.exec.service import Exec
from server.containers.inspect.stats import Stats
from server.containers.logs.follow import Logs
from server.containers.stdio.attach import Attachments


@dataclass(frozen=True, slots=True)
class Running:
    """Each is an attribute of the same name of ``Services``. Made before the containers are loaded, because they
    register hooks; ``open`` after ``Containers.open``; ``close`` before it."""

    exec: Exec
    logs: Logs
    attachments: Attachments
    stats: Stats
    health: HealthChecks

    async def open(self) -> None:
        """Takes up what was going on when the last daemon ended."""
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
