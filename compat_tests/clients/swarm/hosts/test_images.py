"""Images that no registry has: the nodes of a service get them from each other."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from compat_tests.support.hosts.host import Host
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
