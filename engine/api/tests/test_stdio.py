"""The daemon's side of a stdio socket."""

import asyncio
import contextlib
import socket
from pathlib import Path

from engine.api.stdio import Stdio
from engine.shim import protocol

PATIENCE = 60.0


def test_a_listener_with_a_full_queue_is_waited_for(tmp_path: Path) -> None:
    """As when a hundred clients run an exec in one container at once."""
    path = str(tmp_path / "stdio.sock")

    async def main(listener: socket.socket, stack: contextlib.ExitStack) -> None:
        loop = asyncio.get_running_loop()
        waiting = 0
        while True:
            sock = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK))
            try:
                sock.connect(path)
            except BlockingIOError:
                break
            waiting += 1
        asking = asyncio.create_task(Stdio(path).drained())
        await asyncio.sleep(0)
        for _ in range(waiting):
            stack.enter_context((await loop.sock_accept(listener))[0])
        line = stack.enter_context((await loop.sock_accept(listener))[0])
        data = await loop.sock_recv(line, 4096)
        (message, _tail), *_ = protocol.Decoder().feed(data)
        assert message["op"] == "drained"
        await loop.sock_sendall(line, protocol.encode({"drained": True}))
        await asking

    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(protocol.listen(path, backlog=1))
        asyncio.run(asyncio.wait_for(main(listener, stack), PATIENCE))
