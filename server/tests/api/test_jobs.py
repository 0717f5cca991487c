"""The end of a job socket, while a request of it still runs."""

import asyncio
from collections.abc import Awaitable, Iterator
from pathlib import Path

import httpx
import pytest

from engine.common.errors import WharfError
from server.tests.api import victim
from server.tests.daemon import Daemon


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with victim.lab(tmp_path) as daemon:
        yield daemon


def create(client: Daemon) -> Awaitable[httpx.Response]:
    body = {"Image": "busybox", "Cmd": ["top"], "HostConfig": {"NetworkMode": "none"}}
    return client.begin("POST", "/containers/create", json=body)


async def closing(daemon: Daemon, owner: str) -> None:
    """Wait until the socket of an owner closes."""
    assert daemon.services.jobs is not None
    while True:
        try:
            daemon.services.jobs.of(owner)
        except WharfError:
            return
        await asyncio.sleep(0)


async def creates_around_a_removal(alice: Daemon, id: str, path: str) -> tuple[int, int, int]:
    """The statuses of a create through a job socket that begins before its removal, of the removal, and of a create
    that begins meanwhile on an open connection."""
    ci = alice.through(path)
    early = asyncio.ensure_future(create(ci))
    await asyncio.sleep(0)
    removal = asyncio.ensure_future(alice.begin("DELETE", f"/wharf/v1/sockets/{id}"))
    await closing(alice, f"{victim.ALICE}:{id}")
    late = await create(ci)
    return (await early).status_code, (await removal).status_code, late.status_code


def test_creates_around_the_removal_of_a_socket_leave_nothing(daemon: Daemon) -> None:
    alice = daemon.as_uid(victim.ALICE)
    for _ in range(3):
        job = alice.post("/wharf/v1/sockets", {}).json()
        assert daemon.wait(creates_around_a_removal(alice, job["Id"], job["Path"])) == (201, 204, 403)
        assert daemon.get("/containers/json", all=1).json() == []
