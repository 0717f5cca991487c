"""Fixtures of the API's tests."""

from collections.abc import Iterator

import pytest

from server.tests.api.victim import ALICE, BOB, Victim, furnish, lab


@pytest.fixture(scope="package")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    """A daemon with alice's objects, for requests of bob that change nothing."""
    with lab(tmp_path_factory.mktemp("hostile")) as daemon:
        alice, bob = daemon.as_uid(ALICE), daemon.as_uid(BOB)
        keys = furnish(alice)
        bob.create("own")
        bob.post("/networks/create", {"Name": "ownnet", "ConfigOnly": True})
        yield Victim(daemon, alice, bob, keys)
