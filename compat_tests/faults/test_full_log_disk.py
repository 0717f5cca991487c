"""A full disk below a container's log: log lines are lost, but the container and its clients continue."""

from __future__ import annotations

import subprocess

import pytest

from compat_tests.support.containers import container
from compat_tests.support.engines import Engine
from compat_tests.support.host.filesystems import tmpfs
from compat_tests.support.polling import until
from compat_tests.support.streams import demultiplex, hijack

LINES = 20_000
WRITE = f"i=0; while [ $i -lt {LINES} ]; do echo line $i; i=$((i+1)); done; echo full; read x; echo $x"


@pytest.mark.parametrize("driver", ["json-file", "local"])
def test_a_full_disk_loses_lines_and_nothing_else(engine: Engine, driver: str) -> None:
    if engine.kind != "wharf":
        pytest.skip("the log's place is ours")
    log = {"Type": driver, "Config": {"max-size": "-1"} if driver == "json-file" else {"compress": "false"}}
    config = {"Cmd": ["sh", "-c", WRITE], "OpenStdin": True, "HostConfig": {"LogConfig": log, "NetworkMode": "none"}}
    with container(engine, start=False, **config) as identity:
        directory = engine.resources.root / "data/containers" / identity
        with tmpfs(directory, "256k"):
            with hijack(engine, f"/containers/{identity}/attach?stream=1&stdin=1&stdout=1") as stream:
                assert engine.api.post(f"/containers/{identity}/start").status == 204
                output = stream.until(b"full\n")
                assert demultiplex(output)[1].count(b"\n") == LINES + 1
                logged = engine.docker("logs", identity).stdout.splitlines()
                # The lines that fit are in order, each record complete.
                numbers = [int(line.removeprefix("line ")) for line in logged if line != "full"]
                assert numbers[:100] == list(range(100))
                assert len(numbers) < LINES
                assert numbers == sorted(set(numbers))
                # With free space, the log continues with complete records.
                subprocess.run(["mount", "-o", "remount,size=8m", str(directory)], check=True, timeout=60)
                stream.write(b"again\n")
                stream.until(b"again\n")
            assert until(lambda: not engine.api.get(f"/containers/{identity}/json").json()["State"]["Running"])
            assert engine.docker("logs", identity).stdout.splitlines() == [*logged, "again"]
