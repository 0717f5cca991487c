"""The causes of an error."""

from engine.common.errors import causes, internal, invalid


def test_causes_are_walked_once() -> None:
    """An error that was raised from itself (``raise error from error``) had no end: the daemon's loop stood still."""
    first, second = internal("first"), invalid("second")
    first.__cause__ = second
    second.__cause__ = OSError("third")
    assert [str(found) for found in causes(first)] == ["first", "second", "third"]
    second.__cause__ = second
    assert list(causes(first)) == [first, second]
    second.__cause__ = first
    assert list(causes(first)) == [first, second]
