"""The caller of a connection, with what the kernel tells of the process at its other end."""

import asyncio
import fcntl
import os
import resource
import socket
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from engine.common.errors import WharfError
from server.access.caller import Caller
from server.access.identity import Account, Identity
from server.access.policy import Policy

# Above what select(2) takes.
_HIGH = 1500


@dataclass(frozen=True, slots=True)
class Peer:
    """A connection whose client has this pid; the descriptors of processes have high numbers."""

    pid: int
    family: int = socket.AF_UNIX

    def getsockopt(self, level: int, option: int, size: int = 0) -> bytes | int:
        if size:
            return struct.pack("iII", self.pid, 10001, 10001) if option == socket.SO_PEERCRED else b""
        low = os.pidfd_open(self.pid)
        try:
            return fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, _HIGH)
        finally:
            os.close(low)


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def _caller(pid: int) -> Caller:
    policy = Policy({"users": {"alice": "member"}, "roles": {"member": {}}})
    identity = Identity(policy, lambda pid: None, by_uid=lambda uid: Account("alice", uid))
    return asyncio.run(identity.caller(Peer(pid), None))


@pytest.mark.usefixtures("many_descriptors")
def test_callers_while_many_connections_are_open() -> None:
    assert _caller(os.getpid()).owner == "alice"
    with subprocess.Popen(["true"]) as ended:
        os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
        with pytest.raises(WharfError, match="a client whose process or container has ended"):
            _caller(ended.pid)
