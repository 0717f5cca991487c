"""The causes of an error."""

from engine.common.errors import causes, internal, invalid


def test_causes_are_walked_once() -> None:
    """The walk ends for an error that was raised from itself (``raise error from error``); it once blocked the loop."""
    first, second = internal("first"), invalid("second")
    first.__cause__ = second
    second.__cause__ = OSError("third")
    assert [str(found) for found in causes(first)] == ["first", "second", "third"]
    second.__cause__ = second
    assert list(causes(first)) == [first, second]
    second.__cause__ = first
    assert list(causes(first)) == [first, second]
