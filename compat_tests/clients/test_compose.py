"""`docker compose` as users run it: a project of several dependent services, from up to down."""

from __future__ import annotations

import socket
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from compat_tests.support.daemons import Completed
from compat_tests.support.engines import Engine
from compat_tests.support.host.ports import free_ports
from compat_tests.support.polling import until

DOCKERFILE = """\
FROM busybox
ARG WHO=nobody
RUN echo built for $WHO > /built
"""

PROJECT = """\
services:
  db:
    image: busybox
    command: sh -c "mkdir -p /www; echo hello from db > /www/index.html; httpd -f -p 80 -h /www"
    healthcheck: {test: [CMD, wget, -q, -O-, "http://localhost/"], interval: 1s, timeout: 20s, retries: 60}
    volumes: ["data:/data"]
    networks: {back: {aliases: [database]}}
    secrets: [token]
    configs: [{source: conf, target: /etc/conf.txt}]
    deploy: {resources: {limits: {memory: 64M}}}
    stop_grace_period: 0s
  init:
    image: busybox
    command: sh -c "echo init done > /data/x"
    volumes: ["data:/data"]
    network_mode: none
  web:
    build: {context: ., args: {WHO: compose}}
    depends_on: {db: {condition: service_healthy}, init: {condition: service_completed_successfully}}
    networks: [back, front]
    ports: ["127.0.0.1:PORT:80"]
    command: sh -c "cat /built; wget -q -O- http://database/; wget -q -O- http://db/; httpd -f -p 80 -h /"
    environment: [A=1, "B=two words"]
    init: true
    tmpfs: /scratch
    ulimits: {nofile: {soft: 100, hard: 200}}
    sysctls: {net.core.somaxconn: 256}
    extra_hosts: ["other:10.1.2.3"]
    restart: unless-stopped
    stop_grace_period: 0s
  side:
    image: busybox
    network_mode: "service:web"
    pid: "service:db"
    command: sleep 1000
    depends_on: [web]
    stop_grace_period: 0s
  extra:
    image: busybox
    profiles: [debug]
    command: sleep 1000
    networks: [back]
    stop_grace_period: 0s
secrets: {token: {file: ./secret.txt}}
configs: {conf: {file: ./conf.txt}}
volumes: {data: {}}
networks: {back: {internal: true}, front: {}}
"""


class Project:
    """A project directory, and compose in it."""

    def __init__(self, engine: Engine, folder: Path, text: str) -> None:
        self.engine, self.folder = engine, folder
        self.name = f"c{uuid.uuid4().hex[:10]}"
        self.port = free_ports()
        (folder / "compose.yaml").write_text(text.replace("PORT", str(self.port)))

    def compose(self, *args: str, check: bool = True) -> Completed:
        words = ("compose", "--ansi", "never", "--progress", "plain", "-p", self.name)
        return self.engine.docker(*words, *args, check=check, cwd=self.folder)

    def states(self, *more: str) -> list[str]:
        """Return "service state exit-code" of all containers, sorted."""
        listed = self.compose(*more, "ps", "-a", "--format", "{{.Service}} {{.State}} {{.ExitCode}}")
        return sorted(listed.stdout.split("\n"))[1:]

    def down(self) -> None:
        self.compose("--profile", "*", "down", "-v", "--rmi", "local", "--remove-orphans", "-t", "0")


@pytest.fixture(autouse=True, scope="module")
def needs_compose() -> None:
    if subprocess.run(["docker", "compose", "version"], capture_output=True, timeout=60, check=False).returncode:
        pytest.skip("needs the compose plugin")


@pytest.fixture(scope="module")
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """The running project, which each test must leave running."""
    engine: Engine = request.getfixturevalue("engine")
    folder = tmp_path_factory.mktemp("compose")
    (folder / "Dockerfile").write_text(DOCKERFILE)
    (folder / "secret.txt").write_text("s3cret\n")
    (folder / "conf.txt").write_text("conf\n")
    project = Project(engine, folder, PROJECT)
    try:
        project.compose("up", "-d", "--quiet-pull")
        yield project
    finally:
        project.down()
    assert project.states() == []


def inside(project: Project, service: str, script: str) -> list[str]:
    return project.compose("exec", "-T", service, "sh", "-c", script).stdout.splitlines()


def test_services_start_in_order(engine: Engine, shared: Project) -> None:
    assert shared.states() == ["db running 0", "init exited 0", "side running 0", "web running 0"]
    health = engine.docker("inspect", "-f", "{{.State.Health.Status}}", f"{shared.name}-db-1").stdout
    assert health == "healthy\n"
    # Once web answers, it has connected to db by both of its names.
    page = inside(shared, "side", "until wget -q -O- http://127.0.0.1/built; do sleep 0.1; done")
    assert page == ["built for compose"]

    def lines() -> list[str]:
        # This compose version clears the terminal's line whatever --ansi says.
        return shared.compose("logs", "--no-log-prefix", "web").stdout.replace("\x1b[2K", "").splitlines()

    # The answer may come before its log lines.
    assert until(lambda: lines() == ["built for compose", "hello from db", "hello from db"]), lines()
    with socket.create_connection(("127.0.0.1", shared.port), timeout=30) as sock:
        sock.sendall(b"GET /built HTTP/1.0\r\n\r\n")
        assert sock.makefile("rb").read().endswith(b"built for compose\n")
    assert shared.compose("port", "web", "80").stdout.strip() == f"127.0.0.1:{shared.port}"


def test_settings_of_services_are_applied(engine: Engine, shared: Project) -> None:
    assert inside(shared, "db", "cat /run/secrets/token /etc/conf.txt /data/x") == ["s3cret", "conf", "init done"]
    script = (
        "echo $A $B; ulimit -n; cat /proc/sys/net/core/somaxconn; grep other /etc/hosts; grep -c /scratch /proc/mounts"
    )
    assert inside(shared, "web", script) == ["1 two words", "100", "256", "10.1.2.3\tother", "1"]
    # The network of one service, the processes of another.
    assert inside(shared, "side", "hostname") == inside(shared, "web", "hostname")
    assert "httpd" in "\n".join(inside(shared, "side", "ps"))
    memory = engine.docker("inspect", "-f", "{{.HostConfig.Memory}}", f"{shared.name}-db-1").stdout
    assert memory.strip() == str(64 * 1024 * 1024)


def test_exec_run_and_cp(engine: Engine, shared: Project, tmp_path: Path) -> None:
    done = shared.compose(
        "exec", "-T", "-e", "X=y", "-w", "/tmp", "db", "sh", "-c", "pwd; echo $X; exit 4", check=False
    )
    assert (done.status, done.stdout) == (4, "/tmp\ny\n")
    assert shared.compose("run", "--rm", "-T", "--no-deps", "db", "echo", "once").stdout == "once\n"
    done = shared.compose("run", "--rm", "-T", "--no-deps", "--entrypoint", "sh", "db", "-c", "exit 7", check=False)
    assert done.status == 7
    shared.compose("cp", "db:/www/index.html", str(tmp_path / "page"))
    assert (tmp_path / "page").read_text() == "hello from db\n"
    shared.compose("cp", str(tmp_path / "page"), "web:/copied")
    assert inside(shared, "web", "cat /copied") == ["hello from db"]
    assert "httpd -f -p 80 -h /www" in shared.compose("top", "db").stdout


def test_stop_start_restart_pause_and_kill(engine: Engine, shared: Project) -> None:
    shared.compose("pause", "db")
    assert "db paused 0" in shared.states()
    shared.compose("unpause", "db")
    # A pause makes the health check fail: the next probe is an interval away, and what depends on db waits for it.
    name = f"{shared.name}-db-1"
    assert until(lambda: engine.docker("inspect", "-f", "{{.State.Health.Status}}", name).stdout == "healthy\n")
    shared.compose("restart", "-t", "0", "web")
    shared.compose("stop", "-t", "0", "side")
    # It is not PID 1 of its namespace: SIGTERM ends it, unless SIGKILL is faster.
    assert {"side exited 137", "side exited 143"} & set(shared.states())
    shared.compose("start", "side")
    assert shared.states() == ["db running 0", "init exited 0", "side running 0", "web running 0"]
    shared.compose("kill", "-s", "KILL", "side")
    shared.compose("up", "-d", "--no-build")
    assert shared.states() == ["db running 0", "init exited 0", "side running 0", "web running 0"]
    # Without changes, the containers stay the same.
    before = engine.docker("inspect", "-f", "{{.Id}}", f"{shared.name}-db-1").stdout
    shared.compose("up", "-d", "--no-build")
    assert engine.docker("inspect", "-f", "{{.Id}}", f"{shared.name}-db-1").stdout == before


def test_scale_and_profiles(engine: Engine, shared: Project) -> None:
    shared.compose("up", "-d", "--no-deps", "--scale", "extra=3", "extra")
    listed = shared.compose("--profile", "debug", "ps", "-q", "extra").stdout.split()
    assert len(listed) == 3
    # One name with all addresses.
    addresses = inside(shared, "db", "nslookup extra | grep -c '^Address.*10\\.'")
    assert addresses == ["3"]
    shared.compose("up", "-d", "--no-deps", "--scale", "extra=1", "extra")
    assert len(shared.compose("--profile", "debug", "ps", "-q", "extra").stdout.split()) == 1
    shared.compose("--profile", "debug", "rm", "-s", "-f", "extra")
    assert "extra" not in " ".join(shared.states("--profile", "debug"))


def test_changed_service_is_recreated(engine: Engine, tmp_path: Path) -> None:
    text = (
        "services:\n"
        "  a: {image: busybox, command: sleep 1000, network_mode: none, environment: [A=1], stop_grace_period: 0s,\n"
        "      volumes: ['data:/data']}\n"
        "volumes: {data: {}}\n"
    )
    project = Project(engine, tmp_path, text)
    try:
        project.compose("up", "-d")
        inside(project, "a", "echo kept > /data/x")
        (tmp_path / "compose.yaml").write_text(text.replace("A=1", "A=2"))
        project.compose("up", "-d")
        assert inside(project, "a", "echo $A; cat /data/x") == ["2", "kept"]
    finally:
        project.down()


def test_attached_up_exits_with_the_status_of_a_service(engine: Engine, tmp_path: Path) -> None:
    text = (
        "services:\n"
        # compose itself may stop a container that was not started yet, and then start it
        "  a: {image: busybox, command: sh -c 'echo from a; exit 5', network_mode: none, depends_on: [b]}\n"
        "  b: {image: busybox, command: sleep 1000, network_mode: none, stop_grace_period: 0s}\n"
    )
    project = Project(engine, tmp_path, text)
    try:
        done = project.compose("up", "--abort-on-container-exit", "--exit-code-from", "a", check=False)
        assert done.status == 5, done.output
        assert "from a" in done.output
        assert project.states() == ["a exited 5", "b exited 137"]
    finally:
        project.down()
