"""GET /events: clients that read slowly."""

from __future__ import annotations

import json

from compat_tests.support.engines import Engine


def test_a_slow_client_gets_every_event_in_order(engine: Engine) -> None:
    """More events than the buffers of the connection hold, while the client reads nothing."""
    names = [f"slow{number}" for number in range(600)]
    with engine.api.raw() as sock:
        sock.settimeout(60)
        sock.sendall(b'GET /events?filters={"type":["volume"]} HTTP/1.1\r\nHost: docker\r\n\r\n')
        received = b""
        while b"\r\n\r\n" not in received:
            received += sock.recv(1 << 16)
        for name in names:
            assert engine.api.post("/volumes/create", {"Name": name}).status == 201
            assert engine.api.delete(f"/volumes/{name}").status == 204
        while received.count(b'"destroy"') < len(names):
            part = sock.recv(1 << 16)
            assert part
            received += part
    lines = [line for line in received.splitlines() if line.startswith(b"{")]
    seen = [(event["Action"], event["Actor"]["ID"]) for event in map(json.loads, lines)]
    assert seen == [(action, name) for name in names for action in ("create", "destroy")]
