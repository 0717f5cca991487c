"""A manager without space on its disk, and etcd's alarm NOSPACE: the swarm goes on as far as it can, and is whole again
without an administrator's help when there is space."""

from __future__ import annotations

import os
import time

import grpc
import pytest

from compat_tests.support.hosts.host import Host
from compat_tests.support.hosts.swarm import Swarm, agree, count, nodes, placed, settles

#: Bytes of a config before it is written as hexadecimal digits.
_LARGE = 450_000
_FULL = "the swarm's store is full: nothing can be added or changed until services, secrets or configs are removed"


@pytest.fixture(autouse=True)
def wharf_only(kind: str) -> None:
    if kind == "dockerd":
        pytest.skip("the store and its child process are Wharf's")


def _create(host: Host, name: str) -> str:
    """Create a config; returns the error."""
    done = host.docker("config", "create", name, "-", input=os.urandom(_LARGE).hex(), check=False)
    return "" if done.status == 0 else done.output


def _replicas(swarm: Swarm, wanted: int) -> bool:
    states = [state for _, state in placed(swarm.first, "web")]
    return states == ["Running"] * wanted and count(swarm.hosts, "web") == wanted


def test_a_manager_whose_disk_is_full_returns_when_there_is_space(swarm: Swarm) -> None:
    first, full = swarm.first, next(host for host in swarm.managers if host.has_disk)
    first.docker("service", "create", "-d", "--name", "web", "--replicas", "3", "--init", "busybox", "sleep", "1000")
    assert settles(lambda: _replicas(swarm, 3))
    (before,) = full.find("etcd")
    with full.full_disk():
        # Its etcd ends when it can't write its log: within some requests, because the log has reserved space.
        ended = time.monotonic() + 30
        while before.pid in {process.pid for process in full.find("etcd")}:
            assert time.monotonic() < ended, "etcd goes on"
            assert _create(first, f"large-{time.monotonic_ns()}") == ""
        assert settles(lambda: nodes(first)[full.name]["ManagerStatus"] == "Unreachable")
        first.docker("service", "update", "-d", "--replicas", "5", "web")
        assert settles(lambda: [state for _, state in placed(first, "web")] == ["Running"] * 5)
        assert "has ended unexpectedly" in full.daemon.tail(100_000)
        assert full.daemon.running
    assert settles(lambda: nodes(first)[full.name]["ManagerStatus"] == "Reachable", seconds=60)
    assert not list((full.data / "swarm" / "etcd" / "member" / "wal").glob("*.broken"))
    assert settles(lambda: all(agree(swarm.managers, noun) for noun in ("node", "service", "config")))
    assert settles(lambda: _replicas(swarm, 5))
    assert settles(lambda: _create(full, "after") == "")


def test_the_alarm_nospace_ends_when_the_store_has_space(swarm: Swarm) -> None:
    first, second, third = swarm.managers
    first.docker("service", "create", "-d", "--name", "web", "--replicas", "3", "--init", "busybox", "sleep", "1000")
    assert settles(lambda: _replicas(swarm, 3))

    def refused() -> bool:
        """The member's manager may end the alarm at once: it looks every 15 seconds."""
        raise_alarm(second)
        return all(_FULL in _create(host, f"refused-{time.monotonic_ns()}") for host in (first, third))

    assert settles(refused)
    assert _replicas(swarm, 3)
    assert settles(lambda: _create(third, "accepted") == "", seconds=60)
    assert "alarm NOSPACE is over" in second.daemon.tail(100_000)
    first.docker("service", "update", "-d", "--replicas", "4", "web")
    assert settles(lambda: _replicas(swarm, 4))


def raise_alarm(host: Host) -> None:
    """Raise the alarm NOSPACE for the host's member of etcd, as the member does whose database has reached its quota,
    which needs gigabytes."""
    socket = host.machine.path(host.resources.root) / "run" / "swarm" / "client.sock:0"
    with grpc.insecure_channel(f"unix:{socket}") as channel:
        # rpc.proto of etcd 3.5: the member's id is the second field of the header, which is the first field of the
        # answer. AlarmRequest: action ACTIVATE, the id, alarm NOSPACE.
        status = _call(channel, "Status", b"")
        header = status[2 : 2 + status[1]]
        member = header[_varint(header, 1) :]
        member = member[1 : _varint(member, 1)]
        _call(channel, "Alarm", b"\x08\x01\x10" + member + b"\x18\x01")


def _call(channel: grpc.Channel, method: str, request: bytes) -> bytes:
    invoke = channel.unary_unary(
        f"/etcdserverpb.Maintenance/{method}", request_serializer=bytes, response_deserializer=bytes
    )
    answer: bytes = invoke(request, timeout=10)
    return answer


def _varint(data: bytes, start: int) -> int:
    """The position after a number."""
    while data[start] & 0x80:
        start += 1
    return start + 1
