"""Which GPUs a container gets, and why it gets none."""

from collections.abc import Callable

import pytest

from engine.common.errors import Kind, WharfError
from server.gpus.allocator import Allocator, Hold, Shortage, Terms
from server.gpus.catalog import Catalog
from server.gpus.demand import ALL, Demand

KIND = "nvidia.com/gpu"
#: 2026-01-02T03:04:05Z
NOW = 1767323045 * 10**9
HELD = "held by alice since 2026-01-02T03:04:05Z"

#: The result of a demand of a user (the container has the name of its number).
Ask = Callable[..., tuple[str, ...] | Shortage]


def gpu(name: object) -> str:
    return f"{KIND}={name}"


@pytest.fixture
def allocator() -> Allocator:
    nodes = {gpu(number): frozenset((f"/dev/nvidia{number}",)) for number in range(4)}
    nodes |= {gpu(f"GPU-{number}"): nodes[gpu(number)] for number in range(4)}
    return Allocator(Catalog({**nodes, gpu("all"): frozenset.union(*nodes.values())}))


@pytest.fixture
def ask(allocator: Allocator) -> Ask:
    def ask(
        user: str, *names: object, count: int = 0, most: int | None = None, shared: tuple[object, ...] = ()
    ) -> tuple[str, ...] | Shortage:
        demand = Demand(tuple(map(gpu, names)), {KIND: count} if count else {})
        terms = Terms(most, frozenset(map(gpu, shared)))
        claim = allocator.claim(f"{user}{len(allocator.holds)}", user, demand, terms)
        result = allocator.allocate(claim, NOW)
        return result.names if isinstance(result, Hold) else result

    return ask


def message(result: object) -> str:
    assert isinstance(result, Shortage)
    return result.message


def test_a_number_gets_free_ones(ask: Ask) -> None:
    assert ask("alice", count=1) == (gpu(0),)
    assert ask("bob", 2) == (gpu(2),)
    assert ask("alice", count=2) == (gpu(1), gpu(3))
    short = ask("bob", count=1)
    assert message(short).startswith(f"{gpu(0)} is {HELD}, {gpu(1)} is {HELD}, {gpu(2)} is held by bob since 2026")


def test_a_named_one_is_exclusive(ask: Ask, allocator: Allocator) -> None:
    assert ask("alice", "GPU-1") == (gpu("GPU-1"),)
    for name in (1, "GPU-1"):
        assert message(ask("bob", name)) == f"{gpu(1)} is {HELD}"
    assert message(ask("alice", 1)) == f"{gpu(1)} is {HELD}"
    # All or none.
    assert message(ask("bob", 0, 1)) == f"{gpu(1)} is {HELD}"
    assert ask("bob", 0) == (gpu(0),)
    allocator.release("alice0")
    assert ask("bob", 1) == (gpu(1),)


def test_administrators_are_named_as_such(ask: Ask) -> None:
    ask("", 0)
    assert message(ask("alice", 0)) == f"{gpu(0)} is held by an administrator since 2026-01-02T03:04:05Z"


def test_all_is_what_the_role_allows(ask: Ask, allocator: Allocator) -> None:
    assert ask("alice", count=ALL, most=2) == (gpu(0), gpu(1))
    assert message(ask("alice", count=ALL, most=2)) == "alice has 2 GPUs, and the role's limit is 2"
    # All of the host, for a role without a limit.
    assert message(ask("bob", count=ALL)) == f"{gpu(0)} is {HELD}, {gpu(1)} is {HELD}"
    allocator.release("alice0")
    assert ask("bob", count=ALL) == tuple(map(gpu, range(4)))


def test_the_limit_is_of_the_user(ask: Ask) -> None:
    assert ask("alice", count=1, most=2) == (gpu(0),)
    short = ask("alice", count=2, most=2)
    assert short == Shortage("alice has 1 GPU, and the role's limit is 2", own=True)
    assert ask("alice", 3, most=2) == (gpu(3),)
    # Job sockets of the user count, too.
    assert ask("alice:17", count=1, most=2) == Shortage("alice has 2 GPUs, and the role's limit is 2", own=True)
    assert ask("bob", count=2, most=2) == (gpu(1), gpu(2))


def test_shared_gpus(ask: Ask) -> None:
    assert ask("alice", 0, shared=(0,)) == (gpu(0),)
    assert ask("bob", 0, shared=("GPU-0",)) == (gpu(0),)
    # Also of one user, for whom it counts once.
    assert ask("bob", 0, most=1, shared=(0,)) == (gpu(0),)
    assert message(ask("carol", 0)) == f"{gpu(0)} is {HELD} and bob since 2026-01-02T03:04:05Z and " + (
        "bob since 2026-01-02T03:04:05Z"
    )
    # Those that nobody shares are taken first.
    assert ask("alice", count=3, shared=(0,)) == (gpu(1), gpu(2), gpu(3))
    assert ask("alice", count=1, shared=(0,)) == (gpu(0),)


def test_an_exclusive_holder_shares_with_nobody(ask: Ask) -> None:
    ask("alice", 0)
    assert message(ask("bob", 0, shared=(0,))) == f"{gpu(0)} is {HELD}"


@pytest.mark.parametrize(
    ("names", "count", "most", "error"),
    [
        ((7,), 0, None, (Kind.INVALID_ARGUMENT, f"CDI device injection failed: unresolvable CDI devices {KIND}=7")),
        ((), 5, None, (Kind.INVALID_ARGUMENT, f"5 GPUs {KIND} requested, but this host has 4")),
        ((), 3, 2, (Kind.PERMISSION_DENIED, "your role does not allow 3 GPUs: its limit is 2")),
        ((0, 1), 1, 2, (Kind.PERMISSION_DENIED, "your role does not allow 3 GPUs: its limit is 2")),
        ((), 1, 0, (Kind.PERMISSION_DENIED, "your role does not allow 1 GPU: its limit is 0")),
        ((), ALL, 0, (Kind.PERMISSION_DENIED, "your role does not allow 1 GPU: its limit is 0")),
    ],
)
def test_impossible(
    allocator: Allocator, names: tuple[int, ...], count: int, most: int | None, error: tuple[Kind, str]
) -> None:
    demand = Demand(tuple(map(gpu, names)), {KIND: count} if count else {})
    with pytest.raises(WharfError) as caught:
        allocator.claim("one", "alice", demand, Terms(most))
    assert (caught.value.kind, caught.value.message) == error


def test_running_containers_are_adopted(ask: Ask, allocator: Allocator) -> None:
    allocator.adopt("old", "alice", [gpu("GPU-1"), gpu(9)], Terms(), NOW)
    assert message(ask("bob", 1)) == f"{gpu(1)} is {HELD}"
    assert allocator.within("alice") == {gpu(1), gpu(9)}


def test_a_job_socket_has_a_limit_below_that_of_its_user(allocator: Allocator) -> None:
    terms = Terms(3, job=1)
    for name, owner, expected in (
        ("a", "alice:1", ""),
        ("b", "alice:1", "the job socket has 1 GPU, and the job socket's limit is 1"),
        ("c", "alice:2", ""),
        ("d", "alice", ""),
        ("e", "alice:3", "alice has 3 GPUs, and the role's limit is 3"),
    ):
        own = terms if ":" in owner else Terms(3)
        result = allocator.allocate(allocator.claim(name, owner, Demand((), {KIND: 1}), own), NOW)
        assert (message(result) if expected else "") == expected
    with pytest.raises(WharfError, match="your role does not allow 2 GPUs: its limit is 1"):
        allocator.claim("f", "alice:4", Demand((), {KIND: 2}), terms)


def test_renamed_devices_keep_their_holders(ask: Ask, allocator: Allocator) -> None:
    ask("alice", 1)
    allocator.replace_catalog(Catalog({gpu("GPU-1"): frozenset(("/dev/nvidia1",))}))
    assert message(ask("bob", "GPU-1")) == f"{gpu('GPU-1')} is {HELD}"
