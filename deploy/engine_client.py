"""Asks an installed engine, and ends what only it can end. The scripts of this folder and the Debian package run it
with the engine's own interpreter:

    engine_client.py settings [FLAG...]     its roots and the name of its network, as assignments for a shell
    engine_client.py running EXEC_ROOT      the ids of the running containers
    engine_client.py stop EXEC_ROOT SECS    stops all containers; kills one after SECS
    engine_client.py rules NETWORK          removes its firewall rules
    engine_client.py free SOCKET            fails if a process listens on the socket
"""

import concurrent.futures
import contextlib
import http.client
import json
import os
import shlex
import signal
import socket
import sys
from pathlib import Path
from typing import Any

# A socket of systemd's starts the engine, which may take long on a slow disk.
_START = 120.0
_STOP = 60.0


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def request(root: Path, method: str, path: str, timeout: float = _START) -> Any:
    """The engine's answer.

    :raises OSError: it does not answer.
    """
    connection = _Connection(root / "docker.sock", timeout)
    try:
        connection.request(method, path)
        body = connection.getresponse().read()
        return json.loads(body) if body else None
    except (http.client.HTTPException, ValueError) as error:
        raise OSError(str(error)) from error
    finally:
        connection.close()


def settings(flags: list[str]) -> list[str]:
    from server.config import Config, ConfigError, load

    try:
        config = load(flags)[0]
    except ConfigError:
        config = Config()
    found = {"DATA": config.data_root, "EXEC": config.exec_root, "NETWORK": config.network_name}
    return [f"{name}={shlex.quote(str(value))}" for name, value in found.items()]


def running(root: Path) -> list[str]:
    """The ids of the running containers; from the bundles of their shims if the engine does not answer."""
    try:
        return [container["Id"] for container in request(root, "GET", "/containers/json")]
    except (OSError, TypeError):
        return list(_processes(root))


def _processes(root: Path) -> dict[str, int]:
    """Container → pid of its first process, of the bundles below the run-time directory."""
    from engine.shim.kernel.processes import alive

    found = {}
    for state in root.glob("containerd/**/state.json"):
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            document = json.loads(state.read_bytes())
            pid = int(document["init"]["pid"])
            if pid and alive(pid, int(document["init_started"])):
                found[state.parent.name] = pid
    return found


def stop(root: Path, seconds: int) -> None:
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        for id in running(root):
            threads.submit(request, root, "POST", f"/containers/{id}/stop?t={seconds}", seconds + _STOP)
    # Those of an engine that does not answer.
    for pid in _processes(root).values():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def rules(network: str) -> None:
    from server.networks.nftables.firewall import Firewall

    Firewall(network).stop()


def free(path: str) -> str:
    """Why the path of a socket can't be used; "" if it can."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(10)
        try:
            probe.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            return ""
        except OSError as error:
            return f"{path}: {error.strerror or error}"
    return f"another Docker Engine listens on {path}"


def main(words: list[str]) -> int:
    match words:
        case ["settings", *flags]:
            print("\n".join(settings(flags)))
        case ["running", root]:
            print("\n".join(running(Path(root))))
        case ["stop", root, seconds]:
            stop(Path(root), int(seconds))
        case ["rules", network]:
            rules(network)
        case ["free", path]:
            reason = free(path)
            if reason:
                print(reason, file=sys.stderr)
                return 1
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
