"""The shares of users: numbers of containers, CPUs, the own limits in info, and the accounts."""

import asyncio
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from server.shares.store import Usage
from server.tests import samples
from server.tests.daemon import Daemon, serving

ALICE, BOB = 10001, 10002
POLICY = """
published_images = ["docker.io/library/*"]

[users]
10001 = "small"
10002 = "big"

[roles.small]
containers = 3
cpus = 1.5
memory = "64m"

[roles.big]
keep = true
"""


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    file = tmp_path / "policy.toml"
    file.write_text(POLICY)
    with serving(tmp_path, policy_file=str(file)) as made:
        made.load("busybox:latest", config={"Cmd": ["sh"]})
        made.restrict(tomllib.loads(POLICY))
        yield made


def body(**more: object) -> dict[str, object]:
    return {"Image": "busybox", "Cmd": ["top"], **more}


def test_the_number_of_containers_with_creates_at_the_same_time(daemon: Daemon) -> None:
    alice = daemon.as_uid(ALICE)
    alice.create("first")

    async def together() -> list[httpx.Response]:
        requests = (alice.begin("POST", "/containers/create", json=body()) for _ in range(4))
        return await asyncio.gather(*requests)

    assert sorted(answer.status_code for answer in daemon.wait(together())) == [201, 201, 403, 403]
    status, message = alice.refusal("POST", "/containers/create", json=body())
    assert status == 403
    assert message.startswith("the policy allows you 3 containers, and 3 exist: ")
    daemon.as_uid(BOB).create("first")
    alice.delete("/containers/first")
    alice.create("second")


def test_info_shows_what_a_user_has_of_the_machine(daemon: Daemon) -> None:
    whole = daemon.get("/info").json()
    shown = daemon.as_uid(ALICE).get("/info").json()
    assert (shown["NCPU"], shown["MemTotal"]) == (min(2, whole["NCPU"]), min(64 << 20, whole["MemTotal"]))
    assert daemon.as_uid(BOB).get("/info").json()["MemTotal"] == whole["MemTotal"]


def test_the_label_keep_is_a_right(daemon: Daemon) -> None:
    kept = body(Labels={"wharf.keep": ""})
    assert daemon.as_uid(BOB).post("/containers/create", kept).status_code == 201
    answer = daemon.as_uid(ALICE).refusal("POST", "/containers/create", json=kept)
    assert answer == (403, "the policy does not allow you the label wharf.keep")


def test_the_accounts_have_what_ran(daemon: Daemon) -> None:
    shares = daemon.services.shares
    assert shares is not None
    container = daemon.as_uid(ALICE).run("web")
    daemon.wait(shares.ended(container))

    async def rows() -> list[Usage]:
        return await shares.accounting.usage(1, str(ALICE), 10)

    (row,) = daemon.wait(rows())
    assert (row.owner, row.name, row.container) == (str(ALICE), "web", container.id)


def test_the_disk_is_refused_before_a_stream_begins(daemon: Daemon) -> None:
    alice, bob = daemon.as_uid(ALICE), daemon.as_uid(BOB)
    archive = samples.archive(("mine:latest",), samples.layer({"etc/hostname": b""}), {})
    assert alice.request("POST", "/images/load", content=archive).status_code == 200
    daemon.restrict({**tomllib.loads(POLICY), "roles": {"small": {"disk": 1}, "big": {}}})
    for method, path in (
        ("POST", "/images/create?fromSrc=-"),
        ("POST", "/images/create?fromImage=a"),
        ("POST", "/images/load"),
        ("POST", "/containers/create"),
        ("POST", "/volumes/create"),
        ("POST", "/commit?container=a"),
        ("POST", "/build"),
    ):
        status, message = alice.refusal(method, path)
        assert status == 403
        assert message.startswith("the policy allows you 1B of disk, and "), path
        assert "images" in message
        assert "mine:latest" in message
    assert bob.post("/volumes/create", {}).status_code == 201
    assert alice.delete("/images/mine:latest").status_code == 200
    assert alice.post("/volumes/create", {}).status_code == 201


def test_an_engine_without_a_policy_does_not_load_the_room() -> None:
    code = "import sys, server.daemon; print(*(name for name in sys.modules if name.startswith('server.shares')))"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout.strip() == b""
