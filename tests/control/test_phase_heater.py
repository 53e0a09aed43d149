"""Heaters that move together: other phases held, the sum held, the range, and the current that was written."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from calibration.record import Record
from drivers.errors import BusFault
from qmodd.control.phase_heater import RAIL_WINDOW_S, PhaseHeater, RailWatch, per_radian
from tests.control.heaters import FakeContext

NAMES = ("basis", "split", "phase", "combine")


def crosstalk(common: float = 12.2) -> Record:
    value: dict[str, float] = {}
    for i, seen in enumerate(NAMES):
        value[f"p_pi_{seen}_w"] = 0.04 + 0.001 * i
        value[f"common_{seen}_rad_per_w"] = common if seen == "phase" else 0.0
        for j, heated in enumerate(NAMES):
            value[f"theta_{seen}_{heated}"] = 1.0 if i == j else 0.04 * math.exp(-abs(i - j) / 1.5)
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return Record(name="crosstalk", value=value, created=now, valid_until=now + timedelta(days=1))


def effect(record: Record, powers: dict[str, float], die: bool = True) -> dict[str, float]:
    v, total = record.value, sum(powers.values())
    return {
        i: sum(v[f"theta_{i}_{j}"] * math.pi / v[f"p_pi_{j}_w"] * powers.get(j, 0.0) for j in NAMES)
        + (v[f"common_{i}_rad_per_w"] * total if die else 0.0)
        for i in NAMES
    }


@pytest.mark.parametrize("ballast", [False, True])
def test_one_radian_turns_the_phase_alone(ballast: bool) -> None:
    record = crosstalk()
    line = per_radian(0.036, record, ballast=ballast)
    seen = effect(record, line)
    assert seen.pop("phase") == pytest.approx(1.0)
    assert all(abs(v) < 1e-12 for v in seen.values())
    assert ("ballast" in line) is ballast
    if ballast:
        assert sum(line.values()) == pytest.approx(0.0, abs=1e-15)


def test_without_a_record_it_moves_by_its_own_p_pi() -> None:
    assert per_radian(0.036) == {"phase": pytest.approx(0.036 / math.pi)}
    both = per_radian(0.036, ballast=True)
    assert both["ballast"] == -both["phase"]
    assert both["phase"] > 0.036 / math.pi, "the die does not help any more"


async def test_goes_along_the_line_within_the_range_and_writes_only_what_changes() -> None:
    context = FakeContext({"basis": 0.02, "split": 0.03, "phase": 0.045, "combine": 0.02, "ballast": 0.0})
    context.records["crosstalk"] = crosstalk()
    heater = PhaseHeater.of(context.typed, 0.036)
    assert heater.balanced
    assert heater.low_rad < -2.5
    assert heater.high_rad - heater.low_rad > 2 * math.pi
    await heater.go(0.0)
    total = context.drive.total()
    for phase in (1.0, heater.low_rad, heater.high_rad):
        assert await heater.go(phase) == pytest.approx(0.0, abs=1e-4)
        assert context.drive.total() == pytest.approx(total, abs=1e-4)
    writes = context.writes
    await heater.go(heater.high_rad - 1e-5)
    assert context.writes == writes
    assert context.order[:1] == ["phase"]


async def test_without_a_ballast_the_change_of_heat_is_told() -> None:
    context = FakeContext({"basis": 0.02, "split": 0.03, "phase": 0.045, "combine": 0.02})
    heater = PhaseHeater.of(context.typed, 0.036)
    assert not heater.balanced
    assert await heater.go(1.0) == pytest.approx(0.036 / math.pi, rel=1e-3)
    assert heater.low_rad == pytest.approx(-0.045 / 0.036 * math.pi)


async def test_the_supply_monitor_tells_whether_the_source_obeys() -> None:
    context = FakeContext({"basis": 0.02, "split": 0.03, "phase": 0.045, "combine": 0.02})
    watch = RailWatch(context.typed)
    watch.note(0.0)
    assert await watch.check(0.05) is None
    assert await watch.check(RAIL_WINDOW_S + 0.01) == ""
    assert watch.quiescent_a == pytest.approx(0.004)
    context.stuck_a = 0.009
    why = await watch.check(1.0)
    assert why is not None
    assert "were written" in why
    context.stuck_a = 0.0
    await context.drive.set_power("phase", 0.046)
    watch.note(2.0)
    assert await watch.check(2.2) == ""
    context.broken = True
    with pytest.raises(BusFault):
        await watch.check(3.0)


def test_the_answer_does_not_depend_on_which_neighbours_are_known() -> None:
    record = crosstalk()
    value = {k: v for k, v in record.value.items() if "basis" not in k}
    line = per_radian(0.036, record.model_copy(update={"value": value}))
    assert set(line) == {"split", "phase", "combine"}
    assert np.isfinite(list(line.values())).all()


def test_fake_is_a_context() -> None:
    context: Any = FakeContext({"phase": 0.01})
    assert context.drive.power("phase") == 0.01
