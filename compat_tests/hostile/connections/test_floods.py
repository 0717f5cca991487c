"""Small versions of ``compat_tests.hostile.connections.floods``."""

from __future__ import annotations

from compat_tests.hostile.connections import floods
from compat_tests.support.engines import Engine


def test_many_execs_at_once(engine: Engine) -> None:
    floods.execs_at_once(engine, 25)


def test_many_followers_of_a_log(engine: Engine) -> None:
    floods.followers(engine, 50)


def test_a_client_that_does_not_read(engine: Engine) -> None:
    floods.client_that_does_not_read(engine, 8)


def test_a_fork_bomb_within_its_limit(engine: Engine) -> None:
    floods.fork_bomb(engine, 40)


def test_release_agent_is_out_of_reach(engine: Engine) -> None:
    floods.release_agent(engine)
