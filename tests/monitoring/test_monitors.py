"""Monitors: flags at their limits, latched until told and cleared, one moment told consistently."""

from __future__ import annotations

import json
import math
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmodd.config import Config
from qmodd.demo.compose import shipped
from qmodd.monitoring.monitors import UNIT_NAMES, Flag, Frozen, Monitor, Monitors, monitors_of

RAIL = Monitor("rail", "rail.bus_v", "V", 3.6, 3.8, 4.2, 4.4, "here")
CHIP = Monitor("chip", "tec.object_c", "C", 29.5, 29.9, 30.1, 30.5, "here", serving=True)
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def frozen(serving: bool = True, **values: float) -> Frozen:
    return Frozen(NOON, 0.1, values, {}, serving)


def row(monitors: Monitors, name: str, clear: bool = False) -> dict[str, Any]:
    return next(r for r in monitors.told(clear)["monitors"] if r["name"] == name)


@pytest.mark.parametrize(
    ("value", "flags"),
    [
        (3.5, [Flag.LOW_ALARM, Flag.LOW_WARNING]),
        (3.6, [Flag.LOW_WARNING]),
        (3.8, []),
        (4.0, []),
        (4.2, []),
        (4.3, [Flag.HIGH_WARNING]),
        (4.5, [Flag.HIGH_WARNING, Flag.HIGH_ALARM]),
        (math.nan, []),
    ],
)
def test_flags_at_the_limits(value: float, flags: list[Flag]) -> None:
    assert list(RAIL.flags(value)) == flags


@given(st.floats(allow_nan=False))
def test_an_alarm_is_a_warning_too(value: float) -> None:
    flags = set(RAIL.flags(value))
    assert (Flag.HIGH_ALARM not in flags) or Flag.HIGH_WARNING in flags
    assert (Flag.LOW_ALARM not in flags) or Flag.LOW_WARNING in flags
    assert not ({Flag.LOW_WARNING, Flag.HIGH_WARNING} <= flags)


def test_limits_out_of_order_are_refused() -> None:
    with pytest.raises(ValueError, match="not in order"):
        Monitor("x", "a.b", "V", 1.0, 0.0, 2.0, 3.0, "here")


def test_a_flag_stays_until_it_is_read_with_clear() -> None:
    monitors = Monitors((RAIL, CHIP))
    monitors.freeze(frozen(rail=4.5, chip=30.0))
    monitors.freeze(frozen(rail=4.0, chip=30.0))
    assert row(monitors, "rail")["flags"] == []
    assert row(monitors, "rail")["latched"] == ["high warning", "high alarm"]
    assert row(monitors, "rail", clear=True)["latched"] == ["high warning", "high alarm"]
    assert row(monitors, "rail")["latched"] == []


def test_what_is_still_wrong_is_latched_again_at_once() -> None:
    monitors = Monitors((RAIL,))
    monitors.freeze(frozen(rail=4.3))
    monitors.told(clear=True)
    assert row(monitors, "rail")["latched"] == ["high warning"]


def test_what_is_elsewhere_by_intention_has_no_flag_before_service() -> None:
    monitors = Monitors((CHIP,))
    monitors.freeze(frozen(serving=False, chip=25.0))
    assert row(monitors, "chip")["latched"] == []
    monitors.freeze(frozen(serving=True, chip=25.0))
    assert row(monitors, "chip")["latched"] == ["low alarm", "low warning"]


def test_one_moment_is_told_until_the_next() -> None:
    monitors = Monitors((RAIL, CHIP))
    with pytest.raises(LookupError):
        monitors.told()
    monitors.freeze(Frozen(NOON, 0.123456, {"rail": 4.0}, {"chip": "no answer"}, True))
    told = monitors.told()
    assert (told["utc"], told["span_s"]) == ("2026-01-01T12:00:00.000+00:00", 0.1235)
    assert told == monitors.told()
    chip = row(monitors, "chip")
    assert (chip["value"], chip["unread"], chip["flags"]) == (None, "no answer", [])
    json.dumps(told, allow_nan=False)


def test_numbers_for_telemetry() -> None:
    monitors = Monitors((RAIL, CHIP))
    assert monitors.numbers() == {}
    monitors.freeze(frozen(rail=4.5, chip=30.2))
    assert monitors.numbers() == {
        "rail_v": 4.5,
        "chip_c": 30.2,
        "alarms_count": 1,
        "warnings_count": 1,
        "latched_count": 3,
        "unread_count": 0,
    }


# the table


@pytest.fixture(params=["alice", "bob"])
def table(request: pytest.FixtureRequest) -> tuple[Monitor, ...]:
    raw = tomllib.loads(shipped(f"{request.param}.toml"))
    config = Config.model_validate(raw)
    detectors = ("DZ", "DX0", "DX1") if request.param == "bob" else ()
    return monitors_of(config, {"p0": (5e-5, 8e-5)}, detectors)


def test_the_table_says_where_each_limit_comes_from(table: tuple[Monitor, ...]) -> None:
    assert all(m.source for m in table)
    assert len({m.name for m in table}) == len(table)
    assert {m.unit for m in table} <= set(UNIT_NAMES)


def test_what_is_monitored(table: tuple[Monitor, ...]) -> None:
    names = {m.name for m in table}
    common = {"heater_rail", "heater_rail_current", "chip", "submount", "heat_sink", "tec_current", "photocurrent_p0"}
    assert common | {"supply", "supply_temperature", "fan"} <= names
    assert {"laser_power", "laser_frequency"} <= names or {"rate_dz", "detector_dx1", "cryostat"} <= names


def test_limits_follow_the_configuration(tmp_path: Path) -> None:
    raw = tomllib.loads(shipped("alice.toml"))
    raw["control"]["tec_target_c"] = 35.0
    raw["device"] = [d for d in raw["device"] if d["role"] != "supply"]
    table = {m.name: m for m in monitors_of(Config.model_validate(raw), {}, ())}
    assert (table["chip"].low_alarm, table["chip"].high_alarm) == (34.5, 35.5)
    assert "fan" not in table
