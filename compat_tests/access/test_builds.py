"""Builds of several owners: each has a cache and image names of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from compat_tests.support.engines import Wharf
from compat_tests.support.host.subids import USER, subordinate_ids
from compat_tests.support.images import layer
from compat_tests.support.users import Lab, User, lab

DOCKERFILE = """
FROM busybox
RUN --mount=type=secret,id=token cat /run/secrets/token > /made; date +%s%N >> /made
"""


def build(user: User, name: str, *words: str, dockerfile: str = DOCKERFILE, secret: str = "") -> str:
    """Build an image; return the progress."""
    (user.home / "token").write_text(secret or user.name)
    context = user.home / "context"
    context.mkdir(exist_ok=True)
    (context / "Dockerfile").write_text(dockerfile)
    for path in (context, context / "Dockerfile", user.home / "token"):
        path.chmod(0o755)
    secrets = ("--secret", f"id=token,src={user.home}/token")
    return user.docker("build", "--progress=plain", "-t", name, *secrets, *words, str(context)).stderr


def cached(client: User | Wharf) -> set[str]:
    """The ids of the records in the build cache."""
    return {row["ID"] for row in client.api.get("/system/df", type="build-cache").json()["BuildCache"] or []}


def made(user: User, name: str) -> str:
    return user.docker("run", "--rm", name, "cat", "/made").stdout


@pytest.fixture(autouse=True)
def remove_images(shared_lab: Lab) -> Iterator[None]:
    """Remove the images that the tests make."""
    yield
    for name in ("alice", "bob"):
        shared_lab[name].docker("image", "prune", "-af")
        shared_lab[name].docker("builder", "prune", "-af")


def test_a_step_with_a_secret_is_not_shared(shared_lab: Lab) -> None:
    """The key of the step is the same for both users: secrets are no part of it."""
    alice, bob = shared_lab["alice"], shared_lab["bob"]
    build(alice, "made")
    assert "CACHED" in build(alice, "made")
    assert "CACHED" not in build(bob, "made")
    assert made(alice, "made").startswith(alice.name)
    assert made(bob, "made").startswith(bob.name)


def test_caches_and_prunes_are_own(shared_lab: Lab) -> None:
    alice, bob = shared_lab["alice"], shared_lab["bob"]
    build(alice, "made")
    build(bob, "made")
    before = [cached(user) for user in (alice, bob)]
    assert before[0]
    assert before[1]
    assert not before[0] & before[1]
    assert cached(shared_lab.engine) >= before[0] | before[1]
    bob.docker("builder", "prune", "-af")
    assert "CACHED" in build(alice, "made")
    assert "CACHED" not in build(bob, "made")


def test_histories_are_own(shared_lab: Lab) -> None:
    alice, bob = shared_lab["alice"], shared_lab["bob"]
    build(alice, "made")
    made_now = alice.api.get("/wharf/v1/builds").json()[0]
    assert (made_now["Name"], made_now["State"]) == ("made", "completed")
    path = f"/wharf/v1/builds/{made_now['Ref']}/log"
    assert "RUN --mount=type=secret" in alice.api.get(path).body.decode()
    assert made_now["Ref"] not in {row["Ref"] for row in bob.api.get("/wharf/v1/builds").json()}
    build(bob, "other")
    refused = bob.api.get(path)
    assert (refused.status, refused.json()["message"]) == (404, f"no such build {made_now['Ref']}")


def test_images_of_others_are_no_bases(shared_lab: Lab) -> None:
    alice, bob = shared_lab["alice"], shared_lab["bob"]
    build(alice, "mine")
    failed = bob.docker("build", "-", input=b"FROM mine\n", check=False)
    assert failed.status != 0
    id = alice.docker("images", "-q", "--no-trunc", "mine").stdout.strip()
    assert bob.docker("build", "-", input=f"FROM {id}\n".encode(), check=False).status != 0


@pytest.mark.parametrize(
    ("words", "dockerfile", "what"),
    [
        (("--network", "host", "--allow", "network.host"), "FROM busybox\nRUN true\n", "the host's network"),
        (
            ("--allow", "security.insecure"),
            "FROM busybox\nRUN --security=insecure true\n",
            "privileged steps (security.insecure)",
        ),
    ],
)
def test_steps_that_a_role_refuses(shared_lab: Lab, words: tuple[str, ...], dockerfile: str, what: str) -> None:
    alice = shared_lab["alice"]
    context = alice.home / "refused"
    context.mkdir(exist_ok=True)
    context.chmod(0o755)
    (context / "Dockerfile").write_text(dockerfile)
    failed = alice.docker("build", *words, str(context), check=False)
    assert failed.status != 0
    assert f"your role does not allow {what}" in failed.stderr


def test_a_step_after_a_volume_that_the_image_lacks(shared_lab: Lab) -> None:
    """The classic builder mounts the directory, which it makes on a layer with the user's ids."""
    alice = shared_lab["alice"]
    dockerfile = b'FROM busybox\nVOLUME ["/new dir"]\nRUN stat -c %u "/new dir" > /owner\n'
    # alice's API, because the CLI of some versions uses BuildKit only.
    archive = layer({"Dockerfile": dockerfile})
    answer = alice.api.request("POST", "/build", query={"t": "volumes"}, body=archive)
    assert "error" not in answer.lines()[-1], answer.body
    assert alice.docker("run", "--rm", "volumes", "cat", "/owner").stdout == "0\n"
    alice.docker("rmi", "volumes")


POLICY = """
published_images = ["docker.io/library/*"]
[users]
{alice} = "member"
[roles.member]
"""
MOUNTS = """
FROM busybox AS base
RUN mkdir /seed && echo of the stage > /seed/s && chown -R 5:6 /seed
FROM base
RUN --mount=type=cache,target=/cache echo $(id -u) >> /cache/x && cp /cache/x /made
RUN --mount=type=cache,id=seeded,target=/cache,from=base,source=/seed stat -c %u:%g /cache/s >> /made
RUN --mount=target=/context --mount=target=/file,source=Dockerfile cmp /file /context/Dockerfile && echo same >> /made
RUN --mount=target=/context,rw echo text > /context/new && stat -c %u:%g /context/new >> /made
RUN --mount=from=base,source=/seed,target=/seen cat /seen/s >> /made
RUN --mount=type=secret,id=token cat /run/secrets/token >> /made
"""


@pytest.mark.parametrize("remap", [False, True])
def test_mounts_of_a_users_steps(*, remap: bool) -> None:
    """Also with ``userns-remap``, whose ids the directories of the engine have and the user's containers don't."""
    flags = ("--userns-remap", USER) if remap else ()
    with subordinate_ids(), lab("mounts", POLICY, ("alice",), *flags) as own:
        alice = own["alice"]
        build(alice, "first", dockerfile=MOUNTS, secret="secret\n")
        assert made(alice, "first").splitlines() == ["0", "5:6", "same", "0:0", "of the stage", "secret"]
        # A second build finds what the first one has written to the cache.
        build(alice, "second", "--no-cache", dockerfile=MOUNTS, secret="secret\n")
        assert made(alice, "second").splitlines()[:2] == ["0", "0"]
        alice.docker("rmi", "first", "second")
        alice.docker("builder", "prune", "-af")
