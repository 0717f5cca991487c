"""The file of curves of the benchmark, and their picture."""

from __future__ import annotations

from pathlib import Path

import pytest

from compat_tests.bench.growth.curves import Curves


def filled(path: Path) -> Curves:
    curves = Curves(path)
    for engine in ("wharf", "dockerd"):
        for number in (1000, 0, 500):
            curves.add("start", "containers", "ms", engine, number, number / 10)
            curves.add("memory", "containers", "MiB", engine, number, 60.0)
    return curves


def test_points_are_kept_in_order_and_replaced(tmp_path: Path) -> None:
    filled(tmp_path / "curves").add("start", "containers", "ms", "wharf", 500, 7.5)
    start, memory = Curves(tmp_path / "curves")
    assert (start.name, start.unit, memory.name) == ("start", "ms", "memory")
    assert start.points == {
        "wharf": [(0, 0.0), (500, 7.5), (1000, 100.0)],
        "dockerd": [(0, 0.0), (500, 50.0), (1000, 100.0)],
    }


def test_the_picture_is_small(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra bench is not installed")
    from compat_tests.bench.growth.plots import draw

    draw(filled(tmp_path / "curves"), tmp_path / "growth.png", caption="a machine")
    data = (tmp_path / "growth.png").read_bytes()
    assert data.startswith(b"\x89PNG")
    assert len(data) < 150_000
