"""What a calibration has to show, as data: curves and points with their axes. Drawing is somebody else's work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

Style = Literal["points", "line", "steps"]


@dataclass(frozen=True)
class Series:
    """One set of (x, y), equally long. `points`: readings, `line`: a model through them, `steps`: a histogram."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    style: Style = "points"
    sigma: Sequence[float] | None = None

    def __post_init__(self) -> None:
        if len(self.x) != len(self.y) or (self.sigma is not None and len(self.sigma) != len(self.y)):
            raise ValueError(f"series {self.label!r}: {len(self.x)} x and {len(self.y)} y")


@dataclass(frozen=True)
class Plot:
    """Axis labels carry their units. `marks`: (x, text) of chosen set points, drawn as vertical lines."""

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    marks: Sequence[tuple[float, str]] = field(default=())
    log_y: bool = False


@dataclass(frozen=True)
class Heatmap:
    """A matrix (rows by columns) with names, such as a crosstalk matrix. `unit` belongs to the values."""

    title: str
    rows: Sequence[str]
    columns: Sequence[str]
    values: Sequence[Sequence[float]]
    unit: str = ""


Figure = Plot | Heatmap
