"""Users of the host that exist for a test."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from compat_tests.support.polling import until


@contextlib.contextmanager
def account(name: str) -> Iterator[pwd.struct_passwd]:
    """A user of the host, with a home directory that is removed at the end."""
    home = home_of(name)

    def added() -> bool:
        argv = ["useradd", "-M", "-d", str(home), "-s", "/bin/sh", name]
        return subprocess.run(argv, check=False, capture_output=True, timeout=60).returncode == 0

    assert until(added), f"the user {name} can't be added"  # another run may have locked /etc/passwd
    try:
        made = pwd.getpwnam(name)
        home.mkdir(mode=0o700)
        os.chown(home, made.pw_uid, made.pw_gid)
        yield made
    finally:
        shutil.rmtree(home, ignore_errors=True)
        until(lambda: subprocess.run(["userdel", name], check=False, capture_output=True, timeout=60).returncode == 0)


def home_of(name: str) -> Path:
    """The home directory of such a user."""
    return Path("/var/tmp") / name
