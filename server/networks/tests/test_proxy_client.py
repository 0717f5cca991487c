"""The client of the proxy uses one connection, whichever caller is first. A fake proxy counts them."""

import asyncio
import json
from pathlib import Path

import pytest

from engine.common import timeouts
from engine.common.errors import WharfError
from engine.proxy.proxy import VERSION
from server.networks import proxy_client
from server.networks.proxy_client import Forwarder


class Proxy:
    """Answers everything after a moment; ``silent``: nothing."""

    def __init__(self, *, silent: bool = False) -> None:
        self.connections = 0
        self._silent = silent

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                (length,) = proxy_client._LENGTH.unpack(await reader.readexactly(proxy_client._LENGTH.size))
                request = json.loads(await reader.readexactly(length))
                await asyncio.sleep(0.01)
                if self._silent:
                    continue
                answer = {"n": request["n"], "version": VERSION, "owners": [], "views": [], "zones": []}
                data = json.dumps(answer).encode()
                writer.write(proxy_client._LENGTH.pack(len(data)) + data)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def readers() -> list[str]:
    return [task.get_name() for task in asyncio.all_tasks() if task.get_name() == "proxy-answers"]


def test_recovery_and_a_start_share_one_connection(tmp_path: Path) -> None:
    """The second connection replaced the first one, whose reader was destroyed while it waited."""

    async def scenario() -> None:
        proxy, path = Proxy(), str(tmp_path / "proxy.sock")
        server = await asyncio.start_unix_server(proxy.serve, path)
        forward = Forwarder(path)
        try:
            await asyncio.gather(forward.recover({}, {}, {}), forward.publish("one", []), forward.publish("two", []))
            assert proxy.connections == 1
            assert readers() == ["proxy-answers"]
        finally:
            await forward.close(end=False)
            server.close()
        assert readers() == []

    asyncio.run(scenario())


def test_an_unresponsive_proxy_leaves_no_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(timeouts._SECONDS, "network.proxy", 0.1)

    async def scenario() -> None:
        path = str(tmp_path / "proxy.sock")
        server = await asyncio.start_unix_server(Proxy(silent=True).serve, path)
        try:
            with pytest.raises(WharfError):
                await Forwarder(path).recover({}, {}, {})
            await asyncio.sleep(0)
            assert readers() == []
        finally:
            server.close()

    asyncio.run(scenario())
