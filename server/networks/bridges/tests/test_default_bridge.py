"""Which address of its device the default bridge keeps, and the resulting subnet."""

from ipaddress import ip_interface

import pytest

from server.networks.bridges.default_bridge import choose


@pytest.mark.parametrize(
    ("present", "fixed", "adopted", "expected"),
    [
        ("", "", False, None),
        ("10.1.0.8/24 10.2.0.8/24", "", False, "10.1.0.8/24"),
        ("10.1.0.8/20", "10.1.0.0/24", False, "10.1.0.8/20"),
        # A wider range widens the engine's own bridge; an administrator's stays unchanged.
        ("10.1.0.8/24", "10.1.0.0/20", False, "10.1.0.8/20"),
        ("10.1.0.8/24", "10.1.0.0/20", True, "10.1.0.8/24"),
        # A range elsewhere replaces the subnet.
        ("10.1.0.8/24", "10.1.1.0/24", False, None),
        ("10.1.0.8/24", "10.1.1.0/24", True, "10.1.0.8/24"),
        # Of several addresses: the one whose subnet has the range, else one inside the range.
        ("10.1.0.8/20 10.1.16.8/20 10.1.32.8/20", "10.1.17.0/24", True, "10.1.16.8/20"),
        ("10.1.0.8/24 10.1.16.8/24 10.1.32.8/24", "10.1.18.0/20", True, "10.1.16.8/24"),
        ("fd00:1::8/60 fd00:1:0:10::8/60", "fd00:1:0:11::9/64", True, "fd00:1:0:10::8/60"),
        ("fd00:1::8/64", "fd00:1::/56", False, "fd00:1::8/56"),
    ],
)
def test_the_address_that_counts(present: str, fixed: str, adopted: bool, expected: str | None) -> None:
    found = choose(
        [ip_interface(text) for text in present.split()], ip_interface(fixed) if fixed else None, adopted=adopted
    )
    assert found == (ip_interface(expected) if expected else None)
