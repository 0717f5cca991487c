"""The refusal of what a role does not allow."""

from engine.common.errors import Kind, WharfError


def refused(what: str) -> WharfError:
    """``what``: the option with its value, or the thing, as the client knows it."""
    return WharfError(Kind.PERMISSION_DENIED, f"your role does not allow {what}")
