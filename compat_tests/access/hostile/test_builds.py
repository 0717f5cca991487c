"""The build history of a victim, by BuildKit's own protocol."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from compat_tests.access.hostile.conftest import SECRET, Victim
from compat_tests.clients.builder.control import control
from compat_tests.support.users import Lab, User

TEXT = f"FROM busybox\nRUN echo {SECRET}\n".encode()


@pytest.fixture
def ref(victim: Victim) -> Iterator[str]:
    """A build of alice, whose output has the secret."""
    alice = victim.alice
    alice.docker("build", "--no-cache", "-", input=TEXT)
    with control(alice) as service:
        found = service.history()[-1].Ref
        assert SECRET in service.logs(found)
    yield found
    with control(alice) as service:
        assert [each.Ref for each in service.history()] == [found]
        assert SECRET in service.logs(found)
        service.update(Ref=found, Delete=True)
    alice.docker("image", "prune", "-f")


@pytest.fixture
def bob(hostile_lab: Lab) -> User:
    return hostile_lab["bob"]


def test_the_history(victim: Victim, bob: User, ref: str) -> None:
    """Afterwards alice's history has the build, with its output."""
    grpc = pytest.importorskip("grpc")
    with control(bob) as service:
        assert service.history() == []
        assert service.history(Ref=ref) == []
        changes: tuple[dict[str, bool], ...] = ({"Delete": True}, {"Pinned": True}, {"Finalize": True})
        for change in changes:
            with contextlib.suppress(grpc.RpcError):
                service.update(Ref=ref, **change)
    bob.docker("builder", "prune", "-af")
    bob.api.post("/build/cancel", id=ref)
