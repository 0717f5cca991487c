"""A little of the disk kept back: on a full one the metadata can still say what may go."""

import contextlib
import os

_SIZE = 1 << 20


class Reserve:
    """A file without a meaning. Its methods block, for less than a millisecond."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.held = False

    def renew(self) -> None:
        """Takes the space if there is some."""
        with contextlib.suppress(OSError):
            if os.path.exists(self._path):
                self.held = True
                return
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(fd, 0, _SIZE)
                self.held = True
            except OSError:
                os.unlink(self._path)
            finally:
                os.close(fd)

    def release(self) -> bool:
        """Gives it to whoever comes next: call it when the disk is full. False: there was none."""
        self.held = False
        try:
            os.unlink(self._path)
        except FileNotFoundError:
            return False
        return True
