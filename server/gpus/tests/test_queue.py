"""In which order waiting containers get GPUs."""

import pytest

from server.gpus.allocator import Allocator, Terms
from server.gpus.catalog import Catalog
from server.gpus.demand import Demand
from server.gpus.queue import FairQueue, Waiting

KIND = "nvidia.com/gpu"


class Host:
    """Four GPUs and a queue. Containers are named by their user and a number: a1 is alice's."""

    def __init__(self) -> None:
        self.allocator = Allocator(Catalog({f"{KIND}={number}": frozenset() for number in range(4)}))
        self.queue = FairQueue(self.allocator)
        self._time = 0

    def ask(self, name: str, count: int = 1, *gpus: int, most: int | None = None) -> list[str]:
        """Adds a container, and returns those that get GPUs now."""
        demand = Demand(tuple(f"{KIND}={gpu}" for gpu in gpus), {KIND: count} if count else {})
        claim = self.allocator.claim(name, name[0], demand, Terms(most))
        self._time += 1
        self.queue.add(Waiting(claim, self._time))
        return self.advance()

    def advance(self) -> list[str]:
        return [waiting.claim.container for waiting, _ in self.queue.advance(self._time)]

    def exit(self, name: str) -> list[str]:
        assert self.allocator.release(name) is not None
        return self.advance()

    @property
    def order(self) -> list[str]:
        return [waiting.claim.container for waiting in self.queue.order()]


@pytest.fixture
def host() -> Host:
    return Host()


def test_users_take_turns(host: Host) -> None:
    assert host.ask("x1", 4) == ["x1"]
    for name in ("a1", "a2", "a3", "b1", "b2", "c1"):
        assert host.ask(name, 4) == []
    assert host.order == ["a1", "b1", "c1", "a2", "b2", "a3"]
    running, served = "x1", []
    while len(host.queue):
        (running,) = host.exit(running)
        served.append(running)
    assert served == ["a1", "b1", "c1", "a2", "b2", "a3"]


def test_who_had_a_gpu_lately_waits_for_those_who_had_none(host: Host) -> None:
    assert host.ask("a1", 4) == ["a1"]
    assert host.ask("a2", 4) == []
    assert host.ask("b1", 4) == []
    assert host.order == ["b1", "a2"]
    assert host.exit("a1") == ["b1"]
    assert host.ask("b2", 4) == []
    assert host.order == ["a2", "b2"]


def test_small_requests_do_not_delay_a_large_one(host: Host) -> None:
    for name in ("a1", "a2", "a3", "a4"):
        host.ask(name)
    assert host.ask("b1", 3) == []
    # Free GPUs are reserved for b1.
    assert host.exit("a1") == []
    assert host.ask("c1") == []
    assert host.exit("a2") == []
    assert host.queue.order()[1].shortage.message == (
        f"{KIND}=0 is reserved for a container that waits, {KIND}=1 is reserved for a container that waits, "
        f"{KIND}=2 is held by a since 1970-01-01T00:00:00.000000003Z, "
        f"{KIND}=3 is held by a since 1970-01-01T00:00:00.000000004Z"
    )
    assert host.exit("a3") == ["b1"]
    assert host.exit("a4") == ["c1"]


def test_what_the_first_one_cannot_use_is_not_reserved(host: Host) -> None:
    host.ask("a1", 0, 0)
    assert host.ask("b1", 0, 0) == []
    assert host.ask("c1", 3) == ["c1"]
    assert host.exit("a1") == ["b1"]


def test_a_user_at_the_limit_delays_nobody(host: Host) -> None:
    assert host.ask("a1", 1, most=1) == ["a1"]
    assert host.ask("a2", 1, most=1) == []
    assert host.ask("b1", 3) == ["b1"]
    assert host.exit("a1") == ["a2"]


def test_leaving_the_queue(host: Host) -> None:
    host.ask("a1", 4)
    host.ask("b1", 3)
    host.ask("c1", 1)
    (large, small) = host.queue.order()
    host.queue.remove(large)
    host.queue.remove(large)
    assert large not in host.queue
    assert small in host.queue
    assert host.exit("a1") == ["c1"]
