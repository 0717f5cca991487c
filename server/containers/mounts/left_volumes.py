"""Anonymous volumes that go with a container, noted in its directory while no record holds them: at create until there
is the container's record, at ``rm -v`` from before that goes. Should the daemon die in between, the next one finds the
directory without a record, and removes them with it.
"""

import contextlib
import logging
import os
from collections.abc import Iterable

log = logging.getLogger(__name__)

_NAME = "volumes"


def note(directory: str, names: Iterable[str]) -> None:
    """Adds to the note. What can't be written is left for a prune, and logged."""
    text = "".join(f"{name}\n" for name in names)
    if not text:
        return
    try:
        with open(f"{directory}/{_NAME}", "a") as file:
            file.write(text)
    except OSError as error:
        log.warning("%s: its volumes can't be noted: %s", directory, error)


def forget(directory: str) -> None:
    """A record holds them (again), or they stay."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{directory}/{_NAME}")


def noted(directory: str) -> list[str]:
    """The names, as far as there is a note."""
    try:
        with open(f"{directory}/{_NAME}") as file:
            return file.read().split()
    except OSError:
        return []
