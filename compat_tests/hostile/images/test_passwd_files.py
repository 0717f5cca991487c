"""Images with hostile content."""

from __future__ import annotations

import pytest

from compat_tests.support.engines import Engine


@pytest.mark.parametrize(
    ("script", "user", "sentence"),
    [
        ("rm /etc/passwd; mkfifo /etc/passwd", "0", "unable to find user 0: read /etc/passwd: not a regular file"),
        ("rm /etc/passwd; mknod /etc/passwd c 1 5", "0", "unable to find user 0: read /etc/passwd: not a regular file"),
        ("rm /etc/passwd; ln -s /dev/zero /etc/passwd", "5", "unable to find user 5: read /etc/passwd: not a regular"),
        (
            "head -c 70000 /dev/zero | tr '\\0' a > /etc/passwd",
            "0",
            "unable to find user 0: bufio.Scanner: token too lo",
        ),
        ("rm /etc/group; mkfifo /etc/group", "5", "unable to find groups for spec 5: read /etc/group: not a regular"),
    ],
)
def test_passwd_that_is_no_regular_file(engine: Engine, script: str, user: str, sentence: str) -> None:
    """Neither the engine nor the runtime blocks on a FIFO or reads a device to its end; nothing is left."""
    name = engine.docker("run", "-d", "--network", "none", "busybox", "sh", "-c", script).stdout.strip()
    engine.docker("wait", name)
    engine.docker("commit", name, "hostile")
    engine.docker("rm", name)
    try:
        done = engine.docker("run", "--rm", "--network", "none", "-u", user, "hostile", "true", check=False)
        assert done.status == 125
        assert sentence in done.stderr
        assert not engine.docker("ps", "-aq").stdout
    finally:
        engine.docker("rmi", "-f", "hostile")
