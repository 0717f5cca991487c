"""`--gpus` by the convention of NVIDIA's container toolkit: environment variables tell its hook what to mount.

A script of the test replaces the hook and records its arguments.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from compat_tests.support import engines
from compat_tests.support.containers import container
from compat_tests.support.engines import Engine

HOOK = """#!/bin/sh
{{ echo "$@"; cat; }} >{notes}/called.new
mv {notes}/called.new {notes}/called
"""


@dataclass(frozen=True, slots=True)
class Host:
    """An engine that finds the hook on its PATH; ``called``: the hook's arguments and input."""

    engine: Engine
    called: Path


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    notes = tmp_path_factory.mktemp("hook")
    program = notes / "nvidia-container-runtime-hook"
    program.write_text(HOOK.format(notes=notes))
    program.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{notes}:{os.environ['PATH']}")
        with engines.wharf("gpus") as engine:
            engine.load_busybox()
            yield Host(engine, notes / "called")


@pytest.mark.parametrize(
    ("device_request", "words"),
    [
        ({"Count": -1, "Capabilities": [["gpu"]]}, {"NVIDIA_VISIBLE_DEVICES": "all"}),
        ({"Driver": "nvidia", "Count": 2}, {"NVIDIA_VISIBLE_DEVICES": "0,1"}),
        (
            {"DeviceIDs": ["GPU-1", "2"], "Capabilities": [["gpu", "utility", "compute"]]},
            {"NVIDIA_VISIBLE_DEVICES": "GPU-1,2", "NVIDIA_DRIVER_CAPABILITIES": "utility,compute"},
        ),
    ],
    ids=["all", "two", "by name"],
)
def test_hook_arguments(host: Host, device_request: dict[str, Any], words: dict[str, str]) -> None:
    host.called.unlink(missing_ok=True)
    engine = host.engine
    with container(engine, Cmd=["env"], HostConfig={"DeviceRequests": [device_request]}) as box:
        # The hook ran before the container's process: the start waits for it.
        arguments, _, state = host.called.read_text().partition("\n")
        assert arguments == "prestart"
        assert json.loads(state)["id"] == box
        assert engine.api.post(f"/containers/{box}/wait").json()["StatusCode"] == 0
        lines = engine.docker("logs", box).stdout.splitlines()
        assert words == dict(line.split("=", 1) for line in lines if line.startswith("NVIDIA_"))


def test_requests_of_the_cli(host: Host) -> None:
    run = ("run", "--rm", "--network", "none", "--gpus", 'device=5,"capabilities=video,utility"')
    lines = host.engine.docker(*run, "busybox", "env").stdout.splitlines()
    assert "NVIDIA_VISIBLE_DEVICES=5" in lines
    assert "NVIDIA_DRIVER_CAPABILITIES=video,utility" in lines


def test_count_and_device_ids_exclude_each_other(host: Host) -> None:
    device_request = {"Count": 1, "DeviceIDs": ["0"], "Capabilities": [["gpu"]]}
    with container(host.engine, start=False, Cmd=["true"], HostConfig={"DeviceRequests": [device_request]}) as box:
        answer = host.engine.api.post(f"/containers/{box}/start")
        assert answer.error == (400, "cannot set both Count and DeviceIDs on device request")
