"""Services of a swarm: their start, a rolling update, and the failure of a node."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from compat_tests.bench.measure import Row, at_most, clock, clock_of, in_turn
from compat_tests.support.engines import Engine
from compat_tests.support.host.ports import free_ports
from compat_tests.support.hosts.group import hosts
from compat_tests.support.hosts.host import Host
from compat_tests.support.hosts.swarm import Swarm, count, settles
from compat_tests.support.polling import until

NAME = "bench-service"
CREATE = ("service", "create", "-d", "--no-resolve-image", "--init", "--name", NAME)
SLEEP = ("busybox", "sleep", "3600")


def services(engines: Sequence[Engine], *, quick: bool) -> Iterator[Row]:
    """From the request until the tasks are reported as running. The update replaces one task after the other."""
    start, update = (
        Row("a service of 10 tasks: all run", "ms", at_most(0.4)),
        Row("… update of 5 tasks", "ms", at_most(0.6)),
    )

    def once(engine: Engine) -> None:
        with clock(start, engine):
            engine.docker(*CREATE, "--replicas", "10", *SLEEP)
            assert until(lambda: _running(engine, lambda env: not env) == 10)
        engine.docker("service", "scale", "-d", f"{NAME}=5")
        assert until(lambda: _running(engine, lambda env: True) == 5)
        with clock(update, engine):
            engine.docker("service", "update", "-d", "--no-resolve-image", "--env-add", "A=1", NAME)
            assert until(lambda: _running(engine, lambda env: "A=1" in env) == 5)
        engine.docker("service", "rm", NAME)
        assert until(lambda: not engine.docker("ps", "-aq").stdout)

    with _swarms(engines):
        in_turn(engines, 1 if quick else 9, once, seconds=120)
    yield start
    yield update


@contextmanager
def _swarms(engines: Sequence[Engine]) -> Iterator[None]:
    try:
        for engine in engines:
            engine.docker(
                "swarm", "init", "--advertise-addr", "127.0.0.1", "--listen-addr", f"127.0.0.1:{free_ports()}"
            )
        yield
    finally:
        for engine in engines:
            engine.docker("swarm", "leave", "--force", check=False)


def _running(engine: Engine, wanted: Callable[[Sequence[str]], bool]) -> int:
    """The tasks that run and whose environment is as wanted."""
    filters = json.dumps({"service": [NAME], "desired-state": ["running"]})
    tasks = engine.api.get("/tasks", filters=filters).json()
    return sum(
        task["Status"]["State"] == "running" and wanted(task["Spec"]["ContainerSpec"].get("Env") or ())
        for task in tasks
    )


def failover(engines: Sequence[Engine], *, quick: bool) -> Iterator[Row]:
    """A worker's daemon is killed; the time until its task runs on another host, with the default heartbeats."""
    row = Row("a killed node's task runs elsewhere", "ms", at_most(1.2))
    for engine in engines:
        with hosts(3, kind=engine.kind) as group:
            swarm = Swarm(group, managers=1)
            swarm.form(heartbeat="5s")
            swarm.first.docker("node", "update", "--availability", "drain", swarm.first.name)
            swarm.first.docker(*CREATE, "--replicas", "1", *SLEEP)
            for _ in range(1 if quick else 3):
                assert settles(lambda: count(group, NAME) == 1)
                at = next(filter(_has_task, swarm.workers))
                other = next(host for host in swarm.workers if host is not at)
                with clock_of(row, engine.kind):
                    at.kill(at.daemon_name)
                    assert settles(partial(_has_task, other), seconds=90)
                at.start()
    yield row


def _has_task(host: Host) -> bool:
    return count([host], NAME) == 1
