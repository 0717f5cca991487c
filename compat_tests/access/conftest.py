"""A lab with three users, two of whom have a role of their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from compat_tests.support.users import Lab, lab

POLICY = """
published_images = ["docker.io/library/busybox:*"]

[users]
{alice} = "member"
{bob} = "member"

[roles.member]
"""


@pytest.fixture(scope="package")
def shared_lab() -> Iterator[Lab]:
    """alice and bob have the role ``member``; carol has no role."""
    with lab("lab", POLICY, ("alice", "bob", "carol")) as made:
        yield made
