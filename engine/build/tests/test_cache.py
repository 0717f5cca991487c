"""What a prune takes: leaves first, the least recently used of them, down to a size."""

import pytest

from engine.build.cache import REGULAR, Record, choose


def record(id: str, used: int, *parents: str, size: int = 10) -> Record:
    return Record(id, id, id, None, "", REGULAR, 0, used, 1, size, id, parents)


TREE = (record("a", 5), record("b", 3, "a"), record("c", 4, "a"), record("d", 1), record("e", 2, "c", size=30))


@pytest.mark.parametrize(
    ("keep", "chosen"),
    [(0, "d e b c a"), (70, ""), (69, "d"), (60, "d"), (59, "d e"), (30, "d e"), (29, "d e b"), (1, "d e b c a")],
)
def test_down_to_a_size(keep: int, chosen: str) -> None:
    found = choose(TREE, free=lambda _: True, total=70, keep_bytes=keep)
    assert " ".join(item.id for item in found) == chosen


def test_what_is_not_free_keeps_what_it_stands_on() -> None:
    assert [item.id for item in choose(TREE, free=lambda item: item.id != "c", total=70)] == ["d", "e", "b"]
    assert [item.id for item in choose(TREE, free=lambda item: item.id in "ac", total=70)] == []
    # a parent that is not known is nobody's
    assert [item.id for item in choose((record("x", 1, "gone"),), free=lambda _: True, total=10)] == ["x"]
