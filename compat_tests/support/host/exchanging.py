"""A program that exchanges two names continuously, as a hostile container may do while its files are read."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# A separate process: a thread would run only when the code under test releases the GIL.
_PROGRAM = """
import ctypes, os, sys
rename = ctypes.CDLL(None).renameat2
one, two = map(os.fsencode, sys.argv[1:])
print(flush=True)
while os.getppid() > 1:
    rename(-100, one, -100, two, 2)
"""


@contextmanager
def exchanging(one: Path, two: Path) -> Iterator[None]:
    """Exchange the two paths until the end of the block (``renameat2(2)``, ``RENAME_EXCHANGE``)."""
    argv = [sys.executable, "-S", "-c", _PROGRAM, str(one), str(two)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        assert process.stdout
        try:
            process.stdout.readline()
            yield
        finally:
            process.kill()
