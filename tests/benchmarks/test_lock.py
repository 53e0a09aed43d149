"""The lock's figures, small: the rig, each kind of measurement once, and what a limit means."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks import lock
from benchmarks.lock import CALM, DISTURBANCES, SWAYING, disturbed, hold, relocks, wraps
from benchmarks.measure import wilson

pytestmark = pytest.mark.long


def test_a_pilot_holds_the_sway_and_so_do_the_states_alone() -> None:
    held = hold(replace(lock._pilot(SWAYING), ballast=True), 30.0)
    assert held.rms_deg < 1.3
    assert held.excess < 5e-4
    assert held.locked > 0.99
    assert held.cold_s < 10.0
    assert hold(replace(SWAYING, rate_hz=1e5), 30.0).rms_deg < 3.0


def test_calm_drifts_without_a_pilot() -> None:
    held = hold(CALM, 40.0)
    assert held.rms_deg < 1.0
    assert held.flagged == 0.0
    assert "qber_x_excess_percent" in held.detail()


def test_it_comes_back_and_never_lies() -> None:
    (back,) = relocks(1, 2, pilot=True)
    assert back.value == 1.0
    assert back.detail["low"] < back.detail["high"] <= 1.0
    (false,) = disturbed(1, len(DISTURBANCES))
    assert false.ok, false.detail
    assert false.detail["worst_s"] < 2.1


@pytest.mark.parametrize(("ballast", "limit_s"), [(True, 0.1), (False, 5.0)])
def test_outage_of_a_hop(ballast: bool, limit_s: float) -> None:
    (found,) = wraps(1, ballast=ballast, hops=1)
    assert found.ok, found.detail
    assert 0.0 < found.value <= limit_s


def test_run_yields_every_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[float] = []
    results = []
    for result in lock.run(
        lambda fraction, _text: told.append(fraction), hold_s=3.0, weak_s=10.0, jumps=1, disturbances=1
    ):
        results.append(result.name)
        if len(results) == 5:
            break
    assert results == ["lock pilot", "lock qber excess", "lock cold", "lock 10 dB", "lock 10 dB qber"]
    assert told[0] == 0.0


def test_wilson_interval() -> None:
    low, high = wilson(300, 300)
    assert low == pytest.approx(0.9874, abs=1e-3)
    assert high == pytest.approx(1.0)
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(50, 100) == pytest.approx((0.4038, 0.5962), abs=1e-3)
