"""Connections of a task that is to stop, while its service goes on with other tasks.

The task gets no new connections: the rules of this node are written before the agent changes its tasks, and those of
other nodes later (``dispatcher.propagation``; SwarmKit's agents wait for nothing). Requests that are under way get time
to be answered, since many programs end at once at their stop signal.
"""

import asyncio
import contextlib
import socket
import sys
import time
from collections.abc import Callable, Collection
from pathlib import Path

from server.swarm.agent.dispatcher import Assignments, propagation
from server.swarm.model.objects import Task

#: The most seconds that connections get; less, if the task's stop grace period is shorter.
LIMIT = 5.0
#: The kernel reports no end of a connection to others than its owner.
_PAUSE = 0.05

# The states of a socket, from include/net/tcp_states.h: SYN_RECV, ESTABLISHED, FIN_WAIT1, CLOSE_WAIT and LAST_ACK, in
# which the server has received or sent less than all; and LISTEN.
_BUSY = frozenset(("03", "01", "04", "08", "09"))
_LISTEN = "0A"


async def drain(task: Task, process: Callable[[], int], current: Callable[[], Assignments], limit: float) -> None:
    """Returns when the task has no connections to the addresses by which its service is reached, or after ``limit``
    seconds. ``process``: the pid of its container; 0: it has exited. ``current``: the newest assignments; without the
    service, its connections end at once."""
    if not _addresses(task, current()):
        return
    end = time.monotonic() + min(limit, LIMIT)
    if any(_spans_nodes(current(), attachment.network_id) for attachment in task.attachments):
        await asyncio.sleep(min(limit, propagation(current().nodes)))
    while time.monotonic() < end and (pid := process()):
        if not await asyncio.to_thread(busy, pid, _addresses(task, current())):
            return
        await asyncio.sleep(_PAUSE)


def _spans_nodes(assignments: Assignments, network_id: str) -> bool:
    network = assignments.networks.get(network_id)
    return network is not None and any(peer.node != network.local for peer in assignments.peers.get(network_id, ()))


def _addresses(task: Task, assignments: Assignments) -> set[str]:
    """The task's addresses on the networks that its service is on."""
    return {
        address
        for attachment in task.attachments
        if (address := task.address(attachment.network_id))
        and any(each.service_id == task.service_id for each in assignments.services.get(attachment.network_id, ()))
    }


def busy(pid: int, addresses: Collection[str]) -> bool:
    """Whether a server in the network namespace of this process has connections at one of these IPv4 addresses."""
    # The kernel prints the four bytes as a number in the order of the machine.
    local = {
        f"{int.from_bytes(socket.inet_aton(address), sys.byteorder):08X}" for address in addresses if "." in address
    }
    listening, connected = set(), set()
    for table in ("tcp", "tcp6"):
        for line in _lines(Path(f"/proc/{pid}/net/{table}")):
            fields = line.split()
            # An IPv4 address in the table of IPv6 has a prefix of 12 bytes.
            address, _, port = fields[1].partition(":")
            if fields[3] == _LISTEN:
                listening.add(port)
            elif fields[3] in _BUSY and address[-8:] in local:
                connected.add(port)
    # Others are connections of a client.
    return not listening.isdisjoint(connected)


def _lines(table: Path) -> list[str]:
    with contextlib.suppress(OSError):
        return table.read_text().splitlines()[1:]
    return []
