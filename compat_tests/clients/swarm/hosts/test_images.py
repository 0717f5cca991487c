"""Images that no registry has: the nodes of a service get them from each other."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from functools import partial

import pytest

from compat_tests.support.hosts.host import Host
from compat_tests.support.hosts.segment import SUBNET
from compat_tests.support.hosts.swarm import Swarm, count, placed, running, settles

IMAGE = "only:first"
CREATE = ("service", "create", "-d", "--init", "--no-resolve-image", "--restart-delay", "200ms", "--name")
#: More than one piece of a blob.
MAKE = "head -c 3000000 /dev/urandom > /data; sha256sum /data"


@pytest.fixture
def checksum(swarm: Swarm, kind: str) -> Iterator[str]:
    """The checksum of a file in an image that one manager has."""
    if kind == "dockerd":
        pytest.skip("dockerd's nodes pull from registries only")
    made = swarm.first.docker("run", "--name", "made", "busybox", "sh", "-c", MAKE).stdout
    swarm.first.docker("commit", "made", IMAGE)
    swarm.first.docker("rm", "made")
    yield made
    swarm.hosts.each(lambda host: host.docker("rmi", "-f", IMAGE, check=False))


def _logged(host: Host, id: str, text: str) -> bool:
    return host.docker("logs", id).stdout == text


def test_an_image_of_one_manager_runs_on_all_nodes(swarm: Swarm, checksum: str) -> None:
    script = "sha256sum /data; exec sleep 1000"
    swarm.managers[1].docker(*CREATE, "web", "--replicas", "5", IMAGE, "sh", "-c", script)
    assert settles(lambda: count(swarm.hosts, "web") == 5), placed(swarm.first, "web")
    for host in swarm.hosts:
        (id,) = running([host], "web")[host.name]
        assert settles(partial(_logged, host, id, checksum))
    # What the nodes have is an ordinary image, also after its service.
    swarm.first.docker("service", "rm", "web")
    worker = swarm.workers[1]
    assert worker.docker("run", "--rm", IMAGE, "sha256sum", "/data").stdout == checksum


def test_other_images_of_a_manager_stay_there(swarm: Swarm, checksum: str) -> None:
    """A node asks for the image of its service only, and a missing one is dockerd's error."""
    swarm.first.docker(*CREATE, "none", "--restart-condition", "none", "--mode", "global", "only:second")
    words = ("service", "ps", "--no-trunc", "--format", "{{.Error}}", "none")
    assert settles(lambda: swarm.first.docker(*words).stdout.count("No such image: only:second") == 5)
    for host in list(swarm.hosts)[1:]:
        assert host.docker("images", "-q", "only").stdout == ""


def test_equal_nodes_are_chosen_by_their_images(swarm: Swarm, kind: str) -> None:
    """Each time, the service is the only one: without the image, the node with the smallest id would have it."""
    if kind == "dockerd":
        pytest.skip("dockerd's scheduler knows no images")
    ids = swarm.first.docker("node", "ls", "--format", "{{.ID}} {{.Hostname}}").stdout.split("\n")
    host = next(host for host in swarm.workers if host.name != min(filter(None, ids)).split()[1])
    host.docker("tag", "busybox", "local:1")

    def chosen() -> str:
        swarm.first.docker(*CREATE, "one", "--restart-condition", "none", "local:1", "sleep", "1000")
        words = ("service", "ps", "--format", "{{.Node}}", "one")
        assert settles(lambda: swarm.first.docker(*words).stdout.strip() != "")
        node = swarm.first.docker(*words).stdout.strip()
        swarm.first.docker("service", "rm", "one")
        assert settles(lambda: not any(swarm.hosts.each(lambda host: host.docker("ps", "-aq").stdout)))
        return node

    try:
        # The scheduler prefers the node once the node has reported its images.
        assert settles(lambda: chosen() == host.name)
    finally:
        swarm.hosts.each(lambda host: host.docker("rmi", "-f", "local:1", check=False))


#: Accepts connections, and never answers.
SILENT = "import socket, time; s = socket.create_server(('', 5000)); print('ready', flush=True); time.sleep(600)"


def test_a_registry_that_never_answers_delays_an_image_by_seconds(swarm: Swarm, checksum: str) -> None:
    address = f"{SUBNET[1]}:5000"
    image = f"{address}/only:first"
    swarm.first.docker("tag", IMAGE, image)
    with subprocess.Popen(
        [*swarm.hosts.enter, sys.executable, "-c", SILENT], stdout=subprocess.PIPE, text=True
    ) as silent:
        try:
            assert silent.stdout is not None
            assert silent.stdout.readline() == "ready\n"
            swarm.first.docker(*CREATE, "slow", "--mode", "global", image, "sleep", "1000")
            assert settles(lambda: count(swarm.hosts, "slow") == 5), placed(swarm.first, "slow")
            for host in list(swarm.hosts)[1:]:
                log = host.daemon.tail(100_000)
                assert f"image {image}: its registry has not answered in 5 s; other nodes are asked, too" in log
                assert f"image {image} came from another node" in log
        finally:
            silent.kill()
            swarm.hosts.each(lambda host: host.docker("rmi", "-f", image, check=False))
