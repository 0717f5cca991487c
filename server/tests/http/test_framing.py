"""Ambiguous message ends and bytes that are not HTTP/1.1 are refused."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.responses import Response

from server.http import params
from server.http.answers import json_answer
from server.http.routing import ApiRoute
from server.tests.http.serving import Serving, read_all, serving


async def echo(request: Request) -> Response:
    return json_answer({"body": (await params.raw_body(request)).decode()})


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    routes = [ApiRoute("GET", "/echo", echo), ApiRoute("POST", "/echo", echo)]
    directory: Path = tmp_path_factory.mktemp("framing")
    with serving(directory, routes) as running:
        yield running


HOST = b"Host: d\r\n"
CHUNKED = b"POST /echo HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n"
SECOND = b"GET /echo HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n"

REFUSED = {
    "two hosts": b"GET /echo HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "the same host twice": b"GET /echo HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
    "a host with a blank": b"GET /echo HTTP/1.1\r\nHost: a b\r\n\r\n",
    "a host with a slash": b"GET /echo HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "no version": b"GET /echo\r\n\r\n",
    "no version, with headers": b"GET /echo\r\nHost: d\r\n\r\n",
    "HTTP/0.9": b"GET /echo HTTP/0.9\r\nHost: d\r\n\r\n",
    "HTTP/2.0": b"GET /echo HTTP/2.0\r\nHost: d\r\n\r\n",
    "a version of two digits": b"GET /echo HTTP/1.10\r\nHost: d\r\n\r\n",
    "two blanks": b"GET  /echo HTTP/1.1\r\nHost: d\r\n\r\n",
    "a tab": b"GET\t/echo HTTP/1.1\r\nHost: d\r\n\r\n",
    "a relative path": b"GET echo HTTP/1.1\r\nHost: d\r\n\r\n",
    "a control character in the path": b"GET /echo\x01 HTTP/1.1\r\nHost: d\r\n\r\n",
    "a method in lower case": b"get /echo HTTP/1.1\r\nHost: d\r\n\r\n",
    "an unknown method": b"FOO /echo HTTP/1.1\r\nHost: d\r\n\r\n",
    "a folded header": b"GET /echo HTTP/1.1\r\nHost: d\r\nX: a\r\n b\r\n\r\n",
    "a folded first header": b"GET /echo HTTP/1.1\r\n Host: d\r\n\r\n",
    "a blank before the colon": b"GET /echo HTTP/1.1\r\nHost: d\r\nContent-Length : 5\r\n\r\n",
    "a header without a colon": b"GET /echo HTTP/1.1\r\nHost: d\r\nnonsense\r\n\r\n",
    "a header without a name": b"GET /echo HTTP/1.1\r\nHost: d\r\n: x\r\n\r\n",
    "a NUL in a header": b"GET /echo HTTP/1.1\r\nHost: d\r\nX: a\0b\r\n\r\n",
    "a bare CR in a header": b"GET /echo HTTP/1.1\r\nHost: d\r\nX: a\rY: b\r\n\r\n",
    "two lengths": b"POST /echo HTTP/1.1\r\nHost: d\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "the same length twice": b"POST /echo HTTP/1.1\r\nHost: d\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nab",
    "lines that end with a bare LF": b"POST /echo HTTP/1.1\nHost: d\nContent-Length: 2\n\nab",
    "a list of lengths": b"POST /echo HTTP/1.1\r\nHost: d\r\nContent-Length: 2, 2\r\n\r\nab",
    "a negative length": b"POST /echo HTTP/1.1\r\nHost: d\r\nContent-Length: -2\r\n\r\nab",
    "a length with a sign": b"POST /echo HTTP/1.1\r\nHost: d\r\nContent-Length: +2\r\n\r\nab",
    "a length in hex": b"POST /echo HTTP/1.1\r\nHost: d\r\nContent-Length: 0x2\r\n\r\nab",
    "an empty length": b"POST /echo HTTP/1.1\r\nHost: d\r\nContent-Length:\r\n\r\nab",
    "a length beyond 64 bits": b"POST /echo HTTP/1.1\r\nHost: d\r\nContent-Length: 99999999999999999999\r\n\r\nab",
    "a length and chunks": b"POST /echo HTTP/1.1\r\nHost: d\r\nContent-Length: 3\r\n" + CHUNKED[30:] + b"0\r\n\r\n",
    "another coding": b"POST /echo HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: gzip\r\n\r\n",
    "a coding behind chunked": b"POST /echo HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked, x\r\n\r\n0\r\n\r\n",
    "chunked twice": b"POST /echo HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n" + CHUNKED[30:] + b"0\r\n\r\n",
    "chunked with a control character": b"POST /echo HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: \x0bchunked\r\n\r\n",
    "chunks in HTTP/1.0": b"POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a bare LF behind a size": CHUNKED + b"2\nab\r\n0\r\n\r\n",
    "a bare LF behind a chunk": CHUNKED + b"2\r\nab\n0\r\n\r\n",
    "a bare LF behind the last size": CHUNKED + b"2\r\nab\r\n0\n\r\n",
    "a bare LF as the end": CHUNKED + b"0\r\n\n",
    "a bare CR in an extension": CHUNKED + b"2;a\rb\r\nab\r\n0\r\n\r\n",
    "a size with a sign": CHUNKED + b"+2\r\nab\r\n0\r\n\r\n",
    "a size with a prefix": CHUNKED + b"0x2\r\nab\r\n0\r\n\r\n",
    "a size with a blank before it": CHUNKED + b" 2\r\nab\r\n0\r\n\r\n",
    "no size": CHUNKED + b"\r\nab\r\n0\r\n\r\n",
    "a size beyond 64 bits": CHUNKED + b"f" * 17 + b"\r\nab\r\n",
    "a chunk longer than its size": CHUNKED + b"2\r\nabc\r\n0\r\n\r\n",
    "an endless extension": CHUNKED + b"2;" + b"x" * 10_000 + b"\r\nab\r\n0\r\n\r\n",
    "a trailer without a colon": CHUNKED + b"0\r\nnonsense\r\n\r\n",
}


@pytest.mark.parametrize("message", REFUSED.values(), ids=REFUSED.keys())
def test_one_refusal_then_close(api: Serving, message: bytes) -> None:
    """No later byte is parsed as a request."""
    answer = api.ask(message + SECOND)
    assert answer.startswith((b"HTTP/1.1 400 Bad Request\r\n", b"HTTP/1.1 501 ")), answer
    assert answer.count(b"HTTP/1.1 ") == 1, answer
    assert b"Connection: close\r\n" in answer


TAKEN = {
    "an empty host": (b"POST /echo HTTP/1.1\r\nHost:\r\nContent-Length: 2\r\n\r\nab", "ab"),
    "an address as host": (b"POST /echo HTTP/1.1\r\nHost: [::1%25eth0]:80\r\nContent-Length: 2\r\n\r\nab", "ab"),
    "a socket's path as host": (
        b"POST /echo HTTP/1.1\r\nHost: %2Frun%2Fdocker.sock\r\nContent-Length: 2\r\n\r\nab",
        "ab",
    ),
    "chunks with extensions": (CHUNKED + b'1;a=b\r\na\r\n1;c="d"\r\nb\r\n0\r\n\r\n', "ab"),
    "a blank behind a size": (CHUNKED + b"2 \r\nab\r\n0\r\n\r\n", "ab"),
    "a trailer": (CHUNKED + b"2\r\nab\r\n0\r\nX-Sum: 1\r\n\r\n", "ab"),
}


@pytest.mark.parametrize(("message", "body"), TAKEN.values(), ids=TAKEN.keys())
def test_messages_that_go_accepts(api: Serving, message: bytes, body: str) -> None:
    answer = api.ask(message + SECOND)
    assert answer.count(b"HTTP/1.1 200 OK\r\n") == 2, answer
    assert b'{"body":"%s"}' % body.encode() in answer


def test_a_trailer_is_bounded(api: Serving) -> None:
    with api.connect() as sock:
        try:
            sock.sendall(CHUNKED + b"0\r\n" + b"X: y\r\n" * 1_000_000 + b"\r\n")
        except (BrokenPipeError, ConnectionResetError):
            return
        assert_refused(sock)


def assert_refused(sock: socket.socket) -> None:
    try:
        assert read_all(sock).startswith(b"HTTP/1.1 4")
    except ConnectionResetError:
        return  # closed with unread data, which resets the connection and loses the response


def test_a_head_sent_byte_by_byte(api: Serving) -> None:
    with api.connect() as sock:
        for message in (b"\r\n" + CHUNKED + b"2\r\nab\r\n0\r\n\r\n", SECOND):
            for byte in message:
                sock.sendall(bytes((byte,)))
        answer = read_all(sock)
    assert answer.count(b"HTTP/1.1 200 OK\r\n") == 2, answer
