"""``docker stack``: services, networks, secrets and configs of a compose file."""

from __future__ import annotations

from pathlib import Path

from compat_tests.support.engines import Engine
from compat_tests.support.polling import until

COMPOSE = """
version: "3.8"
services:
  web:
    image: busybox
    command: ["sh", "-c", "mkdir /www; echo hello > /www/index.html; httpd -f -h /www"]
    networks: [front]
    secrets: [key]
    configs: [{source: conf, target: /etc/c.conf}]
    deploy: {replicas: 2, update_config: {order: start-first}}
  client:
    image: busybox
    command: ["sleep", "1000"]
    networks: [front]
networks:
  front: {attachable: true}
secrets:
  key: {file: ./key}
configs:
  conf: {file: ./conf}
"""


def services(engine: Engine, stack: str) -> list[str]:
    """``name replicas`` of each service of the stack."""
    return engine.docker("stack", "services", "--format", "{{.Name}} {{.Replicas}}", stack).stdout.splitlines()


def test_a_stack_is_deployed_changed_and_removed(swarm: Engine, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("hidden")
    (tmp_path / "conf").write_text("shown")
    file = tmp_path / "stack.yaml"
    file.write_text(COMPOSE)
    try:
        swarm.docker("stack", "deploy", "-c", str(file), "--detach=true", "lab")
        assert until(lambda: services(swarm, "lab") == ["lab_client 1/1", "lab_web 2/2"])
        client = swarm.docker("ps", "-q", "--filter", "label=com.docker.swarm.service.name=lab_client").stdout.strip()
        for name in ("web", "lab_web", "tasks.web"):
            assert swarm.docker("exec", client, "wget", "-qO-", f"http://{name}/").stdout == "hello\n"
        assert swarm.docker("stack", "ls", "--format", "{{.Name}} {{.Services}}").stdout == "lab 2\n"
        file.write_text(COMPOSE.replace("replicas: 2", "replicas: 3"))
        swarm.docker("stack", "deploy", "-c", str(file), "--detach=true", "lab")
        assert until(
            lambda: (
                "lab_web 3/3" in swarm.docker("stack", "services", "--format", "{{.Name}} {{.Replicas}}", "lab").stdout
            )
        )
        assert len(swarm.docker("stack", "ps", "-q", "lab").stdout.split()) == 4
    finally:
        swarm.docker("stack", "rm", "lab")
        assert until(lambda: not swarm.docker("ps", "-aq").stdout)
        assert until(lambda: not swarm.docker("network", "ls", "-q", "--filter", "name=lab_front").stdout)
    assert swarm.docker("secret", "ls", "-q").stdout + swarm.docker("config", "ls", "-q").stdout == ""
