"""Requests to an engine over its unix socket."""

import http.client
import json
import os
import socket
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlencode

Answer = http.client.HTTPResponse

DEFAULT_HOST = "unix:///run/wharf/docker.sock"

# Seconds for which the engine may be silent.
_PATIENCE = 60.0
# What any Docker Engine answers to a path that it doesn't have.
_UNKNOWN_PATH = "page not found"


class Failure(Exception):
    """The command failed; the text is for the user."""


class MissingEndpoint(Failure):
    """The engine has no such endpoint."""


def host(given: str = "") -> str:
    """The engine's address: ``given``, or that of the environment."""
    return given or os.environ.get("WHARF_HOST") or os.environ.get("DOCKER_HOST") or DEFAULT_HOST


class Client:
    """``address``: ``unix://PATH``.

    :raises Failure: another kind of address; all methods: the engine can't be reached, or it refuses the request.
    """

    def __init__(self, address: str) -> None:
        scheme, separator, path = address.partition("://")
        if not separator or scheme != "unix" or not path.startswith("/"):
            raise Failure(f"{address}: wharf needs a unix socket, unix:///PATH, in -H, WHARF_HOST or DOCKER_HOST")
        self.path = path

    def get(self, path: str, **query: object) -> Any:
        return self._json(self._ask("GET", _with_query(path, query)))

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        return self._json(self._ask("POST", path, json.dumps(body)))

    def delete(self, path: str) -> None:
        self._ask("DELETE", path).read()

    def lines(self, path: str, *, endless: bool = False, **query: object) -> Iterator[str]:
        """The lines of an answer, as they arrive. ``endless``: the engine may be silent for any time."""
        answer = self._ask("GET", _with_query(path, query), endless=endless)
        try:
            for line in answer:
                yield line.decode(errors="replace").rstrip("\n")
        except (OSError, http.client.HTTPException) as error:
            raise Failure(f"{self.path}: the answer ended early: {error}") from None

    def _ask(self, method: str, path: str, body: str | None = None, *, endless: bool = False) -> Answer:
        connection = _Connection(self.path)
        headers = {"Content-Type": "application/json"} if body is not None else {}
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            if endless and connection.sock is not None:
                connection.sock.settimeout(None)
        except PermissionError:
            raise Failure(
                f"no permission to connect to {self.path}: set DOCKER_HOST to the engine's socket for users, "
                "such as unix:///run/wharf/users.sock"
            ) from None
        except (FileNotFoundError, ConnectionRefusedError):
            raise Failure(f"no engine listens on {self.path}: is wharfd running?") from None
        except TimeoutError:
            raise Failure(f"{self.path}: no answer for {_PATIENCE:.0f} s") from None
        except (OSError, http.client.HTTPException) as error:
            raise Failure(f"{self.path}: {error}") from None
        if answer.status >= 400:
            raise self._refusal(answer)
        return answer

    def _refusal(self, answer: Answer) -> Failure:
        document = self._json(answer)
        message = document.get("message") if isinstance(document, dict) else None
        if answer.status == 404 and message == _UNKNOWN_PATH:
            return MissingEndpoint(f"the engine at {self.path} has no /wharf/v1: it is no Wharf, or an older one")
        return Failure(str(message or f"{self.path}: status {answer.status}"))

    def _json(self, answer: Answer) -> Any:
        try:
            return json.loads(answer.read())
        except (OSError, http.client.HTTPException) as error:
            raise Failure(f"{self.path}: the answer ended early: {error}") from None
        except ValueError:
            raise Failure(f"{self.path}: the answer is no JSON: is this a Docker Engine's socket?") from None


class _Connection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("docker", timeout=_PATIENCE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        try:
            self.sock.connect(self._path)
        except BaseException:
            self.sock.close()
            raise


def _with_query(path: str, query: Mapping[str, object]) -> str:
    given = {name: value for name, value in query.items() if value not in (None, "")}
    return f"{path}?{urlencode(given)}" if given else path
