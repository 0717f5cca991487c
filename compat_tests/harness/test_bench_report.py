"""The file of rows of the benchmark, and its table."""

from __future__ import annotations

import json
import platform
from pathlib import Path

import pytest

from compat_tests.bench.measure import FLOOR, Row, at_most, within
from compat_tests.bench.report import OtherPython, Rows, table


def filled(file: Path, ours: float) -> Rows:
    rows = Rows(file)
    for row in (Row("start", "ms", at_most(0.5)), Row("memory", "MiB", within(2)), Row("one side", "ms", at_most(1))):
        row.add("wharf", ours)
        if row.name != "one side":
            row.add("dockerd", 10)
        rows.add("measured", row)
    return rows


def of_python(version: str, file: Path, ours: float) -> Rows:
    filled(file, ours)
    file.write_text(json.dumps({**json.loads(file.read_text()), "python": version}))
    return Rows(file)


def test_rows_are_kept_and_those_of_earlier_versions_dropped(tmp_path: Path) -> None:
    filled(tmp_path / "rows", 3).finish("measured", ["start", "memory"])
    kept = Rows(tmp_path / "rows")
    assert [row.name for row in kept.ordered(["other", "measured"])] == ["start", "memory"]
    assert kept.python == platform.python_version()
    lines = table(kept, ["measured"]).splitlines()
    assert lines[2:4] == [
        "| start | 3.00 ms | 10.0 ms | 0.30 | ≤ 0.5 × | ✓ |",
        "| memory | 3.00 MiB | 10.0 MiB |  | ≤ 2 MiB | ✗ |",
    ]


def test_another_python_has_a_column(tmp_path: Path) -> None:
    rows = filled(tmp_path / "rows", 3)
    lines = table(rows, ["measured"], of_python("3.99.1", tmp_path / "others", 1)).splitlines()
    assert [line.split(" | ")[-1] for line in lines[:5]] == [
        "| with 3.99 |",
        "|---|---:|---:|---:|---:|---|---:|",
        "0.10 |",
        "1.00 MiB |",
        " |",
    ]
    assert lines[-1].startswith(f"Medians; Python {rows.python} (other column: 3.99.1), Linux ")


def test_a_file_has_rows_of_one_python(tmp_path: Path) -> None:
    rows = of_python("3.99.1", tmp_path / "rows", 1)
    with pytest.raises(OtherPython, match=r"has rows of Python 3\.99\.1$"):
        rows.add("measured", Row("start", "ms", at_most(0.5)))


def test_floors_are_a_column(tmp_path: Path) -> None:
    rows = filled(tmp_path / "rows", 3)
    for name, unit in (("start", "ms"), ("memory", "MiB")):
        rows.add("floors", Row(name, unit, at_most(1), FLOOR, {FLOOR: [2]}))
    lines = table(rows, ["measured", "floors"]).splitlines()
    assert [line.split(" | ")[-1] for line in lines[:5]] == [
        "| floor |",
        "|---|---:|---:|---:|---:|---|---:|",
        "2.00 ms, 0.20 |",
        "2.00 MiB |",
        " |",
    ]
