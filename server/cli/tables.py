"""Answers as tables."""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from server.cli.text import printable

Row = Mapping[str, Any]

# Nothing is cut or wrapped in a pipe.
_ENDLESS = 100_000


@dataclass(frozen=True, slots=True)
class Column:
    """``text``: what is in the column of a row."""

    heading: str
    text: Callable[[Row], object]
    right: bool = False


def field(heading: str, name: str, *, right: bool = False) -> Column:
    """A column with a field of the row as it is."""
    return Column(heading, lambda row: row.get(name, ""), right)


def show(columns: Sequence[Column], rows: Iterable[Row]) -> None:
    """Writes a table to the standard output; on a terminal it has the terminal's width."""
    # Here: `wharf --help` and JSON need none of it.
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 3, 0, 0))
    for column in columns:
        table.add_column(column.heading, justify="right" if column.right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(str(column.text(row)))) for column in columns))
    console = Console(width=None if sys.stdout.isatty() else _ENDLESS, highlight=False)
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        print(line.rstrip())
