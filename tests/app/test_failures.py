"""What ends a session, as one sentence for an operator."""

from __future__ import annotations

import pytest

from calibration.context import CalibrationRefused, LightRefused
from calibration.fit import FitRefused
from drivers.errors import BusFault, Refused, Timeout, WrongDevice
from qmodd.app.failures import EXPECTED, Interrupted, LoopGaveUp, NotReady, interrupted, leaves, reason
from qmodd.control.loop import LoopFault
from qmodd.module import BringUpFailed
from qmodd.safety import WatchdogStarved


@pytest.mark.parametrize(
    "error",
    [
        BusFault("i2c:1: no acknowledge (0x40)"),
        Timeout("serial:tec: no reply"),
        Refused("not now"),
        BringUpFailed("tec: nothing found"),
        CalibrationRefused("laser", "no emission"),
        FitRefused("residual too large"),
        LightRefused("the transmitter is safe"),
        WatchdogStarved("rails dropped"),
        Interrupted("safe state by command"),
        NotReady("self-test: x"),
        LoopFault("railed"),
        LoopGaveUp("temperature: no reply"),
        WrongDevice("tec at serial:tec: expected a TEC controller, found nothing"),
    ],
    ids=lambda e: type(e).__name__,
)
def test_expected_failure_speaks_for_itself(error: Exception) -> None:
    assert isinstance(error, EXPECTED)
    assert reason(error) == str(error)


def test_bug_is_named_as_one_with_its_type() -> None:
    assert reason(KeyError("flux")) == "internal error KeyError: 'flux'"


def test_group_tells_each_cause_once_the_first_first() -> None:
    inner = ExceptionGroup("inner", [BusFault("a"), ValueError("b")])
    group = ExceptionGroup("outer", [inner, BusFault("a"), NotReady("c")])
    assert [str(e) for e in leaves(group)] == ["a", "b", "a", "c"]
    assert reason(group) == "a; internal error ValueError: b; c"


def test_reason_is_bounded() -> None:
    assert len(reason(BusFault("x" * 2000))) == 480


def test_command_is_found_inside_a_group() -> None:
    wanted = Interrupted("locked: fibre work")
    assert interrupted(ExceptionGroup("g", [BusFault("a"), ExceptionGroup("h", [wanted])])) is wanted
    assert interrupted(wanted) is wanted
    assert interrupted(ExceptionGroup("g", [BusFault("a")])) is None
