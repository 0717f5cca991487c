"""A volume plugin in a thread, which can be made to misbehave."""

import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson

Answer = dict[str, Any] | bytes


class Plugin:
    """Stores volumes by name. ``instead``: replacement answers of methods; bytes are sent unchanged, and a function may
    block. ``implements``: its activation answer. ``tls``: it uses TCP and TLS."""

    def __init__(
        self, path: Path, implements: object = ("VolumeDriver",), *, tls: ssl.SSLContext | None = None
    ) -> None:
        self.path = path
        self._tls = tls
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.volumes: dict[str, dict[str, Any]] = {}
        self.instead: dict[str, Callable[[dict[str, Any]], Answer]] = {}
        self._implements = implements
        self._sock = socket.socket(socket.AF_UNIX if tls is None else socket.AF_INET)
        self._sock.bind(str(path) if tls is None else ("127.0.0.1", 0))
        self._sock.listen(8)
        self._closing = False
        self._threads = [threading.Thread(target=self._serve)]
        self._threads[0].start()

    @property
    def port(self) -> int:
        return int(self._sock.getsockname()[1])

    def words(self) -> list[str]:
        return [method.removeprefix("VolumeDriver.") for method, _ in self.calls]

    def _answer(self, method: str, body: dict[str, Any]) -> Answer:
        self.calls.append((method, body))
        word, name = method.removeprefix("VolumeDriver."), body.get("Name", "")
        if word in self.instead:
            return self.instead[word](body)
        match word:
            case "Plugin.Activate":
                return {"Implements": self._implements}
            case "Capabilities":
                return {"Capabilities": {"Scope": "global"}}
            case "Create" if "bad" in body["Opts"]:
                return {"Err": "no such thing"}
            case "Create":
                self.volumes[name] = {"Name": name, "Status": {"size": 7}}
            case "List":
                return {"Volumes": list(self.volumes.values())}
            case _ if name not in self.volumes:
                return {"Err": f"volume {name} is not here"}
            case "Get":
                return {"Volume": self.volumes[name]}
            case "Remove":
                del self.volumes[name]
            case "Mount" | "Path":
                return {"Mountpoint": self.volumes[name].get("Mountpoint") or f"/mnt/{name}"}
        return {}

    def _serve(self) -> None:
        while True:
            client, _ = self._sock.accept()
            if self._closing:
                client.close()
                return
            if self._tls is not None:
                try:
                    client = self._tls.wrap_socket(client, server_side=True)
                except OSError:
                    continue  # one side doesn't trust the other; the socket is closed
            with client.makefile("rb") as file:
                line = file.readline().decode()
                if not line:
                    client.close()
                    continue
                length = 0
                while (header := file.readline().strip()) != b"":
                    if header.lower().startswith(b"content-length:"):
                        length = int(header.split(b":")[1])
                question = line.split()[1].lstrip("/"), orjson.loads(file.read(length))
            # One thread each: a slow one must not block others.
            self._threads.append(threading.Thread(target=self._reply, args=(client, *question)))
            self._threads[-1].start()

    def _reply(self, client: socket.socket, method: str, body: dict[str, Any]) -> None:
        with client:
            answer = self._answer(method, body)
            if isinstance(answer, dict):
                answer = b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n" + orjson.dumps(answer)
            try:
                client.sendall(answer)
            except OSError:
                return  # the client has given up

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing = True
        with socket.socket(self._sock.family) as last:
            last.connect(self._sock.getsockname())
        for thread in self._threads:
            thread.join(60)
        self._sock.close()
        self.path.unlink(missing_ok=self._tls is not None)
