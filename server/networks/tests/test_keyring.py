"""The security associations that follow from the swarm's keys."""

from server.networks.overlay.encryption import association
from server.networks.overlay.model import Keyring


def test_each_direction_and_key_has_its_own_key() -> None:
    ends = [("192.0.2.1", "192.0.2.2"), ("192.0.2.2", "192.0.2.1"), ("192.0.2.1", "192.0.2.22")]
    made = [association(bytes([number]) * 32, *pair) for number in range(2) for pair in ends]
    assert len({each.key for each in made}) == len({each.spi for each in made}) == 6
    assert {len(each.key) for each in made} == {20}
    assert all(each.spi > 255 for each in made)
    assert made[0] == association(bytes(32), *ends[0])


def test_keys_are_in_no_text() -> None:
    assert "secret" not in repr(Keyring(b"secret1", b"secret2", b"secret3"))
