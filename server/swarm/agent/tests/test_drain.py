"""Connections of a server, as the kernel shows them."""

import os
import socket

import pytest

from server.swarm.agent.drain import busy


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::")])
def test_a_server_is_busy_until_its_connections_end(family: socket.AddressFamily, host: str) -> None:
    with socket.create_server((host, 0), family=family, dualstack_ipv6=family == socket.AF_INET6) as server:
        port = server.getsockname()[1]
        assert not busy(os.getpid(), {"127.0.0.2"})
        with socket.create_connection(("127.0.0.1", port)) as client:
            assert busy(os.getpid(), {"127.0.0.1"})
            assert not busy(os.getpid(), {"127.0.0.2", "::1"})
            accepted, _ = server.accept()
            client.shutdown(socket.SHUT_WR)
            # The request is complete, the answer isn't sent.
            assert busy(os.getpid(), {"127.0.0.1"})
            accepted.close()
            assert client.recv(1) == b""
