"""Header blocks that are decoded once mean the same on each connection."""

import hpack
import pytest

from engine.api.http2 import headers

FIELDS = [(":method", "POST"), (":path", "/s/M"), ("te", "trailers"), ("x-long", "v" * 300)]


@pytest.fixture(autouse=True)
def empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(headers, "_decoded", {})
    headers._encode_once.cache_clear()


def pairs(fields: list[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in fields]


def test_our_blocks_are_decoded_by_any_decoder_and_need_no_table() -> None:
    block = headers.encode(FIELDS)
    for decoder in (hpack.Decoder(), hpack.Decoder()):
        decoder.max_allowed_table_size = 0
        assert [tuple(each) for each in decoder.decode(headers.NO_TABLE + block, raw=True)] == pairs(FIELDS)
    assert headers.encode(FIELDS) is block
    large = [("x", "v" * headers._LARGE)]
    assert headers.encode(large) is not headers.encode(large)


def test_a_static_block_is_decoded_once() -> None:
    block = headers.encode(FIELDS)
    first = headers.decode(hpack.Decoder(), block)
    assert list(first) == pairs(FIELDS)
    assert headers.decode(hpack.Decoder(), block) is first


def test_blocks_with_a_dynamic_table_are_decoded_each_time() -> None:
    """The second block of each connection is the same bytes: the newest entry of the table."""
    found = []
    for value in ("one", "two"):
        encoder, decoder = hpack.Encoder(), hpack.Decoder()
        blocks = [encoder.encode([("x-table", value)], huffman=huffman) for huffman in (True, False)]
        found += [(block, dict(headers.decode(decoder, block))[b"x-table"]) for block in blocks]
    assert found[1][0] == found[3][0]
    assert [value for _, value in found] == [b"one", b"one", b"two", b"two"]
    assert not headers._decoded


def test_a_change_of_the_tables_size_reaches_the_decoder_each_time() -> None:
    decoder, block = hpack.Decoder(), headers.NO_TABLE + headers.encode(FIELDS)
    for _ in range(2):
        decoder.header_table_size = 4096
        headers.decode(decoder, block)
        assert decoder.header_table_size == 0


def test_few_and_small_blocks_are_kept() -> None:
    for number in range(2 * headers._KEPT):
        headers.decode(hpack.Decoder(), headers.encode([("n", str(number))]))
    large = headers.encode([("x", "v" * headers._LARGE)])
    assert dict(headers.decode(hpack.Decoder(), large)) == {b"x": b"v" * headers._LARGE}
    assert len(headers._decoded) == headers._KEPT
    assert large not in headers._decoded


@pytest.mark.parametrize("block", [b"\x80", b"\xbe", b"\x00\x05ab", b"\xff\xff\xff\xff\xff"])
def test_invalid_blocks_are_never_kept(block: bytes) -> None:
    for _ in range(2):
        with pytest.raises((hpack.HPACKError, IndexError)):
            headers.decode(hpack.Decoder(), block)
    assert not headers._decoded
