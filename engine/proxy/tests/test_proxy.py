"""The conditions under which the proxy exits."""

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.proxy import proxy
from engine.proxy.forward import Listen
from engine.proxy.proxy import Proxy
from engine.proxy.reactor import Reactor


@pytest.fixture
def serving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Reactor, Proxy, Path]]:
    """A proxy with a bound port that checks every few milliseconds whether it is needed, and is stopped after a
    second."""
    monkeypatch.setattr(proxy, "_IDLE", 0.01)
    path = tmp_path / "proxy.sock"
    reactor = Reactor()
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as listener:
        listener.bind(str(path))
        listener.listen()
        made = Proxy(reactor, listener)
        made.publications.publish("owner", [Listen("tcp", "127.0.0.1", 0, "127.0.0.1", 1)])
        yield reactor, made, path
        made.publications.release("owner")


def ends(reactor: Reactor) -> bool:
    """Whether it exits before the timeout."""
    late = []

    def give_up() -> None:
        late.append(True)
        reactor.stop()

    reactor.later(1, give_up)
    reactor.run()
    return not late


def test_it_runs_while_its_socket_exists(serving: tuple[Reactor, Proxy, Path]) -> None:
    reactor, made, _ = serving
    assert not ends(reactor)
    assert made.reachable()


def test_it_exits_when_its_socket_is_unlinked(serving: tuple[Reactor, Proxy, Path]) -> None:
    reactor, made, path = serving
    os.unlink(path)
    assert ends(reactor)
    assert not made.reachable()


def test_it_exits_when_another_socket_replaces_its_own(serving: tuple[Reactor, Proxy, Path]) -> None:
    reactor, _, path = serving
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as other:
        other.bind(f"{path}.new")
        os.rename(f"{path}.new", path)
        assert ends(reactor)
    assert path.exists()


def test_it_runs_while_a_daemon_is_connected(serving: tuple[Reactor, Proxy, Path]) -> None:
    reactor, _, path = serving
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as client:
        client.connect(str(path))
        os.unlink(path)
        assert not ends(reactor)


def test_it_exits_when_idle(serving: tuple[Reactor, Proxy, Path]) -> None:
    reactor, made, _ = serving
    made.publications.release("owner")
    assert ends(reactor)
