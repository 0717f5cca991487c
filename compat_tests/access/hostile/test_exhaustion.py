"""A user who makes as many objects, connections and requests as possible: other users' requests are still answered."""

from __future__ import annotations

import contextlib
import resource
import socket
import time
from collections.abc import Iterator

import pytest

from compat_tests.access.hostile.conftest import Victim
from compat_tests.support.patience import FACTOR
from compat_tests.support.polling import until
from compat_tests.support.users import Lab, User

CONTAINERS = 1000
CONNECTIONS = 3000
#: How many connections a user may have.
LIMIT = 1024
STREAMS = 400
#: Seconds within which a list is answered to alice, whatever bob does.
SOON = 10.0


@pytest.fixture(scope="module")
def bob(hostile_lab: Lab, victim: Victim) -> Iterator[User]:
    user = hostile_lab["bob"]
    yield user
    user.remove_all()


@pytest.fixture(autouse=True)
def _many_descriptors() -> Iterator[None]:
    """The tests need more than a shell allows by default."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def check_answers(user: User) -> None:
    """Lists and inspects are answered soon, with the own container only."""
    for _ in range(5):
        began = time.monotonic()
        assert [row["Names"] for row in user.api.get("/containers/json", all=1).json()] == [["/vic-web"]]
        assert user.api.get("/containers/vic-web/json").status == 200
        assert time.monotonic() - began < SOON * FACTOR


def test_many_containers(victim: Victim, bob: User) -> None:
    with contextlib.closing(bob.api.connection()) as connection:
        for number in range(CONTAINERS):
            query, data = {"name": f"vic-web-{number}"}, {"Image": "busybox", "Labels": {"number": str(number)}}
            created = bob.api.request("POST", "/containers/create", query=query, data=data, on=connection)
            assert created.status == 201
        try:
            assert bob.api.get("/info").json()["Containers"] == CONTAINERS
            assert victim.alice.api.get("/info").json()["Containers"] == 1
            check_answers(victim.alice)
            # A prefix that is ambiguous among bob's is not among alice's.
            for key in (victim.container[:1], victim.container[:2]):
                assert victim.alice.api.get(f"/containers/{key}/json").json()["Id"] == victim.container
        finally:
            for row in bob.api.get("/containers/json", all=1).json():
                assert bob.api.request("DELETE", f"/containers/{row['Id']}", on=connection).status == 204


@contextlib.contextmanager
def connections(user: User, count: int) -> Iterator[list[socket.socket]]:
    """Open connections of a user, which the engine may close."""
    opened: list[socket.socket] = []
    try:
        with user.credentials.effective():
            for _ in range(count):
                sock = socket.socket(socket.AF_UNIX)
                opened.append(sock)
                sock.settimeout(10)
                sock.connect(str(user.socket))
        yield opened
    finally:
        for sock in opened:
            sock.close()


def test_many_connections(victim: Victim, bob: User) -> None:
    """Idle ones, half a request, and more than a role allows, of which the last are refused."""
    with connections(bob, CONNECTIONS) as opened:
        for sock in opened[: CONNECTIONS // 2]:
            with contextlib.suppress(BrokenPipeError):  # it is one of those that are closed
                sock.sendall(b"GET /containers/json HTTP/1.1\r\nHost: docker\r\nX-Long: ")
        check_answers(victim.alice)
        # New ones of bob are answered with 429, or closed while many of those wait for their request.
        with contextlib.suppress(OSError):
            assert bob.api.get("/containers/json").status == 429
    assert until(lambda: bob.api.get("/containers/json").status == 200)


def test_a_connection_above_the_limit_is_answered(victim: Victim, bob: User) -> None:
    """The limit is that of a role that names none."""
    with connections(bob, LIMIT) as opened:
        opened[-1].sendall(b"GET /_ping HTTP/1.1\r\nHost: docker\r\n\r\n")
        assert opened[-1].recv(12) == b"HTTP/1.1 200"
        sentence = f"the policy allows you {LIMIT} connections, and as many are open"
        assert bob.api.get("/containers/json").error == (429, sentence)
        assert sentence in bob.docker("ps", check=False).stderr
        check_answers(victim.alice)
    assert until(lambda: bob.api.get("/containers/json").status == 200)


def test_many_streams(victim: Victim, bob: User) -> None:
    """Subscribers of events who read nothing, waits, followed logs and statistics, while events come."""
    id = bob.docker("run", "-d", "--name", "busy", "busybox", "sh", "-c", "while :; do echo x; sleep 0.1; done")
    paths = ("GET /events", "POST /containers/busy/wait", "GET /containers/busy/stats")
    try:
        with connections(bob, STREAMS) as opened:
            for number, sock in enumerate(opened):
                sock.sendall(f"{paths[number % len(paths)]} HTTP/1.1\r\nHost: docker\r\n\r\n".encode())
            for _ in range(20):
                bob.api.post("/volumes/create", {"Name": "noise"})
                bob.api.delete("/volumes/noise")
            check_answers(victim.alice)
            assert victim.alice.api.get("/info").json()["NEventsListener"] == 0
        assert until(lambda: bob.api.get("/info").json()["NEventsListener"] == 0)
    finally:
        bob.docker("rm", "-f", id.stdout.strip())


def test_many_requests_on_each_connection(victim: Victim, bob: User) -> None:
    with connections(bob, 50) as opened:
        for sock in opened:
            sock.sendall(b"GET /images/json HTTP/1.1\r\nHost: docker\r\n\r\n" * 50)
        check_answers(victim.alice)


def test_large_bodies_and_heads(victim: Victim, bob: User) -> None:
    with connections(bob, 30) as opened:
        for sock in opened:
            with contextlib.suppress(OSError):
                sock.sendall(b"POST /containers/create HTTP/1.1\r\nHost: docker\r\nContent-Length: 100000000\r\n\r\n")
                sock.setblocking(False)
                sock.send(b"{" * (1 << 20))
        check_answers(victim.alice)


def test_many_names_and_labels_in_one_object(victim: Victim, bob: User) -> None:
    """bob's container with large labels does not delay alice's lists, and is not in them."""
    labels = {f"label-{number}": "x" * 1000 for number in range(1000)}
    answer = bob.api.post("/containers/create", {"Image": "busybox", "Labels": labels}, name="wide")
    try:
        check_answers(victim.alice)
        assert b"label-1" not in victim.alice.api.get("/containers/json", all=1).body
    finally:
        if answer.status == 201:
            bob.docker("rm", "wide")
