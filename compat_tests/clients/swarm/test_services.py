"""Services with the docker CLI: tasks, scaling, updates with rollback, restarts, jobs, logs."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from compat_tests.support.engines import Engine
from compat_tests.support.polling import until


@pytest.fixture
def service(swarm: Engine) -> Iterator[str]:
    """The name of a service; the test makes it, it is removed afterwards, with its tasks' containers."""
    name = f"s{time.time_ns():x}"
    yield name
    swarm.docker("service", "rm", name, check=False)
    assert until(lambda: not containers(swarm, name, everything=True)), "tasks are left"


def containers(engine: Engine, service: str, *, everything: bool = False) -> list[str]:
    """The ids of a service's containers."""
    options = ("-a",) if everything else ()
    label = f"label=com.docker.swarm.service.name={service}"
    return engine.docker("ps", "-q", "--no-trunc", *options, "--filter", label).stdout.split()


def tasks(engine: Engine, service: str) -> list[dict[str, str]]:
    """The rows of ``docker service ps``, the newest of each slot first."""
    rows = engine.docker("service", "ps", "--no-trunc", "--format", "json", service).stdout
    return [json.loads(row) for row in rows.splitlines()]


def inspect(engine: Engine, service: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(engine.docker("service", "inspect", service).stdout)[0]
    return found


def replicas(engine: Engine, service: str) -> str:
    return engine.docker("service", "ls", "--filter", f"name={service}", "--format", "{{.Replicas}}").stdout.strip()


def test_a_replicated_service_runs_scales_and_ends(swarm: Engine, service: str) -> None:
    created = swarm.docker(
        "service", "create", "--name", service, "--replicas", "2", "--init", "busybox", "sleep", "1000"
    )
    assert "verify: Service" in created.stdout  # the CLI follows the progress to the end
    assert replicas(swarm, service) == "2/2"
    assert len(containers(swarm, service)) == 2
    rows = tasks(swarm, service)
    assert sorted(row["Name"] for row in rows) == [f"{service}.1", f"{service}.2"]
    assert {row["DesiredState"] for row in rows} == {"Running"}
    assert all(row["CurrentState"].startswith("Running") for row in rows)
    names = swarm.docker("ps", "--format", "{{.Names}}", "--filter", f"name={service}").stdout.split()
    assert sorted(name.rpartition(".")[0] for name in names) == [f"{service}.1", f"{service}.2"]
    assert "converged" in swarm.docker("service", "scale", f"{service}=4").stdout
    assert replicas(swarm, service) == "4/4"
    swarm.docker("service", "scale", f"{service}=1")
    assert until(lambda: len(containers(swarm, service)) == 1)
    assert swarm.docker("service", "rm", service).stdout == f"{service}\n"
    assert until(lambda: not containers(swarm, service, everything=True))


def test_what_a_service_asks_for_reaches_its_containers(swarm: Engine, service: str) -> None:
    swarm.docker(
        "service",
        "create",
        "--name",
        service,
        "--env",
        "A={{.Task.Slot}}-{{.Service.Name}}",
        "--hostname",
        "h{{.Task.Slot}}",
        "--label",
        "of=service",
        "--container-label",
        "of=container",
        "--workdir",
        "/tmp",
        "--user",
        "1:1",
        "--limit-memory",
        "64m",
        "--limit-cpu",
        "0.5",
        "--mount",
        "type=tmpfs,target=/t",
        "--read-only",
        "--stop-signal",
        "SIGUSR1",
        "--stop-grace-period",
        "3s",
        "--cap-add",
        "NET_ADMIN",
        "--ulimit",
        "nofile=100:200",
        "--host",
        "peer:192.0.2.7",
        "--dns",
        "192.0.2.1",
        "--no-healthcheck",
        "--init",
        "busybox",
        "sleep",
        "1000",
    )
    (id,) = containers(swarm, service)
    found = json.loads(swarm.docker("inspect", id).stdout)[0]
    config, host = found["Config"], found["HostConfig"]
    assert f"A=1-{service}" in config["Env"]
    assert (config["Hostname"], config["WorkingDir"], config["User"]) == ("h1", "/tmp", "1:1")
    assert config["Labels"]["of"] == "container"
    assert config["Labels"]["com.docker.swarm.service.name"] == service
    assert (host["Memory"], host["NanoCpus"], host["ReadonlyRootfs"], host["Init"]) == (
        64 << 20,
        500_000_000,
        True,
        True,
    )
    assert config["StopSignal"] == "SIGUSR1"
    assert host["Ulimits"] == [{"Name": "nofile", "Hard": 200, "Soft": 100}]
    assert "192.0.2.7\tpeer" in swarm.docker("exec", id, "cat", "/etc/hosts").stdout
    assert " /t " in swarm.docker("exec", id, "cat", "/proc/mounts").stdout
    assert inspect(swarm, service)["Spec"]["Labels"] == {"of": "service"}


def test_a_task_that_ends_is_replaced(swarm: Engine, service: str) -> None:
    swarm.docker("service", "create", "--name", service, "--restart-delay", "0s", "--init", "busybox", "sleep", "1000")
    (first,) = containers(swarm, service)
    swarm.docker("kill", first)
    assert until(lambda: containers(swarm, service) not in ([], [first]))
    rows = tasks(swarm, service)
    assert [row["DesiredState"] for row in rows] == ["Running", "Shutdown"]
    assert rows[1]["CurrentState"].startswith("Failed")
    assert "non-zero exit (137)" in rows[1]["Error"]


def test_restart_conditions(swarm: Engine, service: str) -> None:
    swarm.docker(
        "service",
        "create",
        "-d",
        "--name",
        service,
        "--restart-condition",
        "on-failure",
        "--restart-delay",
        "0s",
        "--restart-max-attempts",
        "2",
        "busybox",
        "sh",
        "-c",
        "exit 3",
    )
    assert until(lambda: len(tasks(swarm, service)) == 3)
    assert until(lambda: all(row["CurrentState"].startswith("Failed") for row in tasks(swarm, service)))
    time.sleep(1)
    assert len(tasks(swarm, service)) == 3


def test_a_failing_image_is_told(swarm: Engine, service: str) -> None:
    swarm.docker("service", "create", "-d", "--name", service, "--restart-condition", "none", "nosuch:image")
    assert until(lambda: tasks(swarm, service)[0]["CurrentState"].startswith("Rejected"))
    assert "No such image: nosuch:image" in tasks(swarm, service)[0]["Error"]


def test_an_update_replaces_tasks_one_by_one_and_can_be_undone(swarm: Engine, service: str) -> None:
    swarm.docker(
        "service",
        "create",
        "--name",
        service,
        "--replicas",
        "3",
        "--update-order",
        "start-first",
        "--update-monitor",
        "1s",
        "--init",
        "busybox",
        "sleep",
        "1000",
    )
    before = set(containers(swarm, service))
    swarm.docker("service", "update", "--env-add", "X=1", service)
    after = set(containers(swarm, service))
    assert len(after) == 3
    assert not before & after
    assert inspect(swarm, service)["UpdateStatus"]["State"] == "completed"
    swarm.docker("service", "rollback", service)
    assert until(lambda: inspect(swarm, service)["UpdateStatus"]["State"] == "rollback_completed")
    assert inspect(swarm, service)["Spec"]["TaskTemplate"]["ContainerSpec"].get("Env") is None
    swarm.docker("service", "update", "--label-add", "only=label", service)
    assert len(containers(swarm, service)) == 3


def test_a_failing_update_is_rolled_back(swarm: Engine, service: str) -> None:
    swarm.docker(
        "service",
        "create",
        "--name",
        service,
        "--replicas",
        "2",
        "--update-failure-action",
        "rollback",
        "--update-monitor",
        "2s",
        "--rollback-monitor",
        "1s",
        "--restart-delay",
        "0s",
        "--init",
        "busybox",
        "sleep",
        "1000",
    )
    swarm.docker("service", "update", "-d", "--args", "false", service)
    assert until(lambda: inspect(swarm, service).get("UpdateStatus", {}).get("State") == "rollback_completed")
    assert until(lambda: replicas(swarm, service) == "2/2")
    assert inspect(swarm, service)["Spec"]["TaskTemplate"]["ContainerSpec"]["Args"] == ["sleep", "1000"]


def test_a_service_waits_for_health(swarm: Engine, service: str) -> None:
    swarm.docker(
        "service",
        "create",
        "-d",
        "--name",
        service,
        "--health-cmd",
        "test -e /ready",
        "--health-interval",
        "200ms",
        "--health-retries",
        "100",
        "--init",
        "busybox",
        "sleep",
        "1000",
    )
    assert until(lambda: len(containers(swarm, service)) == 1)
    time.sleep(1)
    assert replicas(swarm, service) == "0/1"
    swarm.docker("exec", containers(swarm, service)[0], "touch", "/ready")
    assert until(lambda: replicas(swarm, service) == "1/1")


def test_a_global_service_has_one_task_and_follows_the_node(swarm: Engine, service: str) -> None:
    swarm.docker("service", "create", "--name", service, "--mode", "global", "--init", "busybox", "sleep", "1000")
    assert replicas(swarm, service) == "1/1"
    swarm.docker("node", "update", "--availability", "drain", "self")
    try:
        assert until(lambda: not containers(swarm, service))
    finally:
        swarm.docker("node", "update", "--availability", "active", "self")
    assert until(lambda: len(containers(swarm, service)) == 1)


def test_constraints_that_no_node_meets(swarm: Engine, service: str) -> None:
    swarm.docker(
        "service",
        "create",
        "-d",
        "--name",
        service,
        "--constraint",
        "node.labels.disk==ssd",
        "--init",
        "busybox",
        "sleep",
        "1000",
    )
    assert until(lambda: "no suitable node (scheduling constraints" in tasks(swarm, service)[0]["Error"])
    swarm.docker("node", "update", "--label-add", "disk=ssd", "self")
    try:
        assert until(lambda: replicas(swarm, service) == "1/1")
    finally:
        swarm.docker("node", "update", "--label-rm", "disk", "self")


def test_a_job_runs_to_its_completions(swarm: Engine, service: str) -> None:
    swarm.docker(
        "service",
        "create",
        "-d",
        "--name",
        service,
        "--mode",
        "replicated-job",
        "--replicas",
        "3",
        "--max-concurrent",
        "2",
        "busybox",
        "true",
    )
    assert until(lambda: replicas(swarm, service) == "0/2 (3/3 completed)")
    assert {row["CurrentState"].split()[0] for row in tasks(swarm, service)} == {"Complete"}


def test_logs_of_a_service(swarm: Engine, service: str) -> None:
    swarm.docker(
        "service",
        "create",
        "--name",
        service,
        "--replicas",
        "2",
        "--init",
        "busybox",
        "sh",
        "-c",
        "echo from $HOSTNAME; sleep 1000",
    )
    assert until(lambda: swarm.docker("service", "logs", service).stdout.count("from ") == 2)
    lines = swarm.docker("service", "logs", service).stdout.splitlines()
    assert all(line.startswith((f"{service}.1.", f"{service}.2.")) and " | from " in line for line in lines)
    task = swarm.docker("service", "ps", "-q", "--no-trunc", service).stdout.split()[0]
    assert "from " in swarm.docker("service", "logs", "--raw", task).stdout
    assert swarm.docker("service", "logs", "--tail", "0", service).stdout == ""


def test_secrets_and_configs_are_files(swarm: Engine, service: str) -> None:
    swarm.docker("secret", "create", f"{service}s", "-", input="hidden")
    swarm.docker("config", "create", f"{service}c", "-", input="shown")
    try:
        swarm.docker(
            "service",
            "create",
            "--name",
            service,
            "--secret",
            f"source={service}s,target=key,mode=0400,uid=7",
            "--config",
            f"source={service}c,target=/etc/c.conf",
            "--init",
            "busybox",
            "sleep",
            "1000",
        )
        (id,) = containers(swarm, service)
        assert swarm.docker("exec", id, "cat", "/run/secrets/key", "/etc/c.conf").stdout == "hiddenshown"
        assert swarm.docker("exec", id, "stat", "-c", "%a %u", "/run/secrets/key").stdout == "400 7\n"
        assert "hidden" not in swarm.docker("inspect", id).stdout + swarm.docker("service", "inspect", service).stdout
        refused = swarm.docker("secret", "rm", f"{service}s", check=False)
        assert "is in use by the following service" in refused.stderr
    finally:
        swarm.docker("service", "rm", service)
        assert until(lambda: not containers(swarm, service, everything=True))
        swarm.docker("secret", "rm", f"{service}s")
        swarm.docker("config", "rm", f"{service}c")


def test_services_outlive_the_daemon(swarm: Engine, service: str) -> None:
    swarm.docker("service", "create", "--name", service, "--replicas", "2", "--init", "busybox", "sleep", "1000")
    before = set(containers(swarm, service))
    swarm.restart()
    assert until(lambda: replicas(swarm, service) == "2/2")
    assert set(containers(swarm, service)) == before
    swarm.kill("wharfd")
    swarm.start()
    assert until(lambda: replicas(swarm, service) == "2/2")
    assert set(containers(swarm, service)) == before


def test_a_service_on_the_hosts_network(swarm: Engine, service: str) -> None:
    swarm.docker("service", "create", "--name", service, "--network", "host", "--init", "busybox", "sleep", "1000")
    (id,) = containers(swarm, service)
    assert json.loads(swarm.docker("inspect", id).stdout)[0]["HostConfig"]["NetworkMode"] == "host"
