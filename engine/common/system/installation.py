"""Which installation of the package this is: a daemon may outlive the one that it was started from."""

import os

import engine


def identity() -> str:
    """Other for each installation of the package, though it be at the same place."""
    status = os.stat(engine.__file__)
    return f"{status.st_dev}:{status.st_ino}:{status.st_ctime_ns}"
