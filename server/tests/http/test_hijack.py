"""Hijacked connections, plain and over TLS: early bytes, half-closes, upgrades."""

import os
import socket
import ssl
import threading

import pytest
import trustme

from server.tests.http.endpoints import parts
from server.tests.http.serving import DEADLINE, Serving, read_all, read_until


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


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def test_http2_from_the_first_byte(api: Serving) -> None:
    """The connection is handled as an upgrade on /grpc, without a head of HTTP/1.1, and with the preface."""
    with api.connect() as sock:
        for index in range(len(PREFACE)):
            sock.sendall(PREFACE[index : index + 1])
        sock.sendall(b"frames")
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock) == b"|" + PREFACE + b"FRAMES<tail>"
    for wrong in (PREFACE[:-1] + b"x", b"GET /echo HTTP/1.1\r\nHost: d\r\n\r\n" + PREFACE):
        assert b"HTTP/1.1 400 Bad Request" in api.ask(wrong)


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
