"""An engine inside a privileged container of an engine, as in Docker in Docker, kind and CI services.

The image has only directories and links; programs and libraries are read-only bind mounts of the host's.
"""

from __future__ import annotations

import contextlib
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from compat_tests.support.daemons import Completed
from compat_tests.support.engines import Engine
from compat_tests.support.images import ROOT, Node, busybox_archive, docker_archive, layer
from compat_tests.support.polling import until

IMAGE = "nested:1"
LINKS = ("bin", "sbin", "lib", "lib64", "lib32")
FOLDERS = ("etc", "proc", "sys", "dev", "run", "tmp", "root", "usr", "var", "var/lib", "var/log", "var/tmp")
FILES = {"etc/passwd": "root:x:0:0:root:/root:/bin/sh\n", "etc/group": "root:x:0:\n"}


def skeleton() -> bytes:
    """Return the image: directories, the links of a merged /usr, the few files that programs read."""
    nodes: dict[str, Node | bytes | str] = {name: Node(kind=b"5", mode=0o755) for name in FOLDERS}
    nodes |= {name: Node(kind=b"2", link=f"usr/{name}") for name in LINKS if Path("/", name).is_symlink()}
    return docker_archive(IMAGE, [layer({**nodes, **FILES})], Cmd=["sh"])


@pytest.fixture(scope="module", autouse=True)
def merged_usr() -> None:
    if not Path("/bin").is_symlink():
        pytest.skip("needs a host whose programs are all in /usr")


@contextlib.contextmanager
def container(engine: Engine, *args: str) -> Iterator[str]:
    """A privileged container with the host's programs."""
    name = f"nested{uuid.uuid4().hex[:10]}"
    engine.docker("load", "-q", input=skeleton())
    try:
        engine.docker("run", "-d", "--name", name, "--privileged", "-v", "/usr:/usr:ro", *args)
        yield name
    finally:
        engine.docker("rm", "-f", "-v", name, check=False)
        engine.docker("rmi", "-f", IMAGE, check=False)


def test_wharf_in_a_container_of_wharf(engine: Engine) -> None:
    python = {sys.prefix, sys.base_prefix, str(ROOT)}
    binds = [f"-v={path}:{path}:ro" for path in sorted(python) if not path.startswith("/usr/")]
    # use this run's compiled modules, so that the start does not compile
    compiled = sys.pycache_prefix or "/var/cache/wharf/pycache"
    binds += [f"-v={compiled}:{compiled}", "-e", f"PYTHONPYCACHEPREFIX={compiled}", "-e", f"PYTHONPATH={ROOT}"]
    daemon = [sys.executable, "-m", "server", "-H", "unix:///run/docker.sock", "--data-root", "/data"]
    with container(engine, *binds, "-v", "/data", "--stop-signal", "SIGTERM", IMAGE, *daemon) as name:

        def docker(*args: str, input: bytes | None = None, check: bool = True) -> Completed:
            inner = ("exec", "-i", "-e", "DOCKER_HOST=unix:///run/docker.sock", name, "docker", *args)
            return engine.docker(*inner, input=input, check=check)

        up = until(lambda: docker("version", check=False).status == 0, seconds=90)
        assert up, engine.docker("logs", name).output
        assert docker("load", "-q", input=busybox_archive()).stdout == "Loaded image: busybox:latest\n"
        limited = ("--memory", "50m", "--pids-limit", "30", "--cpus", "0.5")
        assert docker("run", "--rm", *limited, "busybox", "echo", "nested").stdout == "nested\n"
        serve = "echo page > /tmp/index.html; exec httpd -f -h /tmp"
        docker("run", "-d", "--name", "web", "-p", "127.0.0.1:8099:80", "busybox", "sh", "-c", serve)
        fetch = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8099/', timeout=5).read().decode())"

        def fetched() -> bool:
            done = engine.docker("exec", name, sys.executable, "-c", fetch, check=False)
            return done.stdout == "page\n\n"

        assert until(fetched, seconds=60)
        assert "httpd" in docker("exec", "web", "ps").stdout
        docker("rm", "-f", "web")
        engine.docker("stop", "-t", "60", name)
        assert engine.docker("inspect", "-f", "{{.State.ExitCode}}", name).stdout == "0\n"
