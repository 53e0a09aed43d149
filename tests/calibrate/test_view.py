"""What people see while it works: bars on a terminal, lines elsewhere."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from calibration.context import Progress
from calibration.plan import Due
from calibration.procedure import Disturbs
from qmodd.calibrate.view import Bars, Lines, plan_table, view
from qmodd.calibrate.walk import Outcome

COSTS = {"alice": {"heater_iv": 2.0, "laser": 3.0}}


def console(terminal: bool) -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    return Console(file=out, force_terminal=terminal, width=150, color_system=None), out


def script(terminal: bool) -> str:
    where, out = console(terminal)
    with view(where, COSTS) as shown:
        assert isinstance(shown, Bars if terminal else Lines)
        shown.say("alice", "at temperature")
        shown.show("alice", Progress("heater_iv", 0.0, "never calibrated"))
        shown.show("alice", Progress("heater_iv", 0.5, "split: 91 ohm"))
        shown.show("alice", Progress("heater_iv", 0.0, "again: scatter"))
        if isinstance(shown, Bars):
            shown._progress.refresh()
        shown.ended("alice", Outcome("heater_iv", "redone", "never calibrated", 0.63))
        shown.show("alice", Progress("heater_iv", 1.0, "done"))
        shown.show("alice", Progress("laser", 0.0, "never calibrated"))
        shown.ended("alice", Outcome("laser", "refused", "dark: 0 mW of 20 mW", 1.0))
    return out.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_each_is_told_with_its_state_and_reason(terminal: bool) -> None:
    told = script(terminal)
    assert "at temperature" in told
    assert "↻ alice heater_iv          redone     0.63 s  never calibrated" in told
    assert "✗ alice laser              refused    1.00 s  dark: 0 mW of 20 mW" in told


def test_lines_tell_each_beginning_once() -> None:
    told = script(False)
    assert told.count("begins") == 2
    assert "\x1b" not in told


def test_bars_tell_how_long_it_still_takes() -> None:
    where, _ = console(True)
    bars = Bars(where, COSTS)
    assert bars._left("alice", Progress("heater_iv", 0.5)) == 4.0
    bars.ended("alice", Outcome("heater_iv", "redone"))
    assert bars._left("alice", Progress("laser", 0.0)) == 3.0
    assert bars._left("bob", Progress("arm_phase", 0.0)) == 0.0


def test_a_plan_tells_what_it_costs() -> None:
    where, out = console(False)
    due = Due("arm_phase", "valid until noon", "calibrate", Disturbs.LINK, 3.3)
    where.print(plan_table("bob", [due], ["arm_phase", "combiner"]))
    told = out.getvalue()
    for word in ("bob: 1 of 2 due", "arm_phase", "3.3 s", "keys stop on both sides", "valid until noon"):
        assert word in told
