"""Clients that leave or read slowly, and streams that fail."""

import json
import socket

import pytest

from server.tests.http.endpoints import CLOSE, entered, finished, left, parts
from server.tests.http.serving import DEADLINE, Serving, read_all


def test_a_disconnect_cancels_a_waiting_handler(api: Serving) -> None:
    with api.connect() as sock:
        sock.sendall(b"GET /waits HTTP/1.1\r\nHost: d\r\n\r\n")
        assert entered.wait(DEADLINE)
    assert left.wait(DEADLINE)


def test_a_disconnect_does_not_cancel_other_handlers(api: Serving) -> None:
    with api.connect() as sock:
        sock.sendall(b"POST /works HTTP/1.1\r\nHost: d\r\n\r\n")
        assert entered.wait(DEADLINE)
    assert finished.wait(DEADLINE)
    assert not left.is_set()


def test_a_half_closed_client_gets_its_response(api: Serving) -> None:
    with api.connect() as sock:
        sock.sendall(b"POST /works HTTP/1.1\r\nHost: d\r\n\r\n")
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock).endswith(b'"done"\n')


def test_a_slow_client_blocks_only_its_stream(api: Serving) -> None:
    with api.connect() as sock:
        sock.sendall(b"GET /endless HTTP/1.1\r\nHost: d\r\n\r\n")
        assert sock.recv(4)
        # The loop serves other clients while this stream is blocked.
        assert parts(api.ask(b"GET /echo HTTP/1.1\r\n" + CLOSE + b"\r\n"))[0] == 200
        assert not left.is_set()
    assert left.wait(DEADLINE)


@pytest.mark.parametrize(
    ("how", "status", "messages"),
    [
        ("", 200, [{"status": "one"}, {"status": "two"}]),
        ("early", 409, [{"message": "before anything"}]),
        (
            "late",
            200,
            [{"status": "one"}, {"errorDetail": {"message": "in the middle"}, "error": "in the middle"}],
        ),
    ],
)
def test_streams_of_messages(api: Serving, how: str, status: int, messages: list[object]) -> None:
    answer = api.ask(f"GET /progress?how={how} HTTP/1.1\r\n".encode() + CLOSE + b"\r\n")
    got, headers, body = parts(answer)
    assert got == status
    lines = [line for line in body.split(b"\n") if line.startswith(b"{")]
    assert [json.loads(line) for line in lines] == messages
    if status == 200:
        assert headers["transfer-encoding"] == "chunked"
        assert body.endswith(b"0\r\n\r\n")


def test_a_failed_byte_stream_is_not_completed(api: Serving) -> None:
    answer = api.ask(b"GET /breaks HTTP/1.1\r\n" + CLOSE + b"\r\n")
    assert b"half" in answer
    assert not answer.endswith(b"0\r\n\r\n")
