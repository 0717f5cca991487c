"""GPUs on an engine with a policy, with a CDI specification of made-up devices. Real starts are in
``compat_tests/access/test_gpus.py``."""

import asyncio
import json
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from engine.common.errors import WharfError
from server.access.caller import EVERYONE, Caller
from server.containers.hooks import call
from server.containers.model import Container
from server.gpus.service import Gpus
from server.tests.daemon import Daemon, serving

ALICE, BOB = 10001, 10002
POLICY = """
published_images = ["docker.io/library/*"]
users.10001 = "member"
users.10002 = "member"
roles.member.gpus = 2
roles.member.shared_gpus = ["nvidia.com/gpu=3"]
"""
KIND = "nvidia.com/gpu"


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """Four GPUs, and a device that is no GPU."""
    specifications = tmp_path / "cdi"
    specifications.mkdir()
    for kind, names in ((KIND, "0123"), ("example.com/net", "a")):
        devices = [{"name": name, "containerEdits": {"env": [f"GOT_{name}=1"]}} for name in names]
        document = {"cdiVersion": "0.6.0", "kind": kind, "devices": devices}
        (specifications / f"{kind.partition('.')[0]}.json").write_text(json.dumps(document))
    policy = tmp_path / "policy.toml"
    policy.write_text(POLICY)
    with serving(tmp_path, policy_file=str(policy), cdi_spec_dirs=(str(specifications),)) as running:
        running.load("busybox:latest", config={"Cmd": ["sh"]})
        running.restrict(tomllib.loads(POLICY))
        yield running


def gpus_of(daemon: Daemon) -> Gpus:
    assert daemon.services.gpus is not None
    return daemon.services.gpus


def gpu(count: int = 1, *ids: str, wait: str = "", driver: str = "") -> dict[str, Any]:
    """The body of a container that requests GPUs."""
    request = {"Driver": driver, "Count": count, "DeviceIDs": list(ids), "Capabilities": [["gpu"]]}
    return {"HostConfig": {"DeviceRequests": [request]}, "Labels": {"wharf.wait": wait} if wait else {}}


def hold(daemon: Daemon, uid: int, count: int = 1, *ids: str) -> Container:
    """A running container with GPUs."""
    container = daemon.services.containers.get(daemon.as_uid(uid).create(**gpu(count, *ids)))
    daemon.wait(gpus_of(daemon).claim(container))
    daemon.start(container)
    return container


def refusal(daemon: Daemon, uid: int, body: dict[str, Any]) -> tuple[int, str]:
    client = daemon.as_uid(uid)
    id = client.create(**body)
    found = client.refusal("POST", f"/containers/{id}/start")
    assert client.get(f"/containers/{id}/json").json()["State"]["Error"] == found[1]
    assert daemon.services.containers.get(id).gpus == []
    client.delete(f"/containers/{id}")
    return found


def test_refusals(daemon: Daemon) -> None:
    hold(daemon, ALICE, 0, "0")
    (since,) = [row.holders[0].since_ns for row in daemon.wait(gpus_of(daemon).gpus()) if row.holders]
    assert since > 0
    status, message = refusal(daemon, BOB, gpu(0, "0"))
    assert (status, message.rpartition(" since ")[0]) == (409, f"not enough free GPUs: {KIND}=0 is held by 10001")
    assert refusal(daemon, BOB, gpu(3)) == (403, "your role does not allow 3 GPUs: its limit is 2")
    assert refusal(daemon, 0, gpu(9)) == (400, f"9 GPUs {KIND} requested, but this host has 4")
    assert refusal(daemon, BOB, gpu(0, "7")) == (
        400, f"CDI device injection failed: unresolvable CDI devices {KIND}=7",
    )  # fmt: skip
    assert refusal(daemon, ALICE, gpu(2)) == (
        409, "not enough free GPUs: 10001 has 1 GPU, and the role's limit is 2",
    )  # fmt: skip
    assert refusal(daemon, BOB, gpu(0, "example.com/net=a", driver="cdi")) == (
        403, "your role does not allow --device example.com/net=a",
    )  # fmt: skip
    assert refusal(daemon, BOB, gpu(wait="soon")) == (
        400, "label wharf.wait=soon: not a duration such as 90s, 30m, 12h or 7d",
    )  # fmt: skip


def test_the_spec_gets_the_allocated_devices(daemon: Daemon) -> None:
    hold(daemon, ALICE)
    container = hold(daemon, BOB)
    assert container.gpus == [f"{KIND}=1"]
    assert daemon.wait(gpus_of(daemon).devices(container)) == (f"{KIND}=1",)
    # An administrator may have devices that are no GPUs.
    mixed = hold(daemon, 0, 0, f"{KIND}=2", "example.com/net=a")
    assert daemon.wait(gpus_of(daemon).devices(mixed)) == (f"{KIND}=2", "example.com/net=a")


def test_a_failed_start_releases(daemon: Daemon) -> None:
    """The fake can't start tasks with mounts."""
    client = daemon.as_uid(ALICE)
    id = client.create(**gpu(2))
    assert client.post(f"/containers/{id}/start").status_code == 500
    assert daemon.wait(gpus_of(daemon).gpus())[0].holders == ()
    assert hold(daemon, ALICE, 2).gpus == [f"{KIND}=0", f"{KIND}=1"]


def test_a_stop_releases(daemon: Daemon) -> None:
    container = hold(daemon, ALICE, 2)
    rows = daemon.wait(gpus_of(daemon).gpus())
    assert [[holder.container for holder in row.holders] for row in rows] == [[container.id], [container.id], [], []]
    call(daemon.services.containers.hooks.drained, container)
    assert container.gpus == []
    assert not any(row.holders for row in daemon.wait(gpus_of(daemon).gpus()))


def test_running_containers_keep_their_gpus_over_a_restart(daemon: Daemon) -> None:
    context = daemon.services.containers.context
    container = hold(daemon, ALICE)
    later = Gpus(context, gpus_of(daemon)._roles)
    daemon.wait(later.open())
    (row,) = [row for row in daemon.wait(later.gpus()) if row.holders]
    assert ([row.name], [holder.container for holder in row.holders]) == (container.gpus, [container.id])
    other = daemon.services.containers.get(daemon.as_uid(BOB).create(**gpu(0, "0")))
    with pytest.raises(WharfError, match=f"{KIND}=0 is held by 10001 since"):
        daemon.wait(later.claim(other))


def test_who_sees_which_containers(daemon: Daemon) -> None:
    container = hold(daemon, ALICE, 0, "3")
    hold(daemon, BOB, 0, "3")
    for caller_uid, seen in ((ALICE, [container.id, ""]), (BOB, ["", None]), (0, [None, None])):
        caller = Caller(str(caller_uid), administrator=False) if caller_uid else EVERYONE
        bound = daemon.services.seen_by(caller).gpus
        assert bound is not None
        (row,) = [row for row in daemon.wait(bound.gpus()) if row.holders]
        assert (row.name, row.shared) == (f"{KIND}=3", True)
        assert [holder.user for holder in row.holders] == ["10001", "10002"]
        for holder, expected in zip(row.holders, seen, strict=True):
            assert holder.container if expected is None else holder.container == expected


def test_waiting(daemon: Daemon) -> None:
    """The places of three containers of two users, in events and lists; one leaves; one times out."""
    holder = hold(daemon, 0, -1)
    assert len(holder.gpus) == 4
    daemon.wait(_waiting(daemon, holder))


async def _waiting(daemon: Daemon, holder: Container) -> None:
    gpus, containers = gpus_of(daemon), daemon.services.containers

    async def created(uid: int, wait: str) -> Container:
        body = {"Image": "busybox", "Cmd": ["top"], **gpu(0, "0", wait=wait)}
        answer = await daemon.as_uid(uid)._request("POST", "/containers/create", {"json": body})
        return containers.get(answer.json()["Id"])

    async def status(container: Container) -> str:
        rows = (await daemon._request("GET", "/containers/json", {"params": {"all": 1}})).json()
        return str(next(row["Status"] for row in rows if row["Id"] == container.id))

    async def queued(container: Container) -> asyncio.Task[None]:
        """Lets the container wait; returns when it is in the queue."""
        task = asyncio.create_task(gpus.wait(container))
        published = daemon.services.events.subscribe()
        async for event in published:
            if event.action == "gpu-queue" and event.actor == container.id:
                break
        await published.aclose()
        return task

    one, two, three = await created(ALICE, "1h"), await created(ALICE, "1h"), await created(BOB, "1s")
    waits = [await queued(container) for container in (one, two, three)]
    assert [gpus.place(each) for each in (one, three, two)] == [(1, 3), (2, 3), (3, 3)]
    assert await status(two) == "Created (waiting for a GPU, place 3 of 3)"
    assert [(row.place, row.user) for row in gpus.queue()] == [(1, "10001"), (2, "10002"), (3, "10001")]
    answer = await daemon.as_uid(ALICE)._request("POST", f"/containers/{two.id}/start", {})
    assert answer.status_code == 409
    assert answer.json()["message"] == f"container {two.id} is waiting for GPUs already"
    # Its time is over.
    with pytest.raises(WharfError, match=f"no GPUs within 1s: {KIND}=0 is held by an administrator since"):
        await waits[2]
    assert gpus.place(two) == (2, 2)
    # Its client leaves.
    waits[0].cancel()
    with suppress(asyncio.CancelledError):
        await waits[0]
    assert gpus.place(two) == (1, 1)
    # A request that does not wait gets an error, and no place.
    with pytest.raises(WharfError, match="not enough free GPUs"):
        await gpus.claim(three)
    answer = await daemon._request("DELETE", f"/containers/{one.id}", {})
    assert answer.status_code == 204
    call(containers.hooks.drained, holder)
    await waits[1]
    assert two.gpus == [f"{KIND}=0"]
    assert gpus.place(two) is None
    # A stop ends a wait.
    gpus.release(two)
    await gpus.claim(holder)
    stopped = await queued(two)
    answer = await daemon.as_uid(ALICE)._request("POST", f"/containers/{two.id}/stop", {})
    assert answer.status_code == 204
    with pytest.raises(WharfError, match="was stopped while it waited for GPUs"):
        await stopped


def test_events_of_places(daemon: Daemon) -> None:
    hold(daemon, 0, -1)
    client = daemon.as_uid(ALICE)
    id = client.create(**gpu(0, "0", wait="1s"))
    status, message = client.refusal("POST", f"/containers/{id}/start")
    assert (status, message.partition(":")[0]) == (409, "no GPUs within 1s")
    (event,) = [event for event in client.events() if event["Action"] == "gpu-queue"]
    assert event["Actor"]["ID"] == id
    assert {name: event["Actor"]["Attributes"][name] for name in ("place", "of")} == {"place": "1", "of": "1"}
    assert not [event for event in daemon.as_uid(BOB).events() if event["Action"] == "gpu-queue"]


def test_a_new_policy(daemon: Daemon) -> None:
    daemon.restrict(tomllib.loads(POLICY.replace("gpus = 2", "gpus = 3")))
    assert len(hold(daemon, ALICE, 3).gpus) == 3


def test_the_lists_of_gpus_and_of_the_queue(daemon: Daemon) -> None:
    held = hold(daemon, ALICE, 0, "0")
    (*_, last) = rows = daemon.as_uid(ALICE).get("/wharf/v1/gpus").json()
    assert [row["Name"] for row in rows] == [f"{KIND}={number}" for number in range(4)]
    assert last == {"Name": f"{KIND}=3", "Names": [f"{KIND}=3"], "Partition": False, "Shared": True, "Holders": []}
    (holder,) = rows[0]["Holders"]
    assert (holder["User"], holder["Container"], holder["ContainerName"]) == ("10001", held.id, held.name)
    (of_bob,) = daemon.as_uid(BOB).get("/wharf/v1/gpus").json()[0]["Holders"]
    assert of_bob == {"User": "10001", "Since": holder["Since"]}

    async def queued(container: Container) -> asyncio.Task[None]:
        waiting = asyncio.create_task(gpus_of(daemon).wait(container))
        for _ in range(1000):
            await asyncio.sleep(0.01)
            if gpus_of(daemon).queue():
                break
        return waiting

    id = daemon.as_uid(BOB).create(name="train", **gpu(0, "0", wait="1h"))
    waiting = daemon.wait(queued(daemon.services.containers.get(id)))
    (entry,) = daemon.get("/wharf/v1/queue").json()
    assert (entry["Place"], entry["User"], entry["Gpus"], entry["Counts"]) == (1, "10002", [f"{KIND}=0"], {})
    assert (entry["Container"], entry["ContainerName"]) == (id, "train")
    assert entry["Reason"]
    (of_alice,) = daemon.as_uid(ALICE).get("/wharf/v1/queue").json()
    assert "Container" not in of_alice
    waiting.cancel()
    with suppress(asyncio.CancelledError):
        daemon.wait(waiting)
