"""Tasks as containers: their states and errors, secrets and configs, health, logs, and restarts of the daemon."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from compat_tests.support.engines import Engine
from compat_tests.support.images import busybox_archive
from compat_tests.support.polling import until
from compat_tests.support.servers.registry import PASSWORD, USER, registry

SECRET = "correct-horse-battery"
CREATE = ("service", "create", "-d", "--no-resolve-image", "--restart-condition", "none", "--stop-grace-period", "1s")


@pytest.fixture(scope="module")
def node(own_engine: Engine) -> Iterator[Engine]:
    """A swarm of one node."""
    own_engine.docker("swarm", "init", "--advertise-addr", "127.0.0.1")
    yield own_engine
    own_engine.docker("swarm", "leave", "--force")


@pytest.fixture
def swarm(node: Engine) -> Iterator[Engine]:
    """The swarm; its services, secrets and configs are removed after the test."""
    yield node
    for noun in ("service", "secret", "config"):
        if found := node.docker(noun, "ls", "-q").stdout.split():
            node.docker(noun, "rm", *found)
    assert until(lambda: not containers(node), seconds=30)


def containers(engine: Engine, **filters: str) -> list[str]:
    words = [word for key, value in filters.items() for word in ("--filter", f"{key.replace('_', '-')}={value}")]
    return engine.docker("ps", "-a", "--format", "{{.Names}}", *words).stdout.split()


def tasks(engine: Engine, service: str) -> list[dict[str, Any]]:
    found = engine.api.get("/tasks", filters=json.dumps({"service": [service]})).json()
    return sorted(found, key=lambda task: task["Slot"])


def reaches(engine: Engine, service: str, state: str, count: int = 1) -> list[dict[str, Any]]:
    """The tasks of a service when this number of them has the state."""

    def there() -> bool:
        return len([task for task in tasks(engine, service) if task["Status"]["State"] == state]) == count

    assert until(there, seconds=30), tasks(engine, service)
    return tasks(engine, service)


@pytest.mark.parametrize(
    ("arguments", "state", "message", "error"),
    [
        (("busybox", "true"), "complete", "finished", ""),
        (("busybox", "sh", "-c", "exit 3"), "failed", "started", "task: non-zero exit (3)"),
        (("localhost:9/nosuch",), "rejected", "preparing", "No such image: localhost:9/nosuch:latest"),
        (
            ("--mount", "type=bind,src=/nosuch,dst=/x", "busybox", "true"),
            "rejected",
            "preparing",
            'invalid mount config for type "bind": bind source path does not exist: /nosuch',
        ),
        (
            ("--health-cmd", "false", "--health-interval", "200ms", "--health-retries", "1", "busybox", "sleep", "600"),
            "failed",
            "starting",
            "task: non-zero exit (137): dockerexec: unhealthy container",
        ),
        (
            ("--limit-memory", "8m", "busybox", "sh", "-c", "x=a; while true; do x=$x$x; done"),
            "failed",
            "started",
            "task: non-zero exit (137)",
        ),
    ],
)
def test_the_end_of_a_task(swarm: Engine, arguments: tuple[str, ...], state: str, message: str, error: str) -> None:
    swarm.docker(*CREATE, "--name", "ends", *arguments)
    status = reaches(swarm, "ends", state)[0]["Status"]
    assert (status["Message"], status.get("Err", "")) == (message, error)


def test_a_program_that_does_not_exist(swarm: Engine) -> None:
    swarm.docker(*CREATE, "--name", "ends", "busybox", "/nosuch")
    status = reaches(swarm, "ends", "failed")[0]["Status"]
    assert status["Message"] == "starting"
    assert status["Err"].startswith("starting container failed: failed to create task for container: ")
    assert status["ContainerStatus"]["ExitCode"] == 127


def test_a_healthy_task_runs(swarm: Engine) -> None:
    check = ("--health-cmd", "test -e /tmp/healthy", "--health-interval", "200ms", "--health-retries", "100")
    swarm.docker(*CREATE, "--name", "web", *check, "busybox", "sleep", "600")
    reaches(swarm, "web", "starting")
    swarm.docker("exec", containers(swarm)[0], "touch", "/tmp/healthy")
    reaches(swarm, "web", "running")


def test_ports_of_the_node(swarm: Engine) -> None:
    swarm.docker(*CREATE, "--name", "web", "--publish", "mode=host,target=80", "busybox", "sleep", "600")
    ports = reaches(swarm, "web", "running")[0]["Status"]["PortStatus"]["Ports"]
    published = swarm.docker("port", containers(swarm)[0], "80").stdout.split()[0].rpartition(":")[2]
    assert ports == [{"Protocol": "tcp", "TargetPort": 80, "PublishedPort": int(published), "PublishMode": "host"}]


def test_secrets_and_configs(swarm: Engine) -> None:
    template = '{{.Task.Slot}} {{secret "key"}} {{env "A"}}'
    swarm.docker("secret", "create", "pw", "-", input=SECRET)
    swarm.docker("config", "create", "--template-driver", "golang", "conf", "-", input=template)
    arguments = ("--secret", "source=pw,target=key,uid=33,gid=44,mode=0440", "--config", "source=conf,target=/etc/conf")
    swarm.docker(*CREATE, "--name", "web", "--env", "A={{.Service.Name}}", *arguments, "busybox", "sleep", "600")
    reaches(swarm, "web", "running")
    name = containers(swarm, is_task="true")[0]
    script = "cat /run/secrets/key /etc/conf; stat -c ' %u:%g %a' /run/secrets/key"
    expected = f"{SECRET}1 {SECRET} web 33:44 440\n"
    assert swarm.docker("exec", name, "sh", "-c", script).stdout == expected
    assert swarm.docker("exec", name, "sh", "-c", "echo x > /run/secrets/key", check=False).status != 0
    swarm.kill("wharfd")
    swarm.start()
    assert swarm.docker("exec", name, "sh", "-c", script).stdout == expected
    inspected = swarm.docker("inspect", name).stdout
    assert json.loads(inspected)[0]["Mounts"] == []
    shown = swarm.docker("secret", "inspect", "pw").stdout + swarm.docker("service", "inspect", "web").stdout
    assert SECRET not in inspected + shown + swarm.log()
    root = swarm.resources.root
    searched = subprocess.run(["grep", "-rl", SECRET, root / "data", root / "wharfd.log"], capture_output=True)
    assert (searched.stdout, searched.returncode) == (b"", 1)
    files = root / "run/swarm/tasks"
    mounts = subprocess.run(["findmnt", "-rno", "TARGET", "-t", "tmpfs"], capture_output=True, check=True, text=True)
    assert len([path for path in mounts.stdout.split() if path.startswith(f"{files}/")]) == 1
    swarm.docker("service", "rm", "web")
    assert until(lambda: not containers(swarm) and not list(files.iterdir()), seconds=30)


@pytest.mark.usefixtures("remove_new_images")
def test_an_image_of_a_private_registry(swarm: Engine) -> None:
    with registry(auth="basic") as private:
        for name in ("app:1", "app:2"):
            private.copy_archive(busybox_archive(), name)
        swarm.docker("login", "-u", USER, "--password-stdin", private.address, input=PASSWORD)
        arguments = ("--with-registry-auth", private.name("app:1"), "sleep", "600")
        swarm.docker("service", "create", "-q", "--stop-grace-period", "1s", "--name", "with", *arguments)
        reaches(swarm, "with", "running")
        image = json.loads(swarm.docker("inspect", containers(swarm)[0]).stdout)[0]["Config"]["Image"]
        assert image.startswith(f"{private.name('app:1')}@sha256:")
        swarm.docker("service", "rm", "with")
        swarm.docker(*CREATE, "--name", "without", private.name("app:2"))
        status = reaches(swarm, "without", "rejected")[0]["Status"]
        assert status["Err"] == f"No such image: {private.name('app:2')}"
        swarm.docker("logout", private.address)


def test_tasks_survive_the_daemon(swarm: Engine) -> None:
    """A daemon that is killed while tasks start, run or end: each task has one container, and nothing starts again."""
    for delay in (0.05, 0.3, 0.6):
        swarm.docker(*CREATE, "--name", "web", "--replicas", "5", "busybox", "sleep", "600")
        time.sleep(delay)
        swarm.kill("wharfd")
        swarm.start()
        found = reaches(swarm, "web", "running", 5)
        assert len(found) == 5
        names = sorted(f"web.{task['Slot']}.{task['ID']}" for task in found)
        assert sorted(containers(swarm)) == names
        started = swarm.docker("inspect", "-f", "{{.State.StartedAt}}", *names).stdout
        swarm.kill("wharfd")
        swarm.start()
        assert swarm.docker("inspect", "-f", "{{.State.StartedAt}}", *names).stdout == started
        swarm.docker("service", "rm", "web")
        time.sleep(delay)
        swarm.kill("wharfd")
        swarm.start()
        assert until(lambda: not containers(swarm), seconds=30)


def test_the_log_of_a_task(swarm: Engine) -> None:
    swarm.docker(*CREATE, "--name", "web", "busybox", "sh", "-c", "echo one; echo two >&2")
    task = reaches(swarm, "web", "complete")[0]
    assert swarm.docker("service", "logs", "--raw", "web").stdout == "one\n"
    answer = swarm.api.get(f"/tasks/{task['ID']}/logs", stdout=1, details=1)
    details = (
        f"com.docker.swarm.node.id={task['NodeID']},com.docker.swarm.service.id={task['ServiceID']},"
        f"com.docker.swarm.task.id={task['ID']} one\n"
    ).encode()
    assert answer.body == b"\x01\0\0\0" + len(details).to_bytes(4, "big") + details


def test_a_node_that_leaves_has_no_tasks(swarm: Engine) -> None:
    swarm.docker("run", "-d", "--name", "own", "busybox", "sleep", "600")
    swarm.docker(*CREATE, "--name", "web", "--replicas", "2", "busybox", "sleep", "600")
    reaches(swarm, "web", "running", 2)
    assert sorted(containers(swarm, is_task="false")) == ["own"]
    swarm.docker("swarm", "leave", "--force")
    assert until(lambda: containers(swarm) == ["own"])
    swarm.docker("rm", "-f", "own")
    swarm.docker("swarm", "init", "--advertise-addr", "127.0.0.1")
