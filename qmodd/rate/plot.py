"""Secret key rate over loss as a figure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from calibration.plot import Plot, Series
from qmodd.rate.planner import Expectation, over_loss
from qmodd.rate.system import System
from qmodd.report import svg

_STEP_DB = 1.0
# Block sizes beside the own, as multiples of it.
_MULTIPLES = (0.3, 10.0)


def figure(system: System, points: Sequence[Expectation]) -> Plot:
    """Curves of several block sizes around the points that were asked for."""
    furthest = max([60.0, *[p.loss_db for p in points]])
    losses = [float(v) for v in np.arange(0.0, furthest + _STEP_DB / 2, _STEP_DB)]
    own = {p.n_z for p in points}
    sizes = sorted(own | {max(1000, round(f * n)) for f in _MULTIPLES for n in own})
    curves = [_curve(f"n_Z {_power(n)}", over_loss(system, losses, n)) for n in sizes]
    with_key = [p for p in points if p.skr_bps > 0.0]
    asked = [Series("asked for", [p.loss_db for p in with_key], [p.skr_bps for p in with_key])] if with_key else []
    return Plot(
        title=f"Expected secret key rate, {system.name}, {system.keys.proof}",
        x_label="fibre loss (dB)",
        y_label="secret key rate (bit/s)",
        series=[*[c for c in curves if c.x], *asked],
        log_y=True,
    )


def drawn(system: System, points: Sequence[Expectation]) -> str:
    """An SVG file's text. Raises svg.NoPlots without the extra `report`."""
    return svg.standalone(svg.draw(figure(system, points), "rate"))


def _curve(label: str, points: Sequence[Expectation]) -> Series:
    """Where there is a key; a logarithmic axis has no zero."""
    some = [p for p in points if p.skr_bps > 0.0]
    return Series(label, [p.loss_db for p in some], [p.skr_bps for p in some], style="line")


def _power(n: int) -> str:
    return f"{n:.3g}".replace("e+0", "e").replace("e+", "e")
