"""Draws curves: one picture with a panel for each, both engines in it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from matplotlib.figure import Figure

from compat_tests.bench.growth.curves import Curve
from compat_tests.bench.measure import OURS, THEIRS

_LINES = {OURS: ("Wharf", "#1f77b4", "o"), THEIRS: ("dockerd", "#d95f02", "s")}
_COLUMNS = 4
_INCHES = 2.6  # of a panel
_DPI = 90


def draw(curves: Iterable[Curve], file: Path, *, caption: str) -> None:
    """Write a PNG. All axes begin at zero, so that growth is seen in proportion."""
    found = list(curves)
    rows = -(-len(found) // _COLUMNS)
    figure = Figure(figsize=(_COLUMNS * _INCHES * 1.15, rows * _INCHES + 0.4), dpi=_DPI, layout="constrained")
    panels = figure.subplots(rows, _COLUMNS, squeeze=False).flat
    for curve, panel in zip(found, panels, strict=False):
        for engine, points in curve.points.items():
            label, color, marker = _LINES[engine]
            numbers, values = zip(*points, strict=True)
            panel.plot(numbers, values, label=label, color=color, marker=marker, markersize=3, linewidth=1.2)
        panel.set_title(curve.name, fontsize=9)
        panel.set_xlabel(curve.things, fontsize=8)
        panel.set_ylabel(curve.unit, fontsize=8)
        panel.set_xlim(left=0)
        panel.set_ylim(bottom=0)
        panel.tick_params(labelsize=7)
        panel.grid(alpha=0.25)
    for panel in panels:  # those that are left
        panel.set_axis_off()
    if found:
        figure.axes[0].legend(fontsize=8)
    figure.supxlabel(caption, fontsize=7, color="#555555")
    figure.savefig(file, pil_kwargs={"optimize": True})
