"""Timelines as bar charts."""

import sys
from collections.abc import Iterable, Sequence

from server.cli import text
from server.cli.tables import Row

# Columns of a bar; all bars of a timeline have the same scale.
_WIDTH = 40
# Nothing is cut or wrapped in a pipe.
_ENDLESS = 1000


def show_timelines(timelines: Iterable[Row]) -> None:
    """Writes each timeline to the standard output: a heading, and a line with a bar for each phase."""
    # Here: `wharf --help` and JSON need none of it.
    from rich.bar import Bar
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() else _ENDLESS, highlight=False)
    for number, timeline in enumerate(timelines):
        if number:
            print()
        console.print(Text(text.printable(_heading(timeline)), style="bold"), soft_wrap=True)
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column(overflow="ellipsis", no_wrap=True, max_width=60)
        table.add_column(width=_WIDTH)
        table.add_column(justify="right", no_wrap=True)
        table.add_column()
        for depth, phase in _ordered(timeline["Phases"]):
            waits_for = phase.get("WaitsFor", "")
            table.add_row(
                Text("  " * (depth + 1) + text.printable(phase["Name"])),
                Bar(timeline["Seconds"] or 1, phase["Begin"], phase["End"], color="yellow" if waits_for else "blue"),
                _milliseconds(phase["End"] - phase["Begin"]),
                Text(text.printable(f"waits for {waits_for}") if waits_for else ""),
            )
        with console.capture() as captured:
            console.print(table)
        for line in captured.get().splitlines():
            print(line.rstrip())


def _heading(timeline: Row) -> str:
    subject = timeline["Subject"]
    if timeline["Operation"] not in ("pull", "build"):
        subject = subject[:12]
    parts = [timeline["Operation"], subject, _milliseconds(timeline["Seconds"]), text.time(timeline["Began"])]
    if timeline["Result"] != "done":
        parts.append(": ".join(filter(None, (timeline["Result"], timeline.get("Error", "")))))
    return "  ".join(filter(None, parts))


def _ordered(phases: Sequence[Row]) -> list[tuple[int, Row]]:
    """The phases with their depths: each after the one that it is within."""
    ordered = sorted(phases, key=lambda phase: (phase["Begin"], -phase["End"]))
    inner = {phase["Name"]: phase.get("Within", "") for phase in ordered}

    def depth(phase: Row) -> int:
        count, within = 0, phase.get("Within", "")
        while within and count < len(inner):
            count, within = count + 1, inner.get(within, "")
        return count

    return [(min(depth(phase), 4), phase) for phase in ordered]


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.1f} ms"
