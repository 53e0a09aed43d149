"""A report out of nothing, with everything that one can hold."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from calibration.plot import Heatmap, Plot, Series
from calibration.procedure import Disturbs
from calibration.record import Conditions, Record
from qmodd.report.model import Entry, Report, Side

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
EVIL = "<script>alert('x')</script>&\"'"

FRINGE = Plot(
    "Fringe of the split",
    "heater power (mW)",
    "photocurrent (µA)",
    (
        Series("pa0 readings", [0.0, 10.0, 20.0, 30.0], [1.0, 0.6, 0.1, 0.5], sigma=[0.01] * 4),
        Series("pa0 model", [0.0, 15.0, 30.0], [1.0, 0.3, 0.5], "line"),
        Series("clicks", [0.0, 1.0, 2.0], [3.0, 5.0, 1.0], "steps"),
    ),
    marks=((21.0, "null"),),
)
CROSSTALK = Heatmap("Crosstalk", ("filter", "split"), ("filter", "split"), ((1.0, 0.031), (-0.02, 1.0)), "rad/rad")


def record(name: str, **changes: object) -> Record:
    made = Record(
        name=name,
        version=3,
        value={"filter_r0_ohm": 91.234567, "p_pi_w": 0.0312345, "null_v": -0.5, "ratio": 0.3333},
        covariance_names=("filter_r0_ohm", "p_pi_w"),
        covariance=((0.0004, 0.0), (0.0, 1e-10)),
        residual_rms=0.0123,
        residuals=(0.01, -0.02, 0.005),
        raw_sha256="ab" * 32,
        conditions=Conditions(temperatures_c={"submount": 30.01}, operator="ada", firmware_sha256="cd" * 32),
        parents={"photodiode_zero": 2},
        created=NOW,
        valid_until=NOW + timedelta(days=7),
    )
    return made.model_copy(update=changes)


def entry(name: str = "heater_iv", **changes: object) -> Entry:
    made = Entry(
        name=name,
        about="R(P) of all heaters.\n\nNames the heater that is open.",
        equation="R(P) = R0 (1 + rho P)",
        needs=(),
        valid_s=7 * 86_400.0,
        disturbs=Disturbs.KEYS,
        cost_s=0.6,
        state="redone",
        why="never calibrated",
        seconds=0.63,
        record=record(name),
        valid_until=NOW + timedelta(days=8),
        figures=(FRINGE, CROSSTALK),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def report(*entries: Entry) -> Report:
    chosen = entries or (
        entry("photodiode_zero", figures=(), state="good", no_figures="the raw readings are not kept any more"),
        entry(needs=("photodiode_zero",)),
        entry("filter_peak", needs=("heater_iv",), state="refused", why="no light at pa1", record=None, figures=()),
        entry("mean_photon", needs=("filter_peak",), state="waiting", why="rests on it", record=None, figures=()),
    )
    return Report("emulated pair", NOW, 33.6, (Side("alice", "QM-A-0001", tuple(chosen)),))
