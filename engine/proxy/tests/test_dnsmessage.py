"""Parses questions and encodes answers; malformed messages are refused."""

import random
import struct

import pytest

from engine.proxy import dnsmessage
from engine.proxy.dnsmessage import AAAA, A, Malformed


def question(
    name: bytes, kind: int = A, *, flags: int = 0x0100, count: int = 1, tail: bytes = b"", more: int = 0
) -> bytes:
    return struct.pack(">HHHHHH", 7, flags, count, 0, 0, more) + name + struct.pack(">HH", kind, 1) + tail


WEB = b"\x03Web\x03Net\0"


def test_a_question() -> None:
    query = dnsmessage.parse(question(WEB, AAAA))
    assert (query.number, query.name, query.type, query.klass, query.size) == (7, "web.net", AAAA, 1, 512)
    edns = b"\0\0\x29" + struct.pack(">HIH", 1232, 0, 0)
    assert dnsmessage.parse(question(WEB, tail=edns, more=1)).size == 1232


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 11,
        question(WEB, flags=0x8100),  # an answer
        question(WEB, count=2),
        question(b"\xc0\x0c"),  # a pointer in a question
        question(b"\x3fshort\0")[:-4],
        question(WEB)[:-3],
    ],
)
def test_invalid_questions(data: bytes) -> None:
    with pytest.raises(Malformed):
        dnsmessage.parse(data)


def test_random_bytes_are_refused_or_parsed() -> None:
    chance = random.Random(11)
    for _ in range(3000):
        data = bytearray(question(WEB))
        for _ in range(chance.randrange(1, 6)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        try:
            query = dnsmessage.parse(bytes(data[: chance.randrange(len(data) + 1)]))
        except Malformed:
            continue
        assert dnsmessage.addresses(query, ())[:2] == bytes(data[:2])


def test_an_answer_repeats_the_question_as_it_came() -> None:
    query = dnsmessage.parse(question(WEB))
    answer = dnsmessage.addresses(query, ["192.0.2.1", "192.0.2.2"])
    assert struct.unpack_from(">HHHHHH", answer) == (7, 0x8180, 1, 2, 0, 0)
    assert answer[12:].startswith(WEB)
    assert answer.endswith(bytes((192, 0, 2, 2)))
    assert dnsmessage.same_id(answer, question(WEB))
    assert not dnsmessage.same_id(question(WEB), question(WEB))


def test_long_answers_are_truncated() -> None:
    query = dnsmessage.parse(question(WEB))
    many = [f"192.0.{number}.1" for number in range(100)]
    cut = dnsmessage.addresses(query, many)
    assert len(cut) <= 512
    assert cut[2] & 0x02
    whole = dnsmessage.addresses(query, many, stream=True)
    assert not whole[2] & 0x02
    assert struct.unpack_from(">H", whole, 6)[0] == 100


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("1.2.0.192.in-addr.arpa", "192.0.2.1"),
        ("2.0.192.in-addr.arpa", None),
        ("1." + "0." * 30 + "f.ip6.arpa", "f000::1"),
        ("x." + "0." * 30 + "f.ip6.arpa", None),
        ("1.2.ip6.arpa", None),
        ("web", None),
    ],
)
def test_addresses_of_pointers(name: str, address: str | None) -> None:
    assert dnsmessage.pointer_address(name) == address
