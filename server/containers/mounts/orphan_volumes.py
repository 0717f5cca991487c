"""A file in a container's directory with the names of anonymous volumes that must not outlive the directory.

No record refers to these volumes: create makes them before it writes the container's record, and ``rm -v`` deletes the
record before it removes them. If the daemon dies meanwhile, recovery finds the directory without a record and removes
the volumes with it.
"""

import contextlib
import logging
import os
from collections.abc import Iterable

log = logging.getLogger(__name__)

_FILE = "volumes"


def add(directory: str, names: Iterable[str]) -> None:
    """Adds names to the file. An error is logged: if the daemon dies, ``docker volume prune`` can remove the
    volumes."""
    text = "".join(f"{name}\n" for name in names)
    if not text:
        return
    try:
        with open(f"{directory}/{_FILE}", "a") as file:
            file.write(text)
    except OSError as error:
        log.warning("%s: the names of its volumes can't be written: %s", directory, error)


def clear(directory: str) -> None:
    """Removes the file: a record refers to the volumes, or they must stay."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{directory}/{_FILE}")


def read(directory: str) -> list[str]:
    """The names in the file; [] without a file."""
    try:
        with open(f"{directory}/{_FILE}") as file:
            return file.read().split()
    except OSError:
        return []
