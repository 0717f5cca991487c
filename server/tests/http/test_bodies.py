"""Large bodies: with any framing, ended early by either side, with a following request."""

import asyncio
import hashlib
import json
import os
import socket
import ssl
import threading
from collections.abc import Iterator

import pytest
import trustme
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from engine.common.errors import invalid
from server.http.answers import json_answer
from server.http.bodies import pieces
from server.http.routing import ApiRoute
from server.tests.http.serving import DEADLINE, Serving, read_all, read_until, serving

SIZE = 5_000_001
left = threading.Event()


async def digest(request: Request) -> Response:
    """The received bytes, and the sizes of their pieces."""
    hashed = hashlib.sha256()
    sizes = []
    async for piece in pieces(request):
        hashed.update(piece)
        sizes.append(len(piece))
        await asyncio.sleep(0)
    return json_answer({"digest": hashed.hexdigest(), "sizes": sizes})


async def refuses(request: Request) -> Response:
    """Stops reading after two pieces."""
    body = pieces(request)
    await anext(body)
    await anext(body)
    raise invalid("enough")


async def waits(request: Request) -> Response:
    try:
        async for _ in pieces(request):
            pass
    except (ClientDisconnect, asyncio.CancelledError):
        left.set()
        raise
    return Response()


ROUTES = (
    ApiRoute("POST", "/digest", digest, waits=True),
    ApiRoute("POST", "/refuses", refuses),
    ApiRoute("POST", "/waits", waits, waits=True),
)


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    with serving(tmp_path_factory.mktemp("bodies"), ROUTES, context) as running:
        yield running


def chunked(data: bytes, size: int) -> bytes:
    parts = [data[at : at + size] for at in range(0, len(data), size)]
    return b"".join(b"%x;e=x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\nTrailer: t\r\n\r\n"


def request(path: bytes, data: bytes, *, chunk: int = 0, close: bool = True) -> bytes:
    head = b"POST " + path + b" HTTP/1.1\r\nHost: d\r\n" + (b"Connection: close\r\n" if close else b"")
    if chunk:
        return head + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(data, chunk)
    return head + b"Content-Length: %d\r\n\r\n" % len(data) + data


def answers(text: bytes) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.split(b"\n") if line.startswith(b"{")]


@pytest.mark.parametrize("chunk", [0, 1000, 32768, 3_000_000])
def test_the_body_is_received(api: Serving, chunk: int) -> None:
    data = os.urandom(SIZE)
    (found,) = answers(api.ask(request(b"/digest", data, chunk=chunk)))
    assert found["digest"] == hashlib.sha256(data).hexdigest()
    sizes = found["sizes"]
    assert isinstance(sizes, list)
    assert sum(sizes) == SIZE
    assert max(sizes) <= 3 << 20


def test_split_chunk_marks(api: Serving) -> None:
    data = os.urandom(300_000)
    sent = request(b"/digest", data, chunk=7001)
    with api.connect() as sock:
        for at in range(0, len(sent), 1013):
            sock.sendall(sent[at : at + 1013])
        (found,) = answers(read_all(sock))
    assert found["digest"] == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("chunk", [0, 32768])
def test_a_request_after_the_body(api: Serving, chunk: int) -> None:
    bodies = [os.urandom(SIZE), b"", os.urandom(200_000)]
    sent = [request(b"/digest", body, chunk=chunk, close=body is bodies[-1]) for body in bodies]
    found = answers(api.ask(b"".join(sent)))
    assert [one["digest"] for one in found] == [hashlib.sha256(body).hexdigest() for body in bodies]


def test_expect_100_continue(api: Serving) -> None:
    data = os.urandom(SIZE)
    head, _, body = request(b"/digest", data).partition(b"\r\n\r\n")
    with api.connect() as sock:
        sock.sendall(head + b"\r\nExpect: 100-continue\r\n\r\n")
        assert read_until(sock, b"\r\n\r\n").startswith(b"HTTP/1.1 100 ")
        sock.sendall(body)
        (found,) = answers(read_all(sock))
    assert found["digest"] == hashlib.sha256(data).hexdigest()


def test_an_early_response_reaches_a_sending_client(api: Serving) -> None:
    answer = api.ask(request(b"/refuses", bytes(20_000_000), chunk=32768))
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answers(answer) == [{"message": "enough"}]


def test_a_client_that_disconnects_midway(api: Serving) -> None:
    for how in ("shutdown", "close"):
        left.clear()
        with api.connect() as sock:
            sock.sendall(request(b"/waits", bytes(SIZE))[:-1000])
            if how == "shutdown":
                sock.shutdown(socket.SHUT_WR)
                assert left.wait(DEADLINE)
        assert left.wait(DEADLINE)


def test_malformed_chunks(api: Serving) -> None:
    sent = request(b"/digest", bytes(SIZE), chunk=32768)
    answer = api.ask(sent.removesuffix(b"0\r\nTrailer: t\r\n\r\n") + b"zz\r\n")
    assert b"400 Bad Request" in answer


def test_over_tls(api: Serving) -> None:
    data = os.urandom(SIZE)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", api.tls_port), timeout=DEADLINE) as plain,
        context.wrap_socket(plain) as sock,
    ):
        sock.sendall(request(b"/digest", data, chunk=32768))
        (found,) = answers(read_all(sock))
    assert found["digest"] == hashlib.sha256(data).hexdigest()
