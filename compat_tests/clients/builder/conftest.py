"""Fixtures of the tests of builds."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def remove_built_images(remove_new_images: None) -> None:
    """Remove the images that a test builds."""
