"""Objects that are never written to again, so that forks share their pages.

Every use of a Python object writes to its reference count, and the page with it stops being shared. Since CPython 3.12
(PEP 683) an object may be immortal: its count has a value that is left alone by all. None and its like are born so;
what a process has loaded before it forks may as well be, as it lives until the end anyway. Older interpreters are left
as they are.
"""

import ctypes
import gc
import types

# They end and free what they hold, or are about to: the ones that run are among them.
_PASSING = (types.FrameType, types.GeneratorType, types.CoroutineType)


def immortalize() -> None:
    """Makes all objects of now immortal, and hides them from the collector. Some 25 ms for a bare interpreter."""
    gc.collect()
    mark = ctypes.c_uint32.from_address(id(None)).value
    if _immortal(mark):
        # What the collector knows, then what that refers to (strings, code, numbers), until there is nothing new.
        found = gc.get_objects()
        while found:
            fresh = []
            for each in found:
                count = ctypes.c_uint32.from_address(id(each))
                if not _immortal(count.value) and not isinstance(each, _PASSING):
                    count.value = mark
                    fresh.append(each)
            found = gc.get_referents(*fresh)
    gc.freeze()


def _immortal(count: int) -> bool:
    """The bit that CPython looks at; a count that counts never gets there."""
    return bool(count >> 31)
