"""A short run of the racer: a link that a container exchanges never leads to a file of the host."""

from __future__ import annotations

from compat_tests.hostile.host.racer import race
from compat_tests.support import engines
from compat_tests.support.engines import Engine
from compat_tests.support.host.subids import USER, subordinate_ids


def test_nothing_of_the_host_is_reached(engine: Engine) -> None:
    assert not {name: count for name, count in race(engine, 100, quiet=True).items() if count}


def test_with_remapped_ids() -> None:
    with subordinate_ids(), engines.wharf("racer", "--userns-remap", USER) as engine:
        engine.load_busybox()
        assert not {name: count for name, count in race(engine, 40, quiet=True).items() if count}
