"""A web server on loopback: a directory's files, and its bare repositories by git's HTTP protocol."""

from __future__ import annotations

import contextlib
import http.server
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from compat_tests.support.servers.loopback import LoopbackServer

ME = {f"GIT_{who}_{what}": "t@t" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


def git(folder: Path, *args: str) -> str:
    """Run git; return its output."""
    done = subprocess.run(
        ["git", "-C", str(folder), *args],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **ME},
    )
    return done.stdout.strip()


def repository(folder: Path, name: str, files: dict[str, str]) -> str:
    """Create a bare repository `<name>.git` in the directory with one commit on `main`; return the commit."""
    work = folder / f"{name}-work"
    for path, text in files.items():
        (work / path).parent.mkdir(parents=True, exist_ok=True)
        (work / path).write_text(text)
    for args in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-qm", "one"]):
        git(work, *args)
    git(folder, "clone", "-q", "--bare", str(work), f"{name}.git")
    return git(work, "rev-parse", "HEAD")


class _Handler(http.server.SimpleHTTPRequestHandler):
    folder = ""

    def __init__(self, *args: object, **options: object) -> None:
        super().__init__(*args, directory=self.folder)  # type: ignore[arg-type]

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""

    def do_GET(self) -> None:
        if ".git/" in self.path:
            self._git()
        else:
            super().do_GET()

    def do_POST(self) -> None:
        self._git()

    def _git(self) -> None:
        """Run `git http-backend` as a web server does."""
        url = urlsplit(self.path)
        environment = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": self.folder,
            "GIT_HTTP_EXPORT_ALL": "1",
            "REQUEST_METHOD": self.command,
            "PATH_INFO": url.path,
            "QUERY_STRING": url.query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
        }
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        done = subprocess.run(
            ["git", "http-backend"], input=body, capture_output=True, env=environment, check=False, timeout=60
        )
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if ": " in line)
        self.send_response(int(fields.pop("Status", "200").split()[0]))
        for key, value in fields.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Run the server; yield its address."""
    with LoopbackServer(type("Handler", (_Handler,), {"folder": str(folder)})) as server:
        yield f"http://{server.address}"
