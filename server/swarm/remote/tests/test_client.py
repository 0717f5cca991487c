"""Which managers are asked; ``server/swarmapi/tests`` has the requests."""

from server.swarm.remote.client import Managers
from server.swarm.remote.identity import Identity


def test_other_managers_replace_the_known_ones() -> None:
    managers = Managers(Identity(None), ["one:1", "two:1"])
    managers.know(["three:1", "two:1", "three:1"])
    assert managers.addresses == ["two:1", "three:1"]
    managers.know([])
    assert managers.addresses == []
