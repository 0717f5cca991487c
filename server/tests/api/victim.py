"""Two users of an engine with a policy, alice's objects, and keys with which another user may ask for them."""

import asyncio
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from server.tests import samples
from server.tests.daemon import Daemon, serving

ALICE, BOB = 10001, 10002
POLICY = {
    "published_images": ("docker.io/library/busybox:*",),
    "users": {str(ALICE): "member", str(BOB): "member"},
    "roles": {"member": {}},
}

#: Pairs of a key of alice's object, and a key of the same form that nothing has.
Keys = Sequence[tuple[str, str]]


@dataclass(slots=True)
class Victim:
    """A daemon with two users. ``keys``: by noun. bob has a container ``own`` and a network ``ownnet``."""

    daemon: Daemon
    alice: Daemon
    bob: Daemon
    keys: Mapping[str, Keys]


class _Sockets:
    """Accepts on the job sockets, and answers nothing."""

    async def listen(self, sock: socket.socket) -> asyncio.Server:
        return await asyncio.start_unix_server(lambda reader, writer: writer.close(), sock=sock)

    def drop(self, path: str) -> None:
        return


def restrict(daemon: Daemon) -> None:
    """Publish busybox to alice and bob, who have a role."""
    daemon.load("busybox:latest", config={"Cmd": ["sh"]})
    daemon.restrict(POLICY)


@contextmanager
def lab(directory: Path) -> Iterator[Daemon]:
    """A daemon with a policy, and with busybox published to the users."""
    file = directory / "policy.toml"
    file.touch()
    with serving(directory, policy_file=str(file)) as daemon:
        restrict(daemon)
        assert daemon.services.jobs is not None
        daemon.wait(daemon.services.jobs.open(_Sockets()))
        yield daemon


def _by_id(id: str) -> Keys:
    """The full id, and prefixes of it."""
    absent = f"{int(id, 16) ^ (1 << 250):064x}"
    return [(id, absent), (id[:12], absent[:12]), (id[:6], absent[:6])]


def furnish(alice: Daemon) -> Mapping[str, Keys]:
    """Create one object of each noun, and a container that runs."""
    container = alice.create("victim")
    network = alice.post("/networks/create", {"Name": "vicnet", "ConfigOnly": True}).json()["Id"]
    alice.post("/volumes/create", {"Name": "vicvol"})
    # Nothing listens on this port of the loopback, in case that the engine asks a registry.
    archive = samples.archive(("127.0.0.1:9/victim:1",), samples.layer({"secret": b"alice"}), {})
    alice.request("POST", "/images/load", content=archive)
    image = alice.get("/images/127.0.0.1:9/victim:1/json").json()["Id"].removeprefix("sha256:")
    running = alice.services.containers.get(alice.create("runner"))
    alice.start(running)
    exec = alice.post(f"/containers/{running.id}/exec", {"Cmd": ["true"]}).json()["Id"]
    digests = _by_id(image)
    job = alice.post("/wharf/v1/sockets", {}).json()["Id"]
    return {
        "container": [
            *(("victim", "zzzzzz"), *_by_id(container)),
            *(("runner", "zzzzzz"), *_by_id(running.id)),
        ],
        "network": [("vicnet", "zzzzzz"), *_by_id(network)],
        # The forms of names that are unique in the engine are names for nobody.
        "volume": [("vicvol", "zzzzzz"), (f"@{ALICE}/vicvol", f"@{ALICE}/zzzzzz")],
        "image": [
            ("127.0.0.1:9/victim:1", "127.0.0.1:9/zzzzzz:1"),
            *digests,
            *((f"sha256:{key}", f"sha256:{absent}") for key, absent in digests),
            (f"127.0.0.1:9/victim@sha256:{digests[0][0]}", f"127.0.0.1:9/zzzzzz@sha256:{digests[0][1]}"),
            (f"busybox@sha256:{digests[0][0]}", f"busybox@sha256:{digests[0][1]}"),
            (f"@{ALICE}/127.0.0.1:9/victim:1", f"@{ALICE}/127.0.0.1:9/zzzzzz:1"),
        ],
        "exec": _by_id(exec)[:1],
        "job": [(job, "0" * len(job))],
    }


def dismantle(alice: Daemon) -> None:
    """Remove what ``furnish`` has created, but the network, whose removal needs a kernel."""
    for name in ("victim", "runner"):
        id = alice.get(f"/containers/{name}/json").json()["Id"]
        alice.services.containers.get(id).state.running = False
        assert alice.delete(f"/containers/{id}", force=1).status_code == 204
    [job] = alice.get("/wharf/v1/sockets").json()
    for path in (f"/wharf/v1/sockets/{job['Id']}", "/volumes/vicvol", "/images/127.0.0.1:9/victim:1"):
        assert alice.delete(path).status_code in (200, 204), path


def _plain(name: str) -> str:
    """A name without its tag or digest."""
    if name.startswith("sha256:"):
        return name
    name = name.partition("@sha256:")[0]
    return name.rpartition(":")[0] if ":" in name.rpartition("/")[2] else name


def anonymous(text: str, key: str) -> str:
    """An answer without the key that was asked for."""
    for part in (key, _plain(key), _plain(key).rpartition("/")[2], key.removeprefix("sha256:")):
        text = text.replace(part, "KEY")
    return text


_VARIES = re.compile(r"\b[0-9a-f]{64}\b|\b[0-9a-f]{12}\b|\d{4}-\d\d-\d\dT[0-9:.]+Z")


def comparable(text: str, key: str) -> str:
    """An answer without the key, and without the ids and times of what the request has created."""
    return anonymous(_VARIES.sub("VARIES", text), key)
