"""HTTP on real sockets: framing, hijack, half-closes, disconnects, invalid bytes."""

import asyncio
import json
import os
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Iterator

import pytest
import trustme
from starlette.requests import Request
from starlette.responses import Response

from engine.common.errors import conflict, not_modified
from server.http import params
from server.http.answers import json_answer
from server.http.hijack import hijack
from server.http.routing import ApiRoute
from server.http.streams import byte_stream, json_stream
from server.messages import Progress
from server.tests.serving import DEADLINE, Serving, read_all, read_until, serving

left = threading.Event()
finished = threading.Event()
entered = threading.Event()


async def echo(request: Request) -> Response:
    """The body's length and text, and how the request was parsed."""
    data = await params.raw_body(request)
    return json_answer({"path": request.url.path, "version": request.state.version, "body": data.decode()})


async def query(request: Request) -> Response:
    return json_answer(len(params.text(request, "x")))


async def fails(request: Request) -> Response:
    raise {"conflict": conflict("in use"), "same": not_modified()}.get(request.path_params["how"], ValueError("secret"))


async def raw(request: Request) -> None:
    """Takes the connection, echoes the request's body, the early bytes and everything else, in capitals."""
    body = await params.raw_body(request)
    taken = await hijack(request)
    loop = asyncio.get_running_loop()
    try:
        await taken.send(taken.head("application/vnd.docker.raw-stream") + body + b"|" + taken.early.upper())
        while data := await loop.sock_recv(taken.sock, 65536):
            await taken.send(data.upper())
        # The client has closed its side; output continues.
        await taken.send(b"<tail>")
    finally:
        taken.close()


async def waits(request: Request) -> Response:
    """Waits forever; records when it was cancelled."""
    entered.set()
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        left.set()
        raise
    return Response()


async def works(request: Request) -> Response:
    """Continues after a disconnect."""
    entered.set()
    await asyncio.sleep(0.05)
    finished.set()
    return json_answer("done")


async def progress(request: Request) -> Response:
    how = request.query_params.get("how", "")
    lines = Progress()

    async def work() -> None:
        if how == "early":
            raise conflict("before anything")
        await lines.put({"status": "one"})
        if how == "late":
            raise conflict("in the middle")
        await lines.put({"status": "two"})

    return json_stream(lines.run(work()))


async def endless(request: Request) -> Response:
    async def parts() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x" * 65536
        finally:
            left.set()

    return byte_stream(parts())


async def breaks(request: Request) -> Response:
    async def parts() -> AsyncIterator[bytes]:
        yield b"half"
        raise ValueError("torn")

    return byte_stream(parts())


ROUTES = (
    ApiRoute("GET", "/echo", echo),
    ApiRoute("POST", "/echo", echo),
    ApiRoute("GET", "/query", query),
    ApiRoute("GET", "/_ping", echo, instant=Response(b"OK", media_type="text/plain")),
    ApiRoute("POST", "/newer", echo, since="1.40"),
    ApiRoute("GET", "/fails/{how}", fails),
    ApiRoute("GET", "/images/{name:path}/json", echo),
    ApiRoute("POST", "/raw", raw, waits=True),
    ApiRoute("GET", "/waits", waits, waits=True),
    ApiRoute("POST", "/works", works),
    ApiRoute("GET", "/progress", progress, waits=True),
    ApiRoute("GET", "/endless", endless, waits=True),
    ApiRoute("GET", "/breaks", breaks, waits=True),
)
CLOSE = b"Host: d\r\nConnection: close\r\n"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory, authority: trustme.CA) -> Iterator[Serving]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with serving(tmp_path_factory.mktemp("api"), ROUTES, context) as running:
        yield running


@pytest.fixture(autouse=True)
def fresh() -> None:
    for event in (left, finished, entered):
        event.clear()


def parts(answer: bytes) -> tuple[int, dict[str, str], bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    return int(lines[0].split()[1]), headers, body


def test_an_answer_has_dockerds_headers(api: Serving) -> None:
    status, headers, body = parts(api.ask(b"GET /echo HTTP/1.1\r\n" + CLOSE + b"\r\n"))
    assert status == 200
    assert json.loads(body) == {"path": "/echo", "version": [1, 51], "body": ""}
    assert body.endswith(b"\n")
    assert headers["content-type"] == "application/json"
    assert headers["api-version"] == "1.51"
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
        ("GET /v1.51/images/a%2Fb/c:d/json", 200, None),
        (
            "GET /v1.23/echo",
            400,
            "client version 1.23 is too old. Minimum supported API version is 1.24, please upgrade your client to a"
            " newer version",
        ),
        ("GET /v1.99/echo", 400, "client version 1.99 is too new. Maximum supported API version is 1.51"),
        ("POST /v1.39/newer", 400, "POST /newer requires minimum API version 1.40"),
        ("GET /v1.99/nothing", 404, "page not found"),
        ("GET /fails/conflict", 409, "in use"),
        ("GET /fails/defect", 500, "internal error: see the daemon's log"),
        ("OPTIONS /anything", 200, None),
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


@pytest.mark.parametrize("early", [b"", b"early"])
@pytest.mark.parametrize("upgrade", [b"", b"Connection: Upgrade\r\nUpgrade: tcp\r\n", b"Upgrade: tcp\r\n"])
def test_hijack_keeps_the_body_and_early_bytes(api: Serving, early: bytes, upgrade: bytes) -> None:
    with api.connect() as sock:
        sock.sendall(b"POST /raw HTTP/1.1\r\nHost: d\r\n" + upgrade + b"Content-Length: 4\r\n\r\nbody" + early)
        head = read_until(sock, b"\r\n\r\n")
        status, headers, _ = parts(head)
        if upgrade:
            assert head.startswith(b"HTTP/1.1 101 UPGRADED\r\n")
            assert (headers["connection"], headers["upgrade"]) == ("Upgrade", "tcp")
        else:
            assert status == 200
        assert headers["content-type"] == "application/vnd.docker.raw-stream"
        sock.sendall(b"late")
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock) == b"body|" + (early + b"late").upper() + b"<tail>"


def test_hijack_of_a_chunked_body_that_trickles_in(api: Serving) -> None:
    request = (
        b"POST /raw HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"4\r\nbody\r\n0\r\n\r\nmore"
    )
    with api.connect() as sock:
        for index in range(len(request)):
            sock.sendall(request[index : index + 1])
        sock.shutdown(socket.SHUT_WR)
        assert parts(read_all(sock))[2] == b"body|MORE<tail>"


def test_a_large_stream_through_a_hijack(api: Serving) -> None:
    data = os.urandom(1 << 20).hex().encode() * 4
    with api.connect() as sock:
        sock.sendall(b"POST /raw HTTP/1.1\r\nHost: d\r\n\r\n")
        read_until(sock, b"\r\n\r\n|")

        def send() -> None:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        assert read_all(sock) == data.upper() + b"<tail>"
        sender.join()


def test_an_ignored_upgrade_is_answered_and_closed(api: Serving) -> None:
    answer = api.ask(b"GET /echo HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\nPRI *")
    status, headers, _ = parts(answer)
    assert (status, headers["connection"]) == (200, "close")


def tls(api: Serving, authority: trustme.CA) -> ssl.SSLSocket:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context.wrap_socket(
        socket.create_connection(("127.0.0.1", api.tls_port), DEADLINE), server_hostname="127.0.0.1"
    )


def test_tls_answers(api: Serving, authority: trustme.CA) -> None:
    with tls(api, authority) as sock:
        sock.sendall(b"POST /echo HTTP/1.1\r\nHost: d\r\nContent-Length: 300000\r\n\r\n" + b"x" * 300000)
        read_until(sock, b'"body":"')
        assert len(read_until(sock, b'"')) == 300001


def test_tls_relay_and_half_close(api: Serving, authority: trustme.CA) -> None:
    data = b"abcdefgh" * 65536
    with tls(api, authority) as sock:
        sock.sendall(b"POST /raw HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nearly")
        read_until(sock, b"\r\n\r\n")
        assert read_until(sock, b"EARLY") == b"|EARLY"
        got = b""
        sender = threading.Thread(target=sock.sendall, args=(data,))
        sender.start()
        while len(got) < len(data):
            got += sock.recv(65536)
        sender.join()
        assert got == data.upper()


def test_tls_half_close_keeps_the_output(api: Serving, authority: trustme.CA) -> None:
    """The client's close_notify only ends its input. (Python's own TLS sockets can't half-close.)"""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
    with socket.create_connection(("127.0.0.1", api.tls_port), DEADLINE) as sock:

        def pump() -> bool:
            """Sends pending bytes and receives available ones; False at the end of the stream."""
            if outgoing.pending:
                sock.sendall(outgoing.read())
            data = sock.recv(65536)
            incoming.write(data)
            return bool(data)

        while True:
            try:
                client.do_handshake()
                break
            except ssl.SSLWantReadError:
                pump()
        client.write(b"POST /raw HTTP/1.1\r\nHost: d\r\n\r\nhello")
        with pytest.raises(ssl.SSLWantReadError):
            client.unwrap()
        plain = b""
        while b"<tail>" not in plain:
            try:
                plain += client.read(65536)
            except ssl.SSLWantReadError:
                if not pump():
                    break
        # The bytes may arrive with the head or after it.
        assert plain.partition(b"\r\n\r\n")[2] == b"|HELLO<tail>"


def test_plain_http_on_a_tls_port(api: Serving) -> None:
    with socket.create_connection(("127.0.0.1", api.tls_port), DEADLINE) as sock:
        sock.sendall(b"GET /echo HTTP/1.1\r\nHost: d\r\n\r\n")
        assert b"Client sent an HTTP request to an HTTPS server." in read_all(sock)


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
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"complete nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: d\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: d\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: d\r\nContent-Length: -1\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
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
