from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmodd.control.pid import Pid, PidGains


def plant(pid: Pid, set_point: float, steps: int, load: float = 0.0, start: float = 0.0) -> list[float]:
    """First-order lag of 1 s, 10 ms a step."""
    y, out = start, []
    for _ in range(steps):
        u = pid.step(set_point, y, 0.01).value
        y += 0.01 * (u + load - y)
        out.append(y)
    return out


def test_reaches_the_set_point_against_a_load() -> None:
    y = plant(Pid(PidGains(4.0, 0.5, 0.05)), 1.0, 2000, load=-0.7)
    assert y[-1] == pytest.approx(1.0, abs=1e-3)


def test_no_wind_up_behind_a_limit() -> None:
    pid = Pid(PidGains(4.0, 0.5, low=-1.0, high=1.0))
    plant(pid, 5.0, 3000)
    y = plant(pid, 0.5, 400, start=1.0)
    assert min(y) > 0.3
    assert y[-1] == pytest.approx(0.5, abs=0.02)


def test_saturation_and_slew_are_said() -> None:
    pid = Pid(PidGains(10.0, high=1.0, low=-1.0, slew_per_s=5.0))
    first = pid.step(1.0, 0.0, 0.01)
    assert first.value == pytest.approx(0.05)
    assert first.saturated
    assert first.slewing
    calm = Pid(PidGains(1.0)).step(0.1, 0.0, 0.01)
    assert not calm.saturated
    assert not calm.slewing


def test_hand_over_and_retuning_do_not_bump() -> None:
    pid = Pid(PidGains(2.0, 1.0))
    pid.take_over(0.37, 1.0, 0.8)
    assert pid.step(1.0, 0.8, 1e-6).value == pytest.approx(0.37, abs=1e-5)
    pid.retune(PidGains(9.0, 3.0), 1.0)
    assert pid.step(1.0, 0.8, 1e-6).value == pytest.approx(0.37, abs=1e-5)


def test_feed_forward_adds_and_set_point_steps_do_not_kick() -> None:
    pid = Pid(PidGains(1.0, td_s=1.0))
    pid.step(0.0, 0.0, 0.01)
    assert pid.step(1.0, 0.0, 0.01, feed_forward=0.2).value == pytest.approx(1.2)


@pytest.mark.parametrize("bad", [{"low": 1.0, "high": 0.0}, {"ti_s": 0.0}, {"td_s": -1.0}, {"slew_per_s": 0.0}])
def test_impossible_gains(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="impossible"):
        PidGains(1.0, **bad)


def test_a_reading_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="nan"):
        Pid(PidGains(1.0)).step(0.0, math.nan, 0.1)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.floats(-10, 10), min_size=1, max_size=40),
    st.floats(0.1, 10),
    st.floats(0.05, 10),
    st.floats(0.0, 1.0),
    st.floats(0.1, 10),
)
def test_output_always_within_limits_and_slew(
    measured: list[float], kp: float, ti: float, td: float, slew: float
) -> None:
    pid, last = Pid(PidGains(kp, ti, td, low=-2.0, high=2.0, slew_per_s=slew)), 0.0
    for m in measured:
        u = pid.step(0.5, m, 0.1).value
        assert -2.0 <= u <= 2.0
        assert abs(u - last) <= slew * 0.1 + 1e-12
        last = u
