"""Plugins of Docker's legacy protocol: JSON over HTTP on a socket in an engine's plugin directory."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from compat_tests.support.engines import Engine


def response(status: int, body: bytes) -> bytes:
    head = f"HTTP/1.0 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


class Plugin:
    """A plugin in the test's process. ``calls``: (method, body) of each call, appended before its answer is sent."""

    def __init__(self, engine: Engine, name: str) -> None:
        self.name = name
        self.path = engine.plugins / f"{name}.sock"
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.threads: list[threading.Thread] = []
        engine.plugins.mkdir(parents=True, exist_ok=True)
        self.open()

    def open(self) -> None:
        """Listen; for a second time after :meth:`close`, as a plugin does that was restarted."""
        self._closing = False
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._sock.bind(str(self.path))
        self._sock.listen()
        self.run_in_thread(self._serve)

    def run_in_thread(self, function: Any, *args: object) -> None:
        """Run a function in a thread that is joined at the end."""
        self.threads.append(threading.Thread(target=function, args=args, daemon=True))
        self.threads[-1].start()

    def answer(self, method: str, body: dict[str, Any]) -> dict[str, Any] | bytes:
        """Return the answer's JSON with the status 200, or all bytes to send."""
        raise NotImplementedError

    def _serve(self) -> None:
        while not self._closing:
            try:
                connection, _ = self._sock.accept()
            except OSError:
                return
            # One thread each: an answer may wait, and an engine asks several questions at a time.
            self.run_in_thread(self._reply, connection)

    def _reply(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, IndexError), connection, connection.makefile("rb") as reader:
            method = reader.readline().split()[1][1:].decode()
            size = 0
            while (line := reader.readline().strip()) != b"":
                if line.lower().startswith(b"content-length:"):
                    size = int(line.split(b":")[1])
            body = json.loads(reader.read(size) or b"{}")
            answer = self.answer(method, body)
            self.calls.append((method, body))
            connection.sendall(answer if isinstance(answer, bytes) else response(200, json.dumps(answer).encode()))

    def close(self) -> None:
        """Remove the socket, after all answers."""
        self._closing = True
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()
        self.path.unlink()
        for thread in self.threads:
            thread.join(60)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class VolumePlugin(Plugin):
    """A volume driver with its volumes below a directory. ``mounted``: the users of a volume, by its name."""

    def __init__(self, engine: Engine, name: str, directory: Path) -> None:
        self.directory = directory
        self.mounted: dict[str, set[str]] = {}
        super().__init__(engine, name)

    def answer(self, method: str, body: dict[str, Any]) -> dict[str, Any]:
        if method == "Plugin.Activate":
            return {"Implements": ["VolumeDriver"]}
        call, name = method.removeprefix("VolumeDriver."), body.get("Name", "")
        path = self.directory / name
        if call == "Capabilities":
            return {"Capabilities": {"Scope": "global"}, "Err": ""}
        if call == "Create":
            path.mkdir()
        elif call == "List":
            return {"Volumes": [self._describe(each) for each in sorted(os.listdir(self.directory))], "Err": ""}
        elif not path.is_dir():
            return {"Err": f"{name} is none of mine"}
        elif call == "Get":
            return {"Volume": {**self._describe(name), "Status": {"kept": "in a directory"}}, "Err": ""}
        elif call == "Remove":
            shutil.rmtree(path)
        elif call == "Mount":
            self.mounted.setdefault(name, set()).add(body["ID"])
            return {"Mountpoint": str(path), "Err": ""}
        elif call == "Unmount":
            self.mounted[name].remove(body["ID"])
        elif call == "Path":
            return {"Mountpoint": str(path), "Err": ""}
        return {"Err": ""}

    def _describe(self, name: str) -> dict[str, Any]:
        return {"Name": name, "Mountpoint": str(self.directory / name), "CreatedAt": "2024-05-06T07:08:09Z"}


class AuthorizationPlugin(Plugin):
    """Allows every request and response, unless ``rule`` has another answer.

    ``rule`` gets "Req" or "Res" and what the engine shows, and returns an answer or None.
    """

    def __init__(self, engine: Engine, name: str) -> None:
        self.rule: Callable[[str, dict[str, Any]], dict[str, Any] | bytes | None] = lambda _kind, _body: None
        super().__init__(engine, name)

    def answer(self, method: str, body: dict[str, Any]) -> dict[str, Any] | bytes:
        if method == "Plugin.Activate":
            return {"Implements": ["authz"]}
        verdict = self.rule(method.removeprefix("AuthZPlugin.AuthZ"), body)
        return {"Allow": True} if verdict is None else verdict

    def shown(self, kind: str, path: str = "") -> list[dict[str, Any]]:
        """Return what was shown of requests ("Req") or responses ("Res") whose URI contains ``path``."""
        return [body for method, body in self.calls if method.endswith(kind) and path in body["RequestUri"]]


def body_of(shown: dict[str, Any], name: str = "RequestBody") -> bytes:
    """Return a body that an authorization plugin was shown."""
    return base64.b64decode(shown.get(name, ""))
