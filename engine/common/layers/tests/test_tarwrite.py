"""Headers of the tar writer: the fast path gives the same bytes as the complete one."""

import itertools

from engine.common.layers import header as tar
from engine.common.layers.header import Header
from engine.common.layers.tarwrite import _full, _simple

NAMES = ("a", "./", "d/", "a/b/c", "x" * 98, "x" * 99, "x" * 100, "ü")
TIMES = (0, 1_700_000_000 * 10**9, 5, -(10**9), (1 << 33) * 10**9)
SIZES = (0, 76, (1 << 33) - 1, 1 << 33)
IDS = (0, 1000, (1 << 21) - 1, 1 << 21)


def test_the_fast_path_equals_the_full_one() -> None:
    short = 0
    for name, kind, size, uid, mtime in itertools.product(NAMES, (tar.REGULAR, tar.DIRECTORY), SIZES, IDS, TIMES):
        entry = Header(name=name, type=kind, mode=0o4755, uid=uid, gid=uid, size=size, mtime_ns=mtime)
        if (block := _simple(entry)) is not None:
            short += 1
            assert len(block) == 512
            assert block == _full(entry)
    assert short == 6 * 2 * 3 * 3 * 2


def test_entries_outside_the_fast_path() -> None:
    for more in (
        {"linkname": "x"},
        {"uname": "root"},
        {"gname": "root"},
        {"xattrs": {"user.a": b"b"}},
        {"type": tar.SYMLINK},
        {"type": tar.CHAR, "devmajor": 1},
    ):
        assert _simple(Header(**{"name": "a", "type": tar.REGULAR, "mode": 0o644, **more})) is None  # type: ignore[arg-type]
