"""alice's objects, asked for with the docker CLI, docker-py and raw requests: for others they don't exist."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator

import pytest

from compat_tests.access.hostile.conftest import SECRET, Victim
from compat_tests.support.users import Lab, User

#: Commands of the docker CLI by the noun that KEY stands for.
COMMANDS = {
    "container": (
        "inspect --type container KEY",
        "start KEY",
        "stop -t 0 KEY",
        "kill KEY",
        "restart -t 0 KEY",
        "pause KEY",
        "unpause KEY",
        "rename KEY stolen",
        "update --memory 64m --memory-swap 64m KEY",
        "rm -f KEY",
        "logs KEY",
        "exec KEY cat /secret",
        "exec -d --privileged KEY touch /hacked",
        "attach --no-stdin KEY",
        "wait KEY",
        "top KEY",
        "port KEY",
        "diff KEY",
        "export KEY",
        "stats --no-stream KEY",
        "cp KEY:/secret -",
        "cp KEY:/secret ./stolen",
        "cp .profile KEY:/secret",
        "commit KEY stolen",
        "run --rm --network container:KEY busybox cat /secret",
        "run --rm --pid container:KEY busybox cat /proc/1/environ",
        "run --rm --ipc container:KEY busybox ipcs",
        "run --rm --volumes-from KEY busybox cat /data/secret",
        "run --rm --link KEY:web busybox env",
        "network connect ownnet KEY",
        "network disconnect -f ownnet KEY",
        "ps -aq --filter id=KEY",
        "ps -aq --filter name=KEY",
        "ps -aq --filter before=KEY",
    ),
    "network": (
        "network inspect KEY",
        "network rm KEY",
        "network connect KEY own",
        "network disconnect -f KEY own",
        "run --rm --network KEY busybox ping -c 1 vic-web",
        "create --network ownnet --network KEY busybox",
        "network ls -q --filter id=KEY",
        "network create --config-from KEY copy",
    ),
    "volume": (
        "volume inspect KEY",
        "volume rm -f KEY",
        "run --rm -v KEY:/data busybox cat /data/secret",
        "run --rm --mount type=volume,src=KEY,dst=/data busybox cat /data/secret",
        "volume ls -q --filter name=KEY",
    ),
    "image": (
        "image inspect KEY",
        "history KEY",
        "save KEY",
        "save busybox KEY",
        "rmi -f KEY",
        "tag KEY stolen",
        "run --rm --pull never KEY cat /secret",
        "run --rm --mount type=image,src=KEY,dst=/data busybox cat /data/secret",
        "push KEY",
        "images -q --filter reference=KEY",
        "images -q --filter before=KEY",
    ),
}


@pytest.fixture(scope="module")
def attackers(hostile_lab: Lab, victim: Victim) -> Iterator[list[User]]:
    """Hostile users with a container and a network of their own."""
    users = [hostile_lab["bob"], hostile_lab["mallory"]]
    for user in users:
        user.docker("network", "create", "ownnet")
        user.docker("create", "--name", "own", "busybox")
    yield users
    for user in users:
        user.remove_all()


_IDS = re.compile(r"\b[0-9a-f]{64}\b")


def _said(user: User, command: str, key: str) -> tuple[int, str]:
    """Status and output of a command, without the key and without ids of what it has created."""
    words = [word.replace("KEY", key) for word in command.split()]
    done = user.docker(*words, check=False)
    if words[0] == "run":
        user.docker("volume", "rm", "-f", key, check=False)  # the own one, which the command has created
    elif words[0] == "create" and done.status == 0:
        user.docker("rm", done.stdout.strip())
    output = done.stdout + done.stderr
    assert SECRET not in output, command
    for part in (key, key.removesuffix(":latest")):
        output = output.replace(part, "KEY")
    return done.status, _IDS.sub("ID", output)


@pytest.mark.parametrize("noun", COMMANDS)
def test_the_docker_cli(victim: Victim, attackers: list[User], noun: str) -> None:
    """bob knows the names, mallory knows the ids."""
    ids = {"container": victim.container, "network": victim.network, "image": victim.digest, "volume": "vic-data"}
    names = {"container": "vic-web", "network": "vic-net", "image": "vic-image:latest", "volume": "vic-data"}
    nobodys = {"image": "absent:latest"}
    nobodys_id = {"image": f"sha256:{'0' * 64}", "volume": "absent"}
    bob, mallory = attackers
    for command in COMMANDS[noun]:
        assert _said(bob, command, names[noun]) == _said(bob, command, nobodys.get(noun, "absent")), command
        assert _said(mallory, command, ids[noun]) == _said(mallory, command, nobodys_id.get(noun, "0" * 64)), command


def test_docker_py(victim: Victim, attackers: list[User]) -> None:
    docker = pytest.importorskip("docker")
    bob = attackers[0]
    # All of it as bob: docker-py may connect for each request.
    with bob.credentials.effective(), contextlib.closing(docker.DockerClient(bob.host, "auto", 90)) as client:
        for found in (client.containers, client.images, client.networks, client.volumes):
            for key in (victim.container, victim.digest, victim.network, *victim.names):
                with pytest.raises(docker.errors.NotFound):
                    found.get(key)
        assert [each.name for each in client.containers.list(all=True)] == ["own"]
        assert {tag for each in client.images.list() for tag in each.tags} == {"busybox:latest"}
        api = client.api
        calls: tuple[Callable[[str], object], ...] = (
            lambda key: api.get_archive(key, "/secret"),
            lambda key: api.put_archive(key, "/", b""),
            lambda key: api.attach(key, logs=True),
            lambda key: api.exec_create(key, "true"),
            lambda key: api.exec_start(victim.exec),
            lambda key: api.exec_inspect(victim.exec),
            lambda key: api.exec_resize(victim.exec, 1, 1),
            lambda key: list(api.export(key)),
            lambda key: api.stats(key, stream=False),
            lambda key: api.wait(key),
        )
        for call in calls:
            with pytest.raises(docker.errors.NotFound):
                call(victim.container)


def test_no_answer_shows_what_others_have(victim: Victim, attackers: list[User]) -> None:
    """The bytes of everything that lists or counts."""
    everything = {"all": 1, "size": 1, "since": 0, "until": int(time.time()), "digests": 1, "shared-size": 1}
    for user in attackers:
        for path in (
            *("/containers/json", "/images/json", "/networks", "/volumes", "/events", "/info", "/version"),
            *("/system/df", "/system/df?verbose=1", "/networks/bridge", "/networks/host", "/networks/none"),
            *("/images/busybox/json", "/images/busybox/history", "/containers/own/json", "/_ping", "/plugins"),
        ):
            answer = user.api.request("GET", path, query=None if "?" in path else everything)
            assert answer.status == 200, path
            shown = answer.body + repr(answer.headers).encode()
            # The own events have the names that bob gave to objects of his own.
            own = victim.names[:-1] if path == "/events" else ()
            assert set(victim.echoes(shown)) <= set(own), path


def test_counters_do_not_count_what_others_have(victim: Victim, attackers: list[User]) -> None:
    bob = attackers[0]

    def counted() -> object:
        info = bob.api.get("/info").json()
        kept = {key: info[key] for key in info if key.startswith(("Containers", "Images", "NEventsListener"))}
        return kept, bob.api.get("/system/df").json(), bob.docker("system", "df").stdout

    before = counted()
    watch = victim.alice.api.raw()
    watch.sendall(b"GET /events HTTP/1.1\r\nHost: docker\r\n\r\n")
    assert watch.recv(64)
    id = victim.alice.docker("run", "-d", "-v", "/anonymous", "vic-image", "sh", "-c", "echo x > /y").stdout.strip()
    try:
        assert counted() == before
    finally:
        watch.close()
        victim.alice.docker("rm", "-f", "-v", id)
    assert counted() == before


def test_a_stream_of_events(victim: Victim, attackers: list[User]) -> None:
    """bob watches while alice works with every noun; then one event of bob's own ends the test."""
    alice, bob = victim.alice, attackers[0]
    watch = bob.api.raw()
    watch.sendall(b"GET /events HTTP/1.1\r\nHost: docker\r\n\r\n")
    received = watch.recv(4096)
    alice.docker("run", "--rm", "--name", "job", "-v", "job:/data", "vic-image", "true")
    alice.docker("network", "create", "jobnet")
    alice.docker("network", "rm", "jobnet")
    alice.docker("volume", "rm", "job")
    alice.docker("tag", "vic-image", "job-image")
    alice.docker("rmi", "job-image")
    alice.docker("exec", victim.container, "true")
    bob.docker("volume", "create", "last")
    while b"last" not in received:
        received += watch.recv(65536)
    watch.close()
    bob.docker("volume", "rm", "last")
    assert b"job" not in received
    assert victim.echoes(received) == []


def test_prunes_remove_own_objects_only(victim: Victim, attackers: list[User]) -> None:
    """After the test alice's objects are as before; here is one of each that nothing uses."""
    alice, mallory = victim.alice, attackers[1]
    alice.docker("volume", "create", "unused")
    alice.docker("network", "create", "unused")
    alice.docker("create", "--name", "unused", "busybox")
    alice.docker("tag", "vic-image", "unused")
    mallory.docker("system", "prune", "-af", "--volumes")
    mallory.docker("volume", "prune", "-af")
    for words in (("volume", "rm"), ("network", "rm"), ("rm",), ("rmi",)):
        alice.docker(*words, "unused")
    for noun in ("container", "network"):
        assert mallory.docker(noun, "inspect", "own" if noun == "container" else "ownnet", check=False).status == 1
    mallory.docker("network", "create", "ownnet")
    mallory.docker("create", "--name", "own", "busybox")
