"""A small HTTP client for the Engine API on a unix socket, which exposes the raw bytes of answers.

Each JSON answer is checked against the published API description.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote, urlencode

from compat_tests.swagger.check import check

DEADLINE = 90.0


class UnixConnection(http.client.HTTPConnection):
    """HTTP/1.1 over a unix socket."""

    def __init__(self, path: Path, *, timeout: float, credentials: Credentials | None = None) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = str(path)
        self._credentials = credentials

    def connect(self) -> None:
        self.sock = dial(Path(self._path), timeout=self.timeout, credentials=self._credentials)


@dataclass(frozen=True, slots=True)
class Credentials:
    """Those that the kernel shows to the other end of a unix socket."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()

    @contextlib.contextmanager
    def effective(self) -> Iterator[None]:
        """Give them to this process (to all of its threads) for a moment."""
        before = os.getgroups()
        os.setgroups(self.groups)
        os.setegid(self.gid)
        os.seteuid(self.uid)
        try:
            yield
        finally:
            os.seteuid(0)
            os.setegid(0)
            os.setgroups(before)


def dial(path: Path, *, timeout: float | None = DEADLINE, credentials: Credentials | None = None) -> socket.socket:
    """Connect to a unix socket, as the process itself or with other credentials."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(timeout)
    try:
        with credentials.effective() if credentials else contextlib.nullcontext():
            sock.connect(str(path))
    except BaseException:
        sock.close()
        raise
    return sock


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    def lines(self) -> list[Any]:
        """Return the objects of a stream of JSON lines."""
        return [json.loads(line) for line in self.body.splitlines() if line.strip()]

    @property
    def message(self) -> str:
        """Return the message of an error."""
        return str(self.json()["message"])

    @property
    def error(self) -> tuple[int, str]:
        """Return the status and the message of an error."""
        return self.status, self.message


class Api:
    """Sends requests to one engine. Each call uses a connection of its own, or one of :meth:`connection`."""

    #: Whether all instances check the answers. The benchmark does not: a check takes longer than most requests.
    checked: ClassVar[bool] = True

    def __init__(self, path: Path, *, version: str = "", credentials: Credentials | None = None) -> None:
        self.path = path
        self.credentials = credentials
        self.prefix = f"/v{version}" if version else ""

    def connection(self, *, timeout: float = DEADLINE) -> UnixConnection:
        return UnixConnection(self.path, timeout=timeout, credentials=self.credentials)

    def raw(self, *, timeout: float = DEADLINE) -> socket.socket:
        """Return a bare socket, for requests that http.client refuses to send."""
        return dial(self.path, timeout=timeout, credentials=self.credentials)

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, object] | None = None,
        data: object = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = DEADLINE,
        on: UnixConnection | None = None,
    ) -> Answer:
        """Send a request (`data` as JSON, or `body` unchanged) and read the whole answer.

        :raises Deviation: the answer deviates from the API description.
        """
        connection = on or self.connection(timeout=timeout)
        try:
            sent = dict(headers or {})
            if data is not None:
                body = json.dumps(data).encode()
                sent.setdefault("Content-Type", "application/json")
            url = self.prefix + quote(path, safe="/:@?=&%+,") + (f"?{urlencode(query, doseq=True)}" if query else "")
            connection.request(method, url, body=body, headers=sent)
            response = connection.getresponse()
            answer = Answer(response.status, {k.title(): v for k, v in response.getheaders()}, response.read())
            media_type, newest = (answer.headers.get(name, "") for name in ("Content-Type", "Api-Version"))
            if self.checked:
                check(method, url, answer.status, media_type, newest, answer.body)
            return answer
        finally:
            if on is None:
                connection.close()

    def get(self, path: str, **query: object) -> Answer:
        return self.request("GET", path, query=query)

    def post(self, path: str, data: object = None, **query: object) -> Answer:
        return self.request("POST", path, data=data, query=query)

    def delete(self, path: str, **query: object) -> Answer:
        return self.request("DELETE", path, query=query)


class TcpApi(Api):
    """The API on a TCP port of the loopback."""

    def __init__(self, port: int) -> None:
        super().__init__(Path())
        self.port = port

    def connection(self, *, timeout: float = DEADLINE) -> http.client.HTTPConnection:  # type: ignore[override]
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
