"""Pages shared by forked processes."""

import os
import subprocess
import sys

import pytest

IMMORTAL = """
import sys
from engine.shim.immortal import immortalize

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
