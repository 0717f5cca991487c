"""The request of a join that goes on after its answer: a file for the next daemon. Beside the directory of the swarm,
because a join that ends leaves no directory."""

import asyncio
import logging
from pathlib import Path

from api_models.swarm.cluster import JoinRequest
from server.swarm.files import read_record, write_record
from server.swarm.host import Host
from server.swarm.joining import join
from server.swarm.manager import Manager
from server.swarm.requests import Requests
from server.swarm.worker import Worker

log = logging.getLogger(__name__)


async def remember(file: Path, request: JoinRequest) -> None:
    """A failure is logged: the join ends with this daemon then."""
    try:
        await asyncio.to_thread(write_record, file, request)
    except OSError as error:
        log.warning("the next daemon will not continue the join: %s", error)


async def join_again(host: Host, requests: Requests, file: Path) -> Manager | Worker:
    """As ``join``. :raises ValueError: the file is damaged."""
    request = await asyncio.to_thread(read_record, file, JoinRequest)
    return await join(host, requests, request, resumed=True)
