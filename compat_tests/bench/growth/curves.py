"""What was measured: curves of two engines, in a file that is written after each point."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass(slots=True)
class Curve:
    """Values in ``unit`` against the number of ``things``, by engine: ``points[engine]`` has (number, value)."""

    name: str
    things: str
    unit: str
    points: dict[str, list[tuple[int, float]]] = field(default_factory=dict)

    def add(self, engine: str, number: int, value: float) -> None:
        """Add a point; it replaces an earlier one of this number."""
        kept = [point for point in self.points.get(engine, ()) if point[0] != number]
        self.points[engine] = sorted([*kept, (number, value)])


class Curves:
    """The curves of a file, by their names."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._curves: dict[str, Curve] = {}
        if file.exists():
            for document in json.loads(file.read_text()):
                points = {engine: [(x, y) for x, y in found] for engine, found in document.pop("points").items()}
                self._curves[document["name"]] = Curve(**document, points=points)

    def __iter__(self) -> Iterator[Curve]:
        return iter(self._curves.values())

    def add(self, name: str, things: str, unit: str, engine: str, number: int, value: float) -> None:
        """Add a point to a curve, which is created if it is new, and write the file."""
        self._curves.setdefault(name, Curve(name, things, unit)).add(engine, number, value)
        partial = self._file.with_name(f"{self._file.name}.partial")
        partial.write_text(json.dumps([asdict(curve) for curve in self], indent=1))
        partial.replace(self._file)
