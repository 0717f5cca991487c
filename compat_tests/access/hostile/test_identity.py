"""Ways to make requests as another user: descriptors, setuid programs, namespaces, containers, cgroups, pids."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from compat_tests.access.hostile.conftest import Victim
from compat_tests.access.python import PYTHON, SOCKET, python_binds, set_uid_python
from compat_tests.support.api import dial
from compat_tests.support.polling import until
from compat_tests.support.users import Lab, User

#: Asks over a connected socket, which is descriptor 3: the names of the containers, or the error.
ASK = """
import json, socket
def ask(client):
    client.setblocking(True)
    client.sendall(b"GET /containers/json?all=1 HTTP/1.0\\r\\n\\r\\n")
    data = b""
    while received := client.recv(65536):
        data += received
    found = json.loads(data.partition(b"\\r\\n\\r\\n")[2])
    print([row["Names"][0] for row in found] if isinstance(found, list) else found["message"], flush=True)
"""
CONNECT = f"""
{ASK}
import sys
client = socket.socket(socket.AF_UNIX)
client.connect(sys.argv[1])
ask(client)
"""
INHERIT = f"{ASK}\nask(socket.socket(fileno=3))\n"
REFUSED = "the policy of this engine gives no role to "


@pytest.fixture(scope="module")
def bob(hostile_lab: Lab, victim: Victim) -> Iterator[User]:
    """He has one container, which is created."""
    user = hostile_lab["bob"]
    user.docker("create", "--name", "bobs", "busybox")
    yield user
    user.docker("rm", "-f", "bobs")


def _python(script: str, *words: str, **options: object) -> str:
    argv = [PYTHON, "-c", script, *words]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, **options)  # type: ignore[call-overload]
    return str(done.stdout or done.stderr).strip()


def _inherited(user: User, uid: int) -> str:
    """What a process with another uid gets over a connection that a process of the user has made."""
    with dial(user.socket, credentials=user.credentials) as client:
        script = f"import os\nos.dup2({client.fileno()}, 3)\n{INHERIT}"
        return _python(script, pass_fds=[client.fileno()], user=uid, group=uid, extra_groups=[])


def test_a_connection_belongs_to_who_connected(hostile_lab: Lab, victim: Victim, bob: User) -> None:
    """Passed to another process, inherited, or used after a setuid program was executed: even by root."""
    alice = hostile_lab["alice"]
    assert _inherited(bob, alice.credentials.uid) == "['/bobs']"
    assert _inherited(bob, 0) == "['/bobs']"
    assert _inherited(alice, bob.credentials.uid) == "['/vic-web']"  # alice has passed her connection on


@pytest.fixture
def setuid(hostile_lab: Lab) -> Iterator[Path]:
    """A Python that is setuid to mallory, which bob may execute."""
    with set_uid_python(hostile_lab["mallory"].credentials.uid) as program:
        yield program


def test_a_setuid_program(hostile_lab: Lab, victim: Victim, bob: User, setuid: Path) -> None:
    """Who executes it connects as its owner, as for the kernel; a connection from before is the caller's."""
    mallory = hostile_lab["mallory"]
    mallory.docker("create", "--name", "mallorys", "busybox")
    identity = {"user": bob.credentials.uid, "group": bob.credentials.gid, "extra_groups": []}
    try:

        def run(script: str, *words: str, fds: tuple[int, ...] = ()) -> str:
            argv = [str(setuid), "-c", script, *words]
            done = subprocess.run(  # type: ignore[call-overload]
                argv, capture_output=True, text=True, timeout=60, check=False, pass_fds=fds, **identity
            )
            return str(done.stdout or done.stderr).strip()

        assert run(CONNECT, str(bob.socket)) == "['/mallorys']"
        with dial(bob.socket, credentials=bob.credentials) as client:
            script = f"import os\nos.dup2({client.fileno()}, 3)\n{INHERIT}"
            assert run(script, fds=(client.fileno(),)) == "['/bobs']"
    finally:
        mallory.docker("rm", "mallorys")


def test_root_of_a_user_namespace(victim: Victim, bob: User) -> None:
    done = bob.run("unshare", "-Ur", "true", check=False)
    if done.status:
        pytest.skip("users of this host can't make user namespaces")
    script = f"import os\nassert os.getuid() == 0\n{CONNECT}"
    found = bob.run("unshare", "-Ur", PYTHON, "-c", script, str(bob.socket))
    assert found.stdout == "['/bobs']\n"


REACHED = """
import os, socket, sys
for path in sys.argv[1:]:
    try:
        os.chdir(os.path.dirname(path))  # the path may be too long for an address
        socket.socket(socket.AF_UNIX).connect(os.path.basename(path))
        print(path)
    except PermissionError:
        pass
"""


def test_the_other_sockets_of_the_engine(hostile_lab: Lab, victim: Victim, bob: User) -> None:
    """The administrators' socket, containerd's API, those of the shims: a user can't connect."""
    found = hostile_lab.engine.resources.root.rglob("*")
    sockets = [str(path) for path in found if path.is_socket() and path != bob.socket]
    assert len(sockets) >= 2
    assert bob.run(PYTHON, "-c", REACHED, *sockets, str(bob.socket)).stdout == f"{bob.socket}\n"


def test_files_of_the_engine(hostile_lab: Lab, victim: Victim, bob: User) -> None:
    """Nothing below the data root or the exec root can be read or entered by a user."""
    secret = {path for path in hostile_lab.engine.resources.root.rglob("*") if path.name in ("wharf.db", "config.json")}
    assert secret
    for path in secret:
        assert bob.run("cat", str(path), check=False).status == 1, path


def test_containers_that_ask_at_once(victim: Victim, bob: User) -> None:
    """A process in a container is its owner from its first moment to its last, whatever its uid there."""
    script = CONNECT.replace("sys.argv[1]", repr(SOCKET))
    binds = python_binds(f"{bob.socket}:{SOCKET}")
    with contextlib.ExitStack() as stack:
        ids = []
        for _ in range(6):
            id = bob.docker("create", *binds, "busybox", PYTHON, "-c", script).stdout.strip()
            stack.callback(bob.docker, "rm", "-f", id)
            ids.append(id)
        busy = [bob.api.raw() for _ in range(20)]  # requests that keep the engine busy meanwhile
        for each in busy:
            stack.callback(each.close)
            each.sendall(b"GET /system/df HTTP/1.1\r\nHost: docker\r\n\r\n" * 3)
        bob.docker("start", *ids)
        bob.docker("wait", *ids)
        for id in ids:
            said = bob.docker("logs", id).output
            assert "vic-web" not in said
            assert "/bobs" in said or REFUSED in said, said


#: A process leaves its container's session and asks after the first process of the container has ended.
OUTLIVE = f"""
{ASK}
import os, sys, time
if os.fork():
    time.sleep(0.5)
    os._exit(0)
os.setsid()
sys.stdout = open("/home/answers", "w")
end = time.monotonic() + 4
while time.monotonic() < end:
    client = socket.socket(socket.AF_UNIX)
    try:
        client.connect("{SOCKET}")
        ask(client)
    except (OSError, ValueError) as error:
        print(error, flush=True)
    client.close()
"""


def test_a_process_that_outlives_its_container(victim: Victim, bob: User) -> None:
    """In the pid namespace of another container, a process may live on after the first one of its own container."""
    bob.docker("run", "-d", "--name", "init", "busybox", "sleep", "60")
    try:
        binds = python_binds(f"{bob.socket}:{SOCKET}", f"{bob.home}:/home")
        words = ("--name", "left", "--pid", "container:init", *binds, "busybox", PYTHON, "-c", OUTLIVE)
        id = bob.docker("run", "-d", *words).stdout.strip()
        bob.docker("wait", id)
        assert until(lambda: PYTHON not in bob.docker("exec", "init", "ps").stdout)
        answers = (bob.home / "answers").read_text()
        assert "/bobs" in answers
        assert "/vic-web" not in answers
    finally:
        bob.docker("rm", "-f", "left", "init")


def test_a_cgroup_with_the_name_of_a_container(hostile_lab: Lab, victim: Victim, bob: User) -> None:
    """A user who may create cgroups names one as the victim's container."""
    base = next(path for path in (Path("/sys/fs/cgroup/pids"), Path("/sys/fs/cgroup")) if path.is_dir())
    delegated = base / f"wt{os.getpid()}delegated"
    delegated.mkdir()
    forged = delegated / "docker" / victim.container
    try:
        forged.mkdir(parents=True)
        for path in (delegated, forged, forged / "cgroup.procs"):
            os.chown(path, bob.credentials.uid, bob.credentials.gid)
        script = f"open({str(forged / 'cgroup.procs')!r}, 'w').write('0')\n"
        # The user's move needs a common ancestor on cgroup v2: root moves the process in place of the user.
        script += f"import os\nos.setgid({bob.credentials.gid})\nos.setuid({bob.credentials.uid})\n{CONNECT}"
        said = _python(script, str(bob.socket))
        assert said == "['/bobs']" or REFUSED in said
    finally:
        assert until(lambda: not (forged / "cgroup.procs").read_text())
        for path in (forged, forged.parent, delegated):
            path.rmdir()


def test_a_client_that_has_ended(victim: Victim, bob: User) -> None:
    """The pid of a client that has ended may be that of another process: it has no identity."""
    script = """
import os, socket, sys
client = socket.socket(socket.AF_UNIX)
client.connect(sys.argv[1])
if os.fork():
    os._exit(0)
import time
time.sleep(1)
client.sendall(b"GET /containers/json?all=1 HTTP/1.0\\r\\n\\r\\n")
data = b""
while received := client.recv(65536):
    data += received
print(data.partition(b"\\r\\n\\r\\n")[2].decode(), flush=True)
"""
    said = bob.run(PYTHON, "-c", script, str(bob.socket)).stdout
    assert REFUSED + "a client whose process" in said
