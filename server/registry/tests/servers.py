"""A registry with scripted responses, on a loopback port that the kernel chooses."""

import http.server
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

Answer = tuple[int, dict[str, str], bytes]


@dataclass(slots=True)
class Seen:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(slots=True)
class Scripted:
    """``answer(request)`` returns the response; every request is recorded."""

    answer: Callable[[Seen], Answer]
    address: str = ""
    seen: list[Seen] = field(default_factory=list)

    def paths(self) -> list[str]:
        return [f"{request.method} {request.path}" for request in self.seen]


@contextmanager
def scripted(answer: Callable[[Seen], Answer], tls: ssl.SSLContext | None = None) -> Iterator[Scripted]:
    server = Scripted(answer)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            headers = {name.lower(): value for name, value in self.headers.items()}
            request = Seen(self.command, self.path, headers, self.rfile.read(length))
            server.seen.append(request)
            status, fields, body = server.answer(request)
            declared = int(fields.pop("content-length", len(body)))
            self.send_response(status)
            for name, value in fields.items():
                self.send_header(name, value)
            self.send_header("content-length", str(declared))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)
            if declared > len(body):
                self.close_connection = True  # the client expects more: close the connection

        do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = _serve

        def log_message(self, format: str, *args: object) -> None:
            return

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        listener.daemon_threads = True
        if tls is not None:
            listener.socket = tls.wrap_socket(listener.socket, server_side=True)
        server.address = f"127.0.0.1:{listener.server_address[1]}"
        thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            listener.shutdown()
            thread.join()
