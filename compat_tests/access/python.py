"""The host's Python in containers of users, which sends requests to the engine over a mounted socket, and as a
set-user-ID program. The users can't execute the Python of the tests."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from compat_tests.support.daemons import Completed
from compat_tests.support.engines import Wharf
from compat_tests.support.users import User

PYTHON = "/usr/bin/python3"
SOCKET = "/engine.sock"  # in the container
LIST = f"""
import socket
client = socket.socket(socket.AF_UNIX)
client.connect("{SOCKET}")
client.sendall(b"GET /containers/json?all=1 HTTP/1.0\\r\\n\\r\\n")
while data := client.recv(65536):
    print(data.decode(), end="")
"""


def python_binds(*more: str) -> list[str]:
    """Options of ``docker run`` that mount the host's Python, and more binds."""
    binds = ("/usr:/usr:ro", "/usr/lib:/lib:ro", "/usr/lib64:/lib64:ro", *more)
    return [word for bind in binds for word in ("-v", bind)]


def list_in_container(client: User | Wharf, socket: Path, *, check: bool = True) -> Completed:
    """Ask for all containers in a new container of the client, over this socket; the output is the raw answer."""
    binds = python_binds(f"{socket}:{SOCKET}")
    return client.docker("run", "--rm", *binds, "busybox", PYTHON, "-c", LIST, check=check)


@contextlib.contextmanager
def set_uid_python(uid: int) -> Iterator[Path]:
    """A copy of Python with the set-user-ID bit, which belongs to this user and which everybody may execute."""
    folder = Path(f"/var/tmp/wt{os.getpid()}setuid")
    folder.mkdir(mode=0o755)
    try:
        program = folder / "python"
        shutil.copy(os.path.realpath(PYTHON), program)
        os.chown(program, uid, uid)
        program.chmod(0o755 | stat.S_ISUID)
        yield program
    finally:
        shutil.rmtree(folder)
