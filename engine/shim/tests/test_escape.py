"""Log lines as JSON strings, byte for byte as dockerd writes them (compared with dockerd 26.1's files)."""

import random

import pytest

from engine.shim.logs.files import escape


@pytest.mark.parametrize(
    ("data", "escaped"),
    [
        (b"plain text\n", b"plain text\n"),
        (b'\\ "q" <>&\n', b'\\\\ \\"q\\" \\u003c\\u003e\\u0026\n'),
        (b"\x00\x01\b\t\x0b\f\r\x1b\x1f\x7f", b"\\u0000\\u0001\\u0008\\u0009\\u000b\\u000c\\r\\u001b\\u001f\x7f"),
        # Every invalid UTF-8 byte: a lone one, surrogates, overlong and cut sequences, beyond U+10FFFF.
        (b"a\xffb", b"a\\ufffdb"),
        (b"\xed\xa0\x80", b"\\ufffd" * 3),
        (b"\xc0\x80", b"\\ufffd" * 2),
        (b"\xe2\x82|", b"\\ufffd" * 2 + b"|"),
        (b"\xf0\x9f\x98\n", b"\\ufffd" * 3 + b"\n"),
        (b"\xf4\x90\x80\x80", b"\\ufffd" * 4),
        # A replacement character in the program's own output stays, and so do question marks.
        ("\ufffd?\x01?é".encode() + b"\xff?", "\ufffd?\\u0001?é".encode() + b"\\ufffd?"),
        ("\u2028 日本語 \u2029 😀".encode(), "\\u2028 日本語 \\u2029 😀".encode()),
    ],
)
def test_one_line(data: bytes, escaped: bytes) -> None:
    assert escape(data) == escaped
    # Long and short texts use different code paths.
    assert escape(data * 100) == escaped * 100


def slowly(data: bytes) -> bytes:
    """The same, character by character."""
    found = []
    for character in data.decode("utf-8", "surrogateescape"):
        code = ord(character)
        if 0xDC80 <= code <= 0xDCFF:
            found.append("\\ufffd")
        elif character in '"\\':
            found.append(f"\\{character}")
        elif character == "\r":
            found.append("\\r")
        elif character != "\n" and (code < 0x20 or character in "<>&\u2028\u2029"):
            found.append(f"\\u{code:04x}")
        else:
            found.append(character)
    return "".join(found).encode()


def test_random_bytes() -> None:
    source = random.Random(11)
    for size in (1, 2, 3, 50, 127, 128, 129, 1000, 70_000):
        for alphabet in (range(256), b'?\x01\\"u\n<f\xe2\x80\xa8\xff', b"\xed\xf0\x9f\x98\x80\xef\xbf\xbd?\x02"):
            data = bytes(source.choices(alphabet, k=size))
            assert escape(data) == slowly(data)
