"""The detach keys in a client's input, found as in dockerd."""

import pytest

from engine.shim.stdio.keys import Detach


@pytest.mark.parametrize(
    ("keys", "typed", "given"),
    [
        (b"\x10\x11", [b"ab", b"\x10", b"x", b"\x10\x11", b"more"], b"ab\x10x"),
        (b"\x10\x11", [b"ab\x10\x11cd"], b"ab"),
        (b"a", [b"xya"], b"xy"),
        (b"\x00", [b"a\x00b"], b"a"),
        (b"\x01ab", [b"\x01", b"a", b"c", b"\x01", b"a", b"b"], b"\x01ac"),
        # The key that breaks off a sequence starts no other.
        (b"\x10\x11", [b"\x10", b"\x10", b"\x11"], None),
        (b"\x10\x11", [b"\x10\x10\x11"], None),
        (b"\x01\x01b", [b"\x01", b"\x01", b"\x01", b"b"], None),
        (b"\x10\x11", [b"\x10", b"\x13", b"\x11"], None),
    ],
)
def test_a_session_ends_with_its_keys(keys: bytes, typed: list[bytes], given: bytes | None) -> None:
    """``given``: the container's input before the end; None: all typed bytes, as there is no end."""
    detach, got = Detach(keys), b""
    for data in typed:
        part, ended = detach.filter(data)
        got += part
        if ended:
            break
    assert (got, ended) == ((b"".join(typed), False) if given is None else (given, True))
