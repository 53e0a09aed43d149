from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.errors import OutOfRange
from drivers.quantity import Limits, Quantity


def test_refusal_names_output_value_limit_and_unit() -> None:
    q = Quantity("heaters.phase", Limits("A", 0.0, 0.033, 0.0))
    with pytest.raises(
        OutOfRange, match=r"heaters\.phase: 0\.05 A is above the upper limit 0\.033 A; nothing was written"
    ):
        q.admit(0.05, 0.0)
    with pytest.raises(OutOfRange, match=r"-0\.001 A is below the lower limit 0 A"):
        q.admit(-0.001, 0.0)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_refused(value: float) -> None:
    with pytest.raises(OutOfRange, match="is not a number within"):
        Quantity("x", Limits("V", -1.0, 1.0, 0.0)).check(value)


def test_slew_counts_from_the_last_write_and_never_blocks_the_safe_value() -> None:
    q = Quantity("bias", Limits("V", -10, 10, 0.0, slew_per_s=2.0))
    assert q.admit(9.0, 0.0) == 9.0  # nothing is known before the first write
    q.wrote(9.0, 0.0)
    with pytest.raises(OutOfRange, match=r"bias: 3 V is 6 V from the present 9 V; the slew limit 2 V/s allows 2"):
        q.admit(3.0, 1.0)
    assert q.admit(7.0, 1.0) == 7.0
    assert q.admit(0.0, 0.001) == 0.0
    assert q.towards(0.0, 1.0) == 7.0
    assert q.towards(9.5, 1.0) == 9.5
    q.forget()
    assert q.value == 0.0
    assert q.towards(-5.0, 1.0) == -5.0


@given(st.floats(-1e3, 1e3), st.floats(0, 10), st.floats(0.1, 100))
def test_a_ramp_is_always_admitted(target: float, dt: float, slew: float) -> None:
    q = Quantity("q", Limits("V", -1e3, 1e3, 0.0, slew))
    q.wrote(1.0, 0.0)
    step = q.towards(target, dt)
    assert q.admit(step, dt) == step
    assert abs(step - target) <= abs(1.0 - target)


@pytest.mark.parametrize(
    "limits", [(1.0, 0.0, 0.5, None), (0.0, 1.0, 2.0, None), (0.0, math.inf, 0.0, None), (0.0, 1.0, 0.0, -1.0)]
)
def test_contradicting_limits_are_refused(limits: tuple[float, float, float, float | None]) -> None:
    with pytest.raises(ValueError, match="must"):
        Limits("V", *limits)
