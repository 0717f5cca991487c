"""The last warnings and errors of the daemon's log, for administrators."""

import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

#: How many are kept, and the characters of each.
KEPT, LENGTH = 200, 2000


@dataclass(frozen=True, slots=True)
class Problem:
    """``time``: seconds since the epoch. ``level``: warning, error or critical."""

    time: float
    level: str
    logger: str
    message: str


class Problems(logging.Handler):
    """Keeps them from ``attach`` to ``close``."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._kept: deque[Problem] = deque(maxlen=KEPT)

    def attach(self) -> None:
        logging.getLogger().addHandler(self)

    def close(self) -> None:
        logging.getLogger().removeHandler(self)
        super().close()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()[:LENGTH]
        except Exception:
            self.handleError(record)
            return
        self._kept.append(Problem(record.created, record.levelname.lower(), record.name, message))

    def latest(self) -> Sequence[Problem]:
        """The latest one last."""
        return tuple(self._kept)
