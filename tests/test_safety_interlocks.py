"""The pure interlocks: what violates, what latches, what is not judged; the monitor's confirmation and its latches."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmodd.safety.interlocks import Limits, Readings, violations
from qmodd.safety.latches import FILE, Latch, LatchStore
from qmodd.safety.monitor import CONFIRM, Ring, SafetyMonitor, SafetyTripped, still_violates

LIMITS = Limits()
WELL = Readings(
    interlock_ok=True,
    cover_closed=True,
    cryostat_ok=True,
    detectors_unbiased=False,
    cryostat_k=2.4,
    submount_c=30.0,
    object_c=30.0,
    sink_c=33.0,
    supply_c=45.0,
    fan_rpm=6000.0,
    tec_a=0.4,
    rail_v=4.0,
    rail_a=0.08,
    written_w=0.15,
    written_a=0.08,
    bias_a=12e-6,
    diode_shutter_v=0.0,
    laser_on=True,
    heaters_on=True,
)
# What each reading has to become to violate: interlock, whether it latches.
BAD: dict[str, tuple[Any, str, bool]] = {
    "interlock_ok": (False, "interlock-open", False),
    "cover_closed": (False, "cover-open", True),
    "cryostat_ok": (False, "cryostat-warm", False),
    "cryostat_k": (4.2, "cryostat-warm", False),
    "submount_c": (61.0, "over-temperature", True),
    "object_c": (60.5, "over-temperature", True),
    "sink_c": (68.5, "over-temperature", True),
    "supply_c": (90.0, "over-temperature", True),
    "tec_a": (-2.6, "over-current", True),
    "rail_a": (0.25, "over-current", True),
    "written_w": (0.41, "heater-budget", True),
    "diode_shutter_v": (5.0, "diode-shutter", False),
    "fan_rpm": (300.0, "fan-failed", False),
    "supply_fault": ("output off", "supply-fault", False),
}


def kinds(readings: Readings, limits: Limits = LIMITS) -> list[str]:
    return [v.interlock for v in violations(readings, limits)]


def test_a_healthy_module_violates_nothing() -> None:
    assert kinds(WELL) == []
    assert kinds(Readings()) == []


@pytest.mark.parametrize("name", BAD)
def test_each_reading_beyond_its_limit_is_named_with_both_figures(name: str) -> None:
    value, interlock, latches = BAD[name]
    found = violations(replace(WELL, **{name: value}), LIMITS)
    assert found[0].interlock == interlock
    assert found[0].latch is latches
    if isinstance(value, float):
        assert "limit" in found[0].why or "budget" in found[0].why or "least" in found[0].why
        assert sum(c.isdigit() for c in found[0].why) >= 2


@given(st.sets(st.sampled_from(sorted(BAD))), st.sets(st.sampled_from([f.name for f in fields(Readings)])))
def test_what_is_missing_is_never_judged_and_hides_nothing_else(bad: set[str], missing: set[str]) -> None:
    readings = replace(WELL, **{n: BAD[n][0] for n in bad})
    known = {f.name: None for f in fields(Readings) if f.name in missing and f.default is None}
    found = violations(replace(readings, **known), LIMITS)
    assert not {v.reading for v in found} & known.keys()
    for name in bad - known.keys() - {"interlock_ok", "cryostat_k", "written_w"}:
        assert BAD[name][1] in {v.interlock for v in found}


@given(
    st.floats(0.0, 0.3),
    st.floats(0.0, 0.3),
    st.floats(0.0, 0.6),
    st.floats(0.0, 6.0),
)
def test_current_that_nobody_wrote_counts_as_heat(measured: float, written: float, watts: float, rail_v: float) -> None:
    r = replace(WELL, rail_a=measured, written_a=written, written_w=watts, rail_v=rail_v)
    assert r.heaters_w is not None
    assert r.heaters_w >= watts
    assert r.heaters_w <= watts + rail_v * max(0.0, measured - written)
    assert ("heater-budget" in kinds(r)) is (r.heaters_w > LIMITS.heater_budget_w)
    assert "heater-budget" not in kinds(replace(r, heaters_on=False))


@given(st.sampled_from(["submount_c", "object_c", "sink_c", "supply_c", "rail_a", "tec_a", "cryostat_k"]))
def test_a_reading_that_is_no_number_is_above_every_limit(name: str) -> None:
    assert kinds(replace(WELL, **{name: math.nan}))


def test_an_open_cover_is_the_root_of_the_open_loop() -> None:
    assert kinds(replace(WELL, cover_closed=False, interlock_ok=False)) == ["cover-open"]
    (dark,) = violations(replace(WELL, cover_closed=False, laser_on=False), LIMITS)
    assert not dark.latch


@given(st.floats(0.0, 5.0), st.floats(0.0, 50e-6), st.sampled_from([None, True, False]))
def test_shutter_and_bias_exclude_one_another(volts: float, bias_a: float, line: bool | None) -> None:
    found = kinds(replace(WELL, diode_shutter_v=volts, bias_a=bias_a, detectors_unbiased=line))
    assert ("diode-shutter" in found) is (volts >= 0.5 and (bias_a >= 1e-6 or line is False))


# the loop


class Hardware:
    """A reader and a platform; what is read is what the test says."""

    def __init__(self) -> None:
        self.now = WELL
        self.unread: dict[str, str] = {}
        self.freshly: list[bool] = []
        self.low: list[str] = []
        self.lines = ()

    async def read(self, fresh: bool = False) -> Readings:
        self.freshly.append(fresh)
        return self.now

    async def write(self, line: str, level: bool) -> None:
        assert not level
        self.low.append(line)


def monitor(hardware: Hardware, tmp_path: Path, said: list[Any]) -> SafetyMonitor:
    return SafetyMonitor(
        hardware,  # type: ignore[arg-type]
        LIMITS,
        LatchStore(tmp_path / FILE),
        Ring(1.0),
        hardware,
        lambda: "2026-11-30T10:00:00.000+00:00",
        said.append,
        lambda name, fields: said.append((name, fields.get("latch"))),
    )


async def test_one_odd_reading_trips_nothing_and_three_in_a_row_do(tmp_path: Path) -> None:
    hardware, said = Hardware(), list[Any]()
    watch = monitor(hardware, tmp_path, said)
    hot = replace(WELL, submount_c=80.0)
    for readings in (WELL, hot, hot, WELL, *([hot] * (CONFIRM - 1))):
        hardware.now = readings
        await watch.step(0.0)
    assert said == []
    assert hardware.freshly[:3] == [False, False, True]
    await watch.step(0.0)
    assert hardware.low == ["laser_enable", "heater_enable"]
    assert said[0] == ("latch.set", "over-temperature")
    assert isinstance(said[1], SafetyTripped)
    assert said[1].alarm == "over-temperature"
    (held,) = LatchStore(tmp_path / FILE).all()
    assert [row["submount_c"] for row in held.snapshot][-4:] == [30.0, 80.0, 80.0, 80.0]


async def test_what_is_told_only_keeps_the_light_on(tmp_path: Path) -> None:
    hardware, said = Hardware(), list[Any]()
    watch = monitor(hardware, tmp_path, said)
    hardware.now = replace(WELL, fan_rpm=0.0)
    for _ in range(CONFIRM):
        await watch.step(0.0)
    assert (said, hardware.low) == ([], [])
    assert watch.told == {"fan-failed": "fan at 0 rpm; 1000 rpm is the least"}
    hardware.now = WELL
    await watch.step(0.0)
    assert watch.told == {}


def test_a_latch_goes_only_when_its_cause_can_be_seen_to_be_gone() -> None:
    held = Latch("over-temperature", "heat sink at 71.0 C", "", ("sink_c",))
    assert still_violates(held, WELL, {}, LIMITS) == ""
    assert "68 C is the limit" in still_violates(held, replace(WELL, sink_c=69.0), {}, LIMITS)
    assert "submount" in still_violates(held, replace(WELL, submount_c=69.0), {}, LIMITS)
    blind = still_violates(held, replace(WELL, sink_c=None), {"sink_c": "tec at serial:tec: no answer"}, LIMITS)
    assert blind == "sink_c cannot be read: tec at serial:tec: no answer"
    assert still_violates(held, replace(WELL, fan_rpm=0.0, interlock_ok=False), {}, LIMITS) == ""
