"""Requests and answers on real sockets: headers, routes, framing, bounds, invalid bytes."""

import json

import pytest

from server.tests.http.endpoints import CLOSE, parts
from server.tests.http.serving import Serving, read_all, read_until


def test_an_answer_has_dockerds_headers(api: Serving) -> None:
    status, headers, body = parts(api.ask(b"GET /echo HTTP/1.1\r\n" + CLOSE + b"\r\n"))
    assert status == 200
    assert json.loads(body) == {"path": "/echo", "version": [1, 55], "body": ""}
    assert body.endswith(b"\n")
    assert headers["content-type"] == "application/json"
    assert headers["api-version"] == "1.55"
    assert headers["ostype"] == "linux"
    assert headers["docker-experimental"] == "false"
    assert headers["server"].startswith("Docker/")
    assert headers["date"].endswith("GMT")


def test_an_instant_response_equals_an_ordinary_one(api: Serving) -> None:
    ping = b"GET /v1.45/_ping HTTP/1.1\r\nHost: x\r\n\r\n"
    rest = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab"
    answers = api.ask(ping * 3 + rest + ping + b"GET /_ping HTTP/1.1\r\n" + CLOSE + b"\r\n")
    assert answers.count(b"HTTP/1.1 200 OK\r\n") == 6
    assert answers.count(b"\r\n\r\nOK") == 5
    assert answers.index(b'"body":"ab"') < answers.rindex(b"\r\n\r\nOK")
    assert parts(api.ask(b"GET /_ping HTTP/1.0\r\n\r\n"))[2] == b"OK"
    # A request with a body, an upgrade or an unknown version uses the ordinary code.
    body = b"GET /_ping HTTP/1.1\r\n" + CLOSE + b"Content-Length: 2\r\n\r\nab"
    assert json.loads(parts(api.ask(body))[2])["body"] == "ab"
    assert parts(api.ask(b"GET /v1.99/_ping HTTP/1.1\r\n" + CLOSE + b"\r\n"))[0] == 400


@pytest.mark.parametrize(
    ("line", "status", "message"),
    [
        ("GET /nothing", 404, "page not found"),
        ("DELETE /echo", 404, "page not found"),
        ("GET /v1.24/echo", 200, None),
        ("GET /v1.55/images/a%2Fb/c:d/json", 200, None),
        (
            "GET /v1.23/echo",
            400,
            "client version 1.23 is too old. Minimum supported API version is 1.24, please upgrade your client to a"
            " newer version",
        ),
        ("GET /v1.99/echo", 400, "client version 1.99 is too new. Maximum supported API version is 1.55"),
        ("POST /v1.39/newer", 400, "POST /newer requires minimum API version 1.40"),
        ("GET /v1.99/nothing", 404, "page not found"),
        ("GET /fails/conflict", 409, "in use"),
        ("GET /fails/defect", 500, "internal error: see the daemon's log"),
    ],
)
def test_routes_and_errors(api: Serving, line: str, status: int, message: str | None) -> None:
    got, headers, body = parts(api.ask(line.encode() + b" HTTP/1.1\r\n" + CLOSE + b"\r\n"))
    assert got == status
    if message is not None:
        assert headers["content-type"] == "application/json"
        assert json.loads(body) == {"message": message}


def test_not_modified_has_no_body(api: Serving) -> None:
    status, headers, body = parts(api.ask(b"GET /fails/same HTTP/1.1\r\n" + CLOSE + b"\r\n"))
    assert (status, body) == (304, b"")
    assert "transfer-encoding" not in headers


def test_bodies_and_pipelined_requests_are_kept_apart(api: Serving) -> None:
    request = (
        b"POST /echo HTTP/1.1\r\nHost: d\r\nContent-Length: 5\r\n\r\nhello"
        b"POST /echo HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: r\r\n\r\n"
        b"\r\nGET /echo HTTP/1.1\r\n" + CLOSE + b"\r\n"
    )
    whole = api.ask(request)
    with api.connect() as sock:
        for index in range(len(request)):
            sock.sendall(request[index : index + 1])
        trickled = read_all(sock)
    for answer in (whole, trickled):
        bodies = [json.loads(line)["body"] for line in answer.split(b"\n") if line.startswith(b"{")]
        assert bodies == ["hello", "abcde", ""]


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"complete nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: d\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: d\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: d\r\nContent-Length: -1\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r.",
        b"GET / HTTP/9.9\r\nHost: d\r\n\r\n",
        b"\x00" * 100,
    ],
)
def test_invalid_bytes_are_refused(api: Serving, garbage: bytes) -> None:
    answer = api.ask(garbage)
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert parts(api.ask(b"GET /echo HTTP/1.1\r\n" + CLOSE + b"\r\n"))[0] == 200


def test_the_head_is_bounded(api: Serving) -> None:
    with api.connect() as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nX: " + b"a" * (2 << 20))
        assert read_all(sock).startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize("size", [60_000, 70_000, 1 << 20])
@pytest.mark.parametrize("host", [b"", b"http://docker"])
def test_a_long_query_is_accepted(api: Serving, host: bytes, size: int) -> None:
    answer = api.ask(b"GET " + host + b"/query?x=" + b"a" * size + b" HTTP/1.1\r\n" + CLOSE + b"\r\n")
    status, _, body = parts(answer)
    assert (status, json.loads(body)) == (200, size)


def test_a_long_path_is_not_found(api: Serving) -> None:
    assert parts(api.ask(b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n" + CLOSE + b"\r\n"))[0] == 404


def test_an_early_response_with_an_unread_body(api: Serving) -> None:
    with api.connect() as sock:
        sock.sendall(b"POST /nothing HTTP/1.1\r\n" + CLOSE + b"Content-Length: 8000000\r\n\r\n")
        for _ in range(100):
            sock.sendall(b"x" * 80000)
        assert parts(read_all(sock))[0] == 404


def test_expect_continue(api: Serving) -> None:
    with api.connect() as sock:
        sock.sendall(b"POST /echo HTTP/1.1\r\n" + CLOSE + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        assert read_until(sock, b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"ok")
        assert json.loads(parts(read_all(sock))[2])["body"] == "ok"
