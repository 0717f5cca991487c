"""The sizes of volumes.

They are measured for each request and not cached: programs of the host write into the directories of volumes, too, and
a file that grows in place changes no directory, so only a look at each file shows it.
"""

import os
import stat
from collections.abc import Sequence

from engine.common.threads import run_in_thread


def directory_size(path: str) -> int:
    """Bytes of all files below ``path``, hard links once; files that vanish meanwhile are skipped. Blocks."""
    total = 0
    seen: set[tuple[int, int]] = set()
    stack = [path]
    while stack:
        try:
            with os.scandir(stack.pop()) as found:
                entries = list(found)
        except (FileNotFoundError, NotADirectoryError):
            continue
        for entry in entries:
            try:
                info = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            if stat.S_ISDIR(info.st_mode):
                stack.append(entry.path)
            elif info.st_size and (info.st_dev, info.st_ino) not in seen:
                if info.st_nlink > 1:
                    seen.add((info.st_dev, info.st_ino))
                total += info.st_size
    return total


async def directory_sizes(paths: Sequence[str]) -> dict[str, int]:
    """As :func:`directory_size` for several directories, in a thread."""

    def measure() -> dict[str, int]:
        return {path: directory_size(path) for path in paths}

    return await run_in_thread(measure)
