"""Every JSON answer that the docker CLI gets in a tour of its commands, checked against the API description."""

from __future__ import annotations

from pathlib import Path

import pytest

from compat_tests.support.engines import Engine
from compat_tests.support.servers.checking_proxy import CheckingProxy
from compat_tests.swagger.document import split

pytestmark = pytest.mark.root

#: The version of the description; a CLI that is older sends its requests with this version, too.
VERSION = "1.55"
BOX, NETWORK, VOLUME, IMAGE = "cli-tour", "cli-tour-net", "cli-tour-data", "cli-tour:made"
TOUR = (
    "version",
    "info",
    f"network create --label of=tour {NETWORK}",
    f"volume create --label of=tour {VOLUME}",
    f"run -d --name {BOX} --network {NETWORK} -v {VOLUME}:/data -p 127.0.0.1::80 --health-cmd true busybox sleep 600",
    f"run --rm --network {NETWORK} busybox true",
    f"exec {BOX} touch /new",
    f"exec -d {BOX} true",
    "ps -a --size",
    f"ps --filter name={BOX} --no-trunc",
    f"inspect {BOX} {NETWORK} {VOLUME} busybox",
    f"inspect --size --type container {BOX}",
    f"top {BOX}",
    f"port {BOX}",
    f"diff {BOX}",
    f"stats --no-stream {BOX}",
    f"logs {BOX}",
    f"cp {BOX}:/new -",
    f"export {BOX}",
    f"update --memory 64m --memory-swap 64m {BOX}",
    f"rename {BOX} {BOX}-other",
    f"rename {BOX}-other {BOX}",
    f"pause {BOX}",
    f"unpause {BOX}",
    f"restart -t 0 {BOX}",
    f"commit {BOX} {IMAGE}",
    f"history {IMAGE}",
    "images",
    "images -a --digests",
    f"image inspect {IMAGE}",
    f"tag {IMAGE} {IMAGE}-other",
    f"save {IMAGE}",
    f"network connect bridge {BOX}",
    f"network disconnect bridge {BOX}",
    "network ls",
    f"network inspect -v {NETWORK}",
    "volume ls",
    "system df",
    "system df -v",
    "events --since 1 --until 2",
    f"stop -t 0 {BOX}",
    f"start {BOX}",
    f"kill {BOX}",
    f"wait {BOX}",
    f"rm -f {BOX}",
    f"rmi {IMAGE} {IMAGE}-other",
    f"network rm {NETWORK}",
    f"volume rm {VOLUME}",
    *(f"{noun} prune -f --filter label=none" for noun in ("container", "image", "network", "volume")),
    "builder prune -f --filter id=none",
)
#: Commands that the engine refuses, and a part of the reason.
REFUSED = (
    ("inspect cli-tour-none", "cli-tour-none"),
    ("run busybox /none", "/none"),
    ("pull 127.0.0.1:1/app:1", "refused"),
    ("network rm bridge", "pre-defined"),
    ("search 127.0.0.1:1/app", "refused"),
    ("node ls", "not a swarm manager"),
)


def test_answers_to_the_cli_are_as_described(engine: Engine, tmp_path: Path) -> None:
    proxy = CheckingProxy(engine.resources.socket, tmp_path / "docker.sock")
    environment = {"DOCKER_HOST": f"unix://{proxy.path}", "DOCKER_API_VERSION": VERSION}
    try:
        with proxy:
            for command in TOUR:
                engine.docker(*command.split(), env=environment)
            for command, reason in REFUSED:
                done = engine.docker(*command.split(), env=environment, check=False)
                assert done.status != 0, command
                assert reason in done.output, command
    finally:
        engine.remove_all()
        engine.docker("network", "rm", NETWORK, check=False)
        engine.docker("volume", "rm", VOLUME, check=False)
        engine.docker("rmi", "-f", IMAGE, f"{IMAGE}-other", check=False)
    assert not proxy.deviations
    asked = {f"{exchange.method} {split(exchange.target)[1]}" for exchange in proxy.exchanges}
    assert {"GET /info", "GET /containers/json", "POST /containers/create", "GET /system/df", "GET /events"} <= asked
    versions = {split(exchange.target)[0] for exchange in proxy.exchanges}
    assert versions <= {VERSION, ""}
