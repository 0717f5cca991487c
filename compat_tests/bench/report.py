"""Stores rows in a file from run to run, formats the table, and replaces it in the README."""

from __future__ import annotations

import json
import platform
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from compat_tests.bench.measure import FLOOR, OURS, THEIRS, Aim, Row

BEGIN, END = "<!-- bench -->", "<!-- /bench -->"
HEAD = ("| what | Wharf | dockerd | ratio | aim | |", "|---|---:|---:|---:|---:|---|")


class OtherPython(Exception):
    """Rows of two Pythons are kept in two files."""


class Rows:
    """The newest row of each name, in a file that is written after each row. ``python``, ``machine``: those on which
    the rows were measured."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._kept: dict[str, dict[str, Row]] = {}  # by measurement, then by the row's name
        self.python, self.machine = platform.python_version(), machine()
        if file.exists():
            document = json.loads(file.read_text())
            self.python, self.machine = document["python"], document["machine"]
            for measurement, rows in document["rows"].items():
                made = (Row(**{**row, "aim": Aim(**row["aim"])}) for row in rows)
                self._kept[measurement] = {row.name: row for row in made}

    def add(self, measurement: str, row: Row) -> None:
        """:raises OtherPython: the file has rows of another one."""
        if self.python != platform.python_version():
            raise OtherPython(f"{self._file} has rows of Python {self.python}")
        self._kept.setdefault(measurement, {})[row.name] = row
        self._write()

    def finish(self, measurement: str, names: Iterable[str]) -> None:
        """Complete a measurement with these rows: rows of other names, from earlier versions, are dropped."""
        wanted, kept = set(names), self._kept.get(measurement, {})
        self._kept[measurement] = {name: row for name, row in kept.items() if name in wanted}
        self._write()

    def ordered(self, measurements: Iterable[str]) -> Iterator[Row]:
        for measurement in measurements:
            yield from self._kept.get(measurement, {}).values()

    def _write(self) -> None:
        kept = {name: [asdict(row) for row in rows.values()] for name, rows in self._kept.items()}
        document = {"python": self.python, "machine": self.machine, "rows": kept}
        partial = self._file.with_name(f"{self._file.name}.partial")
        partial.write_text(json.dumps(document, ensure_ascii=False, indent=1))
        partial.replace(self._file)


def line(row: Row) -> str:
    """Format a row in Markdown."""
    if row.baseline == FLOOR:
        cells = [_cell(row, FLOOR), "", "", "", ""]
    elif not row.compared:
        cells = [_cell(row, OURS), _cell(row, THEIRS), "", "", ""]
    else:
        sign = "✓" if row.reached else "✗"
        cells = [_cell(row, OURS), _cell(row, row.baseline), _ratio(row), row.aim.text(row.unit), sign]
    return f"| {row.name} | {' | '.join(cells)} |"


def _ratio(row: Row) -> str:
    """Format the ratio to the baseline; "": the aim is a value, not a ratio."""
    return "" if row.aim.absolute else f"{row.ratio:.2f}"


def _cell(row: Row, who: str) -> str:
    if who not in row.samples:
        return ""
    value = row.median(who)
    number = f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}" if abs(value) < 100 else f"{value:.0f}"
    return f"{number} {row.unit}" + (f" ({who})" if who not in (OURS, THEIRS) else "")


def table(rows: Rows, measurements: Collection[str], other_python: Rows | None = None) -> str:
    """Format the whole table, with a description of the machine. The rows of another Python get a column: the ratio, or
    Wharf's value where the aim is a value; so do the floors, where they were measured."""
    everything = list(rows.ordered(measurements))
    found = [row for row in everything if row.baseline != FLOOR]
    head, lines, pythons, notes = list(HEAD), [line(row) for row in found], rows.python, "✗: the aim is missed."
    if other_python is not None:
        column = {
            row.name: _ratio(row) or _cell(row, OURS) for row in other_python.ordered(measurements) if row.compared
        }
        _add_column(head, lines, f"with {_minor(other_python.python)}", [column.get(row.name, "") for row in found])
        pythons += f" (other column: {other_python.python})"
    floors = {row.name: row for row in everything if FLOOR in row.samples}
    if floors:
        cells = [_floor(row, floors[row.name]) if row.name in floors else "" for row in found]
        _add_column(head, lines, "floor", cells)
        notes += " Floor: what the least that does the row's work needs without an engine, and its ratio."
    return "\n".join([*head, *lines, "", f"Medians; Python {pythons}, {rows.machine}. {notes}"])


def _add_column(head: list[str], lines: list[str], title: str, cells: Sequence[str]) -> None:
    head[:] = [f"{head[0]} {title} |", f"{head[1]}---:|"]
    lines[:] = [f"{each} {cell} |" for each, cell in zip(lines, cells, strict=True)]


def _floor(row: Row, floor: Row) -> str:
    text = _cell(floor, FLOOR).removesuffix(f" ({FLOOR})")
    if not row.compared or row.aim.absolute:
        return text
    return f"{text}, {floor.median(FLOOR) / row.median(row.baseline):.2f}"


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def machine() -> str:
    """The kernel and the processors of this machine."""
    return f"Linux {_minor(platform.release())}, {_processors()}"


def _processors() -> str:
    """Return the number and model of the processors."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(models)} × {models[0]}" if models else platform.machine()


def put(readme: Path, text: str) -> None:
    """Replace the text between the two markers."""
    before, _, rest = readme.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    readme.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")
