"""A volume plugin over its socket: found, activated, used, and its errors told."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from engine.errors import Kind, WharfError
from server.services.volumes.local import LocalDriver
from server.services.volumes.plugin import LegacyPlugins
from server.services.volumes.service import Volumes
from server.services.volumes.tests.stores import MemoryBus, MemoryStore


class Plugin:
    """A volume plugin in a thread."""

    def __init__(self, path: Path) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.bind(str(path))
        self._sock.listen(8)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def answer(self, method: str, body: dict[str, Any]) -> dict[str, Any]:
        self.calls.append((method, body))
        match method:
            case "Plugin.Activate":
                return {"Implements": ["VolumeDriver"]}
            case "VolumeDriver.Capabilities":
                return {"Capabilities": {"Scope": "global"}}
            case "VolumeDriver.Mount":
                return {"Mountpoint": f"/mnt/{body['Name']}"}
            case "VolumeDriver.Create" if "bad" in body["Opts"]:
                return {"Err": "no such thing"}
        return {}

    def _serve(self) -> None:
        while True:
            client, _ = self._sock.accept()
            with client, client.makefile("rb") as file:
                line = file.readline().decode()
                if not line:
                    return
                length = 0
                while (header := file.readline().strip()) != b"":
                    if header.lower().startswith(b"content-length:"):
                        length = int(header.split(b":")[1])
                answer = self.answer(line.split()[1].lstrip("/"), orjson.loads(file.read(length)))
                client.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n" + orjson.dumps(answer))

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX) as last:
            last.connect(self._sock.getsockname())
        self._thread.join(60)
        self._sock.close()


@pytest.fixture
def plugin(tmp_path: Path) -> Iterator[Plugin]:
    running = Plugin(tmp_path / "odd.sock")
    with contextlib.closing(running):
        yield running


def test_a_plugins_volume(tmp_path: Path, plugin: Plugin) -> None:
    async def scenario() -> None:
        plugins = LegacyPlugins((tmp_path,), ())
        volumes = Volumes(MemoryStore(), MemoryBus(), LocalDriver(tmp_path / "volumes"), plugins)
        volume = await volumes.create("vol", "odd", options={"a": "b"})
        assert (volume.driver, volume.scope) == ("odd", "global")
        assert await volumes.mount("vol", "c1:/x") == "/mnt/vol"
        assert await volumes.mount("vol", "c2:/x") == "/mnt/vol"
        await volumes.unmount("vol", "c1:/x")
        await volumes.unmount("vol", "c2:/x")
        with pytest.raises(WharfError, match=r"^create other: VolumeDriver.Create: no such thing$"):
            await volumes.create("other", "odd", options={"bad": "1"})
        with pytest.raises(WharfError, match="driver 'odd' already has volume 'vol'") as caught:
            await volumes.create("vol", "local")
        assert caught.value.kind is Kind.CONFLICT
        await volumes.remove("vol")
        assert volumes.driver_names() == ["local", "odd"]
        with pytest.raises(WharfError, match='error looking up volume plugin nosuch: plugin "nosuch" not found'):
            await volumes.create("vol", "nosuch")

    asyncio.run(scenario())
    words = [method.removeprefix("VolumeDriver.") for method, _ in plugin.calls]
    assert words == [
        *("Plugin.Activate", "Capabilities", "Create", "Path", "Mount"),
        *("Unmount", "Create", "Remove"),
    ]
    assert plugin.calls[2][1] == {"Name": "vol", "Opts": {"a": "b"}}
