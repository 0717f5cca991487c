"""Limits on what one request may make this engine compute, hold in memory or write.

Each limit is named in the error that refuses a request (:func:`exceeded`), so that an operator can find it here.
Both daemons import this module; it imports nothing but the errors.
"""

from engine.errors import WharfError, invalid

DOCKERFILE_BYTES = 4 << 20
"""Bytes of a Dockerfile or of a ``.dockerignore``."""


def exceeded(name: str, what: str) -> WharfError:
    """INVALID_ARGUMENT for ``what``, which is beyond the limit ``name`` (a constant of this module)."""
    return invalid(f"{what} exceeds the limit {name} ({globals()[name]})")
