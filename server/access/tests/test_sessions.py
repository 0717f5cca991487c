"""Tokens and sessions of the page."""

import pytest

from engine.common.errors import WharfError
from server.access import sessions
from server.access.caller import Caller
from server.access.sessions import Sessions


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> Sessions:
    return Sessions(clock)


def test_a_token_is_exchanged_once(store: Sessions) -> None:
    caller = Caller("alice", administrator=False)
    token = store.offer(caller)
    session = store.redeem(token)
    assert session.caller is caller
    assert store.find(session.id) is session
    assert session.confirmed(session.csrf)
    assert not session.confirmed("")
    with pytest.raises(WharfError):
        store.redeem(token)


def test_a_token_gets_too_old(store: Sessions, clock: Clock) -> None:
    token = store.offer(Caller())
    clock.now += sessions.TOKEN_LIFE
    with pytest.raises(WharfError):
        store.redeem(token)


def test_a_session_ends_when_it_is_not_used(store: Sessions, clock: Clock) -> None:
    session = store.redeem(store.offer(Caller()))
    for _ in range(3):
        clock.now += sessions.IDLE - 1
        assert store.find(session.id) is session
    clock.now += sessions.IDLE
    assert store.find(session.id) is None
    assert session.ended


def test_a_session_ends_after_a_week(store: Sessions, clock: Clock) -> None:
    session = store.redeem(store.offer(Caller()))
    while clock.now < 1000 + sessions.LIFE - sessions.IDLE:
        clock.now += sessions.IDLE / 2
        assert store.find(session.id) is session
    clock.now = 1000 + sessions.LIFE
    assert store.find(session.id) is None


def test_owners_do_not_push_each_other_out(store: Sessions) -> None:
    alice, bob = Caller("alice", administrator=False), Caller("bob", administrator=False)
    kept = store.redeem(store.offer(alice))
    last = store.offer(alice)
    for _ in range(200):
        store.redeem(store.offer(bob))
    for _ in range(200):
        store.offer(bob)
    assert store.find(kept.id) is kept
    store.redeem(last)
    assert len(store._sessions) == sessions.SESSIONS + 2
    assert len(store._tokens) == sessions.TOKENS


def test_all_end_with_the_rights_that_they_had(store: Sessions) -> None:
    session, token = store.redeem(store.offer(Caller())), store.offer(Caller())
    store.end_all()
    assert session.ended
    assert store.find(session.id) is None
    with pytest.raises(WharfError):
        store.redeem(token)
