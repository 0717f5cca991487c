"""What works on running containers, made from their room (called by the composition root)."""

from dataclasses import dataclass

from server.services.containers.attach import Attachments
from server.services.containers.logs import Logs
from server.services.containers.room import Room
from server.services.exec.service import Exec


@dataclass(frozen=True, slots=True)
class Running:
    """Each is an attribute of the same name of ``Services``. Made before the containers are loaded, because they
    register hooks; ``open`` after ``Containers.open``; ``close`` before it."""

    exec: Exec
    logs: Logs
    attachments: Attachments

    async def open(self) -> None:
        """Takes up what was going on when the last daemon ended."""

    async def close(self) -> None:
        self.attachments.close()
        await self.logs.close()


def make_running(room: Room) -> Running:
    logs = Logs(room)
    return Running(exec=Exec(room), logs=logs, attachments=Attachments(room, logs))
