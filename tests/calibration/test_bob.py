"""The receiver's calibrations on a fake that obeys the optical laws, with the transmitter's light as a service."""

from __future__ import annotations

from math import pi, sin
from typing import Any

import numpy as np
import pytest

from calibration.context import CalibrationRefused
from calibration.graph import bring_up
from calibration.procedures import bob_graph
from calibration.store import RecordStore
from drivers.roles import LightMode
from tests.calibration.fakes import FakeBob, split_target


def degrees(x: float) -> float:
    return float(np.degrees((x + pi) % (2 * pi) - pi))


@pytest.mark.parametrize("seed", range(4))
async def test_the_whole_set_finds_the_working_point(seed: int) -> None:
    b = FakeBob(seed)
    records = await bring_up(bob_graph(), b.context(gate=(8, 800)))
    assert sin(b.heaters.phase("basis") / 2) ** 2 == pytest.approx(0.26, abs=0.01)
    assert abs(abs(degrees(b.heaters.phase("split"))) - degrees(split_target(b.long))) < 2.5
    assert abs(abs(degrees(b.heaters.phase("combine"))) - 90) < 2.5
    assert np.all(b.bias < 0.93 * b.i_sw)
    assert np.all(b.bias > 0.86 * b.i_sw)
    for d in (1, 2):
        wanted = b.delay[d] - b.delay[0]
        assert records["detector_delay"].value[f"delay_dx{d - 1}_ps"] == pytest.approx(wanted, abs=3)
    assert records["detector_delay"].value["clock_offset"] == pytest.approx(b.offset, abs=1e-9)
    phase = records["arm_phase"]
    # In the heater's direction the sign of xi is the other way round: phi_B enters with the opposite sign of phi_A.
    assert phase.value["xi_rad"] == pytest.approx(-b.xi, abs=0.025)
    assert phase.value["visibility"] == pytest.approx(b.visibility, abs=0.03)
    assert phase.sigma("xi_rad") < 0.02
    assert x_error(b) < 0.025
    assert b.mode is LightMode.OFF
    assert b.gate == (8, 800)
    assert b.time.now < 25


def x_error(b: FakeBob) -> float:
    b.mode, b.scale = LightMode.FIX, 1.0
    wrong = right = 0.0
    for state, good in ((2, 2), (3, 1)):
        b.state = state
        cells = b.cells()
        right += cells[good, 1]
        wrong += cells[3 - good, 1]
    b.mode = LightMode.OFF
    return float(wrong / (wrong + right))


async def test_warm_boot_redoes_nothing() -> None:
    b = FakeBob(5)
    store = RecordStore()
    await bring_up(bob_graph(), b.context(store))
    powers, bias = b.heaters.power().copy(), b.bias.copy()
    b.heaters.amperes = dict.fromkeys(b.heaters.amperes, 0.0)
    b.bias = np.zeros(3)
    began = b.time.now
    await bring_up(bob_graph(), b.context(store))
    assert all(len(store.history(n)) == 1 for n in store.names())
    assert np.allclose(b.heaters.power(), powers)
    assert np.allclose(b.bias, bias)
    assert b.time.now - began < 1
    await bring_up(bob_graph(), b.context(store, basis_split=0.3))
    assert len(store.history("basis_split")) == 2


async def refused(b: FakeBob, **settings: Any) -> str:
    with pytest.raises(CalibrationRefused) as e:
        await bring_up(bob_graph(), b.context(**settings))
    return str(e.value)


async def test_no_light_and_refused_light_are_named() -> None:
    b = FakeBob(1)
    b.flux = 0.0
    assert "no light from the fibre" in await refused(b)
    b = FakeBob(1)
    b.refuse = "transmitter is locked"
    assert await refused(b) == "detector_bias: transmitter is locked"


async def test_a_blind_detector_is_named() -> None:
    b = FakeBob(1)
    b.blind = frozenset({1})
    assert "detector dx0 sees no light" in await refused(b)


async def test_a_detector_without_plateau_is_named() -> None:
    b = FakeBob(1)
    b.i_sw[2] = 40e-6
    assert "dx1" in await refused(b)


async def test_a_detector_that_latches_early_is_backed_off() -> None:
    b = FakeBob(3)
    b.i_sw = np.full(3, 18e-6)
    real = b.set_bias

    async def weak(bias_a: list[float]) -> None:
        """DX1 latches well below its own switching current, as with bright light."""
        await real(bias_a)
        b.latched[2] = bool(b.latched[2] or b.bias[2] > 15.4e-6) and b.bias[2] > 0

    b.set_bias = weak  # type: ignore[method-assign, assignment]
    records = await bring_up(bob_graph(), b.context(), targets=["detector_bias"])
    assert records["detector_bias"].value["dx1_bias_a"] <= 15.4e-6
    assert not b.latched.any()


async def test_dark_counts_beyond_the_limit_are_named() -> None:
    b = FakeBob(1)
    b.dark_gain = 100.0
    assert "dark counts/s" in await refused(b)
