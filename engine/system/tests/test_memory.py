"""What forks share, and what a daemon gives back at rest."""

import asyncio
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from engine.system import rest

IMMORTAL = """
import sys
from engine.system.immortal import immortalize

class Kept:
    pass

kept = [Kept(), "a string of its own", {"key": (1, 2.5)}]
immortalize()
counts = [sys.getrefcount(each) for each in (Kept, *kept)]
for each in list(sys.modules.values()):
    vars(each).copy()
exec("def after(*words, **names): return [*words, names]")
assert after(*kept, **kept[2])[-1] == kept[2]
print(all(count > 1 << 29 for count in counts))
"""


@pytest.mark.skipif(sys.version_info < (3, 12), reason="no object is immortal before CPython 3.12")
def test_objects_of_now_are_immortal() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", IMMORTAL], env=environment, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")


def _mapped() -> int:
    """Bytes of files that are mapped in now."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssFile:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no RssFile")


def test_code_is_given_back_and_comes_again() -> None:
    import sqlite3
    import ssl

    before = _mapped()
    rest.give_back()
    assert _mapped() < before
    # What was unmapped works on.
    with closing(sqlite3.connect(":memory:")) as database:
        assert database.execute("select 1").fetchone() == (1,)
    assert ssl.create_default_context() is not None


def test_rest_comes_after_the_last_request(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        loop, gave = asyncio.get_running_loop(), asyncio.Event()
        monkeypatch.setattr(rest, "REST", 0.01)
        monkeypatch.setattr(rest, "give_back", lambda: loop.call_soon_threadsafe(gave.set))
        rest.touched()
        rest.touched()
        await asyncio.wait_for(gave.wait(), 30)
        gave.clear()
        # Again only when there was something again.
        rest.touched()
        await asyncio.wait_for(gave.wait(), 30)

    asyncio.run(story())
