"""Wrong join tokens from one address are bounded."""

from pathlib import Path

import pytest

from engine.common import limits
from engine.common.errors import Kind, Reason, WharfError
from server.swarm import certificates
from server.swarm.operations.admission import WrongToken
from server.swarm.remote.join import join
from server.swarm.remote.records import JoinRequest
from server.swarmapi import attempts
from server.swarmapi.attempts import Attempts
from server.swarmapi.tests.site import Site, run

HOST = "192.0.2.7"


class _Clock:
    def __init__(self) -> None:
        self.seconds = 100.0
        self.attempts = Attempts(lambda: self.seconds)

    def fail(self, address: str = HOST) -> bool:
        """Presents a wrong token; returns whether it was compared."""
        try:
            with self.attempts.attempt(address):
                raise WrongToken
        except WrongToken:
            return True
        except WharfError as error:
            if error.reason is not Reason.TOO_MANY_REQUESTS:
                raise
            return False

    def exhaust(self, address: str = HOST) -> None:
        while self.fail(address):
            pass


def test_failures_are_forgotten_one_after_the_other() -> None:
    clock = _Clock()
    compared = [clock.fail() for _ in range(20)]
    assert compared == [True] * limits.SWARM_WRONG_TOKENS + [False] * (20 - limits.SWARM_WRONG_TOKENS)
    clock.seconds += 6
    assert [clock.fail(), clock.fail()] == [True, False]
    clock.seconds += 3600
    assert sum(clock.fail() for _ in range(20)) == limits.SWARM_WRONG_TOKENS


def test_valid_tokens_do_not_count() -> None:
    clock = _Clock()
    for _ in range(50):
        with clock.attempts.attempt(HOST):
            pass
        with pytest.raises(WharfError, match="later"), clock.attempts.attempt(HOST):
            raise WharfError(Kind.UNAVAILABLE, "later")
    assert clock.fail()


def test_addresses_are_bounded_one_by_one() -> None:
    clock = _Clock()
    clock.exhaust()
    assert clock.fail("192.0.2.8")
    assert not clock.fail("::ffff:192.0.2.7")
    clock.exhaust("2001:db8::1")
    assert not clock.fail("2001:db8::ffff:1")
    assert clock.fail("2001:db8:0:1::1")
    clock.exhaust("fe80::1%eth0")
    assert not clock.fail("fe80::2")


def test_the_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "_ADDRESSES", 8)
    clock = _Clock()
    clock.exhaust()
    for number in range(100):
        assert clock.fail(f"198.51.100.{number}")
    assert len(clock.attempts._forgotten) == 8
    assert not clock.fail(), "the address with the most failures is remembered"


def test_guesses_at_the_port(tmp_path: Path) -> None:
    async def scenario(site: Site) -> None:
        right = site.token()
        wrong = JoinRequest(token=f"SWMTKN-1-{right.split('-')[2]}-{'0' * 25}", csr=certificates.make_request().csr)
        for _ in range(limits.SWARM_WRONG_TOKENS):
            with pytest.raises(WharfError, match="A valid join token is necessary"):
                await join(site.addresses, wrong)
        with pytest.raises(
            WharfError, match=r"too many wrong join tokens came from 127\.0\.0\.1 \(SWARM_WRONG_TOKENS\)"
        ):
            await site.join()
        assert len(site.state.tables.nodes) == 1

    run(tmp_path, scenario)
