"""A short run of ``python -m compat_tests.hostile.connections.crowds``."""

from compat_tests.hostile.connections import crowds
from compat_tests.support.engines import Engine


def test_every_subscriber_gets_every_event(engine: Engine) -> None:
    crowds.subscribers(engine, 100)


def test_a_container_with_many_ports(engine: Engine) -> None:
    crowds.ports(engine, 200)
