"""Monitors of a module as pluggable optics have them (CMIS, OIF): named values, each with alarm and warning limits to
both sides, read at one moment (frozen) and then told consistently, with flags that stay set until they are read.

Pure: values come from the shell, a moment at a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from itertools import pairwise
from typing import Any

from qmodd.config import Config

INF = math.inf


class Flag(StrEnum):
    LOW_ALARM = "low alarm"
    LOW_WARNING = "low warning"
    HIGH_WARNING = "high warning"
    HIGH_ALARM = "high alarm"


@dataclass(frozen=True)
class Monitor:
    """`reading` is the source and its field. `source` says where the limits come from. `serving`: judged only while the
    module is in service, because before it the value is elsewhere by intention."""

    name: str
    reading: str
    unit: str
    low_alarm: float
    low_warning: float
    high_warning: float
    high_alarm: float
    source: str
    serving: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError for limits that are not in order."""
        limits = (self.low_alarm, self.low_warning, self.high_warning, self.high_alarm)
        if any(a > b for a, b in pairwise(limits)):
            raise ValueError(f"monitor {self.name}: limits {limits} are not in order")

    def flags(self, value: float) -> Iterator[Flag]:
        """What is beyond its limits; an alarm is a warning too. What is not a number has no flag."""
        if value < self.low_alarm:
            yield Flag.LOW_ALARM
        if value < self.low_warning:
            yield Flag.LOW_WARNING
        if value > self.high_warning:
            yield Flag.HIGH_WARNING
        if value > self.high_alarm:
            yield Flag.HIGH_ALARM


@dataclass(frozen=True)
class Frozen:
    """All values of one moment. `span_s`: from the first to the last reading. `unread`: why, by name."""

    utc: datetime
    span_s: float
    values: Mapping[str, float]
    unread: Mapping[str, str]
    serving: bool


@dataclass
class Monitors:
    """The last frozen moment, and every flag that was set since flags were last cleared."""

    table: tuple[Monitor, ...]
    frozen: Frozen | None = None
    latched: dict[str, set[Flag]] = field(default_factory=dict)

    def freeze(self, moment: Frozen) -> None:
        self.frozen = moment
        for name, flags in self.flags(moment).items():
            self.latched.setdefault(name, set()).update(flags)

    def flags(self, moment: Frozen) -> dict[str, set[Flag]]:
        """Of one moment, by monitor; only those that have one."""
        found: dict[str, set[Flag]] = {}
        for m in self.table:
            judged = moment.serving or not m.serving
            if judged and (flags := set(m.flags(moment.values.get(m.name, math.nan)))):
                found[m.name] = flags
        return found

    def told(self, clear: bool = False) -> dict[str, Any]:
        """The frozen moment for JSON: each monitor with value, limits, present and latched flags. `clear`: the latched
        flags are forgotten once they are told; those of what is still beyond its limits are set again at once.

        Raises LookupError before the first moment.
        """
        if self.frozen is None:
            raise LookupError("nothing has been frozen yet")
        now = self.flags(self.frozen)
        out = {
            "utc": self.frozen.utc.isoformat(timespec="milliseconds"),
            "span_s": round(self.frozen.span_s, 4),
            "serving": self.frozen.serving,
            "monitors": [self._row(m, self.frozen, now.get(m.name, set())) for m in self.table],
        }
        if clear:
            self.latched = {name: set(flags) for name, flags in now.items()}
        return out

    def _row(self, m: Monitor, moment: Frozen, now: set[Flag]) -> dict[str, Any]:
        return {
            "name": m.name,
            "value": _finite(moment.values.get(m.name, math.nan)),
            "unit": m.unit,
            "low_alarm": _finite(m.low_alarm),
            "low_warning": _finite(m.low_warning),
            "high_warning": _finite(m.high_warning),
            "high_alarm": _finite(m.high_alarm),
            "flags": _ordered(now),
            "latched": _ordered(self.latched.get(m.name, set())),
            "limits_from": m.source,
            "unread": moment.unread.get(m.name, ""),
        }

    def numbers(self) -> dict[str, int | float | bool]:
        """For telemetry: values of the last moment under names with their units, and how many flags are set."""
        if self.frozen is None:
            return {}
        out: dict[str, int | float | bool] = {
            f"{m.name}_{UNIT_NAMES[m.unit]}": self.frozen.values[m.name]
            for m in self.table
            if m.name in self.frozen.values
        }
        now = self.flags(self.frozen)
        alarms = {Flag.LOW_ALARM, Flag.HIGH_ALARM}
        out["alarms_count"] = sum(bool(f & alarms) for f in now.values())
        out["warnings_count"] = sum(not f & alarms for f in now.values())
        out["latched_count"] = sum(len(f) for f in self.latched.values())
        out["unread_count"] = len(self.frozen.unread)
        return out


UNIT_NAMES = {"V": "v", "A": "a", "W": "w", "C": "c", "K": "k", "dBm": "dbm", "Hz": "hz", "1/s": "per_s", "rpm": "rpm"}


def _finite(x: float) -> float | None:
    return x if math.isfinite(x) else None


def _ordered(flags: set[Flag]) -> list[str]:
    return [f.value for f in Flag if f in flags]


# the table

_PAIR = "reference pair"
_SHEET = "data sheet"
_SAFETY = "configuration: safety"
_CONTROL = "configuration: control"
_SOURCE = "configuration: source"


def monitors_of(
    config: Config, diodes: Mapping[str, tuple[float, float]], detectors: tuple[str, ...]
) -> tuple[Monitor, ...]:
    """Those that this module has. `diodes`: by ADC channel the currents, A, at which the amplifier is close to its
    rail and at it; `detectors`: their names."""
    roles = {d.role for d in config.device}
    found = [*_rails(config), *_temperatures(config), *_tec(config)]
    found += [_photocurrent(name, *range_a) for name, range_a in diodes.items()]
    found += _laser(config) if config.module.role == "alice" else [m for d in detectors for m in _detector(d)]
    if "supply" in roles:
        found += _supply(config)
    if "cryostat" in roles:
        most = config.safety.cryostat_max_k
        found.append(Monitor("cryostat", "cryostat.kelvin", "K", 0.5, 0.8, 0.93 * most, most, _SAFETY))
    return tuple(found)


def _rails(config: Config) -> Iterator[Monitor]:
    # 4.0 V within 5 %; twice that is no supply any more.
    yield Monitor("heater_rail", "rail.bus_v", "V", 3.6, 3.8, 4.2, 4.4, f"{_PAIR}: 4.0 V within 5 %")
    most = config.safety.rail_max_a
    yield Monitor("heater_rail_current", "rail.current_a", "A", -INF, -INF, 0.9 * most, most, _SAFETY)


def _temperatures(config: Config) -> Iterator[Monitor]:
    s, target, far = config.safety, config.control.tec_target_c, config.alarms.temperature_k
    # The lock follows what the die does within 0.1 K; beyond `far` is the alarm `temperature-not-held`.
    near = min(0.1, far)
    yield Monitor(
        "chip", "tec.object_c", "C", target - far, target - near, target + near, target + far, _CONTROL, serving=True
    )
    yield Monitor("submount", "submount.celsius", "C", 0.0, 5.0, s.submount_max_c - 10.0, s.submount_max_c, _SAFETY)
    yield Monitor("heat_sink", "tec.sink_c", "C", -10.0, 0.0, s.sink_max_c - 10.0, s.sink_max_c, _SAFETY)


def _tec(config: Config) -> Iterator[Monitor]:
    usual, most = config.control.tec_current_limit_a, config.safety.tec_max_a
    warned = min(0.9 * usual, most)
    yield Monitor("tec_current", "tec.current_a", "A", -most, -warned, warned, most, f"{_CONTROL} and safety")


def _photocurrent(name: str, warned_a: float, most_a: float) -> Monitor:
    source = "factory record: range of the logarithmic amplifier"
    return Monitor(f"photocurrent_{name}", f"photocurrent.{name}", "A", -INF, -INF, warned_a, most_a, source)


def _laser(config: Config) -> list[Monitor]:
    dbm, hz = config.source.laser_power_dbm, config.source.laser_frequency_hz
    return [
        Monitor(
            "laser_power", "laser.power_dbm", "dBm", dbm - 1.0, dbm - 0.5, dbm + 0.5, dbm + 1.0, _SOURCE, serving=True
        ),
        Monitor(
            "laser_frequency", "laser.frequency_hz", "Hz", hz - 2.5e9, hz - 1.5e9, hz + 1.5e9, hz + 2.5e9,
            f"{_SOURCE}; OIF-ITLA: 2.5 GHz of the channel", serving=True,
        ),
    ]  # fmt: skip


def _detector(name: str) -> Iterator[Monitor]:
    lower = name.lower()
    # With 20 ns of dead time a fifth of all clicks is lost at 10 million a second.
    yield Monitor(f"rate_{lower}", f"rate.{name}", "1/s", -INF, -INF, 5e6, 1e7, f"{_PAIR}: dead time of 20 ns")
    latched = "latched at 0.2 V (calibration of the bias)"
    yield Monitor(f"detector_{lower}", f"bias_voltage.{name}", "V", -INF, -INF, 0.15, 0.2, latched)


def _supply(config: Config) -> list[Monitor]:
    s = config.safety
    hot, fan = s.supply_max_c, s.fan_min_rpm
    return [
        Monitor("supply", "supply.vout_v", "V", 10.8, 11.4, 12.6, 13.2, f"{_SHEET}: 12 V within 5 %"),
        Monitor("supply_input", "supply.vin_v", "V", 36.0, 40.0, 56.0, 60.0, f"{_SHEET}: 48 V system"),
        Monitor("supply_temperature", "supply.temperature_c", "C", -20.0, 0.0, hot - 10.0, hot, _SAFETY),
        # It starts with the module: turning slowly at first is no fault.
        Monitor("fan", "supply.fan_rpm", "rpm", fan, 1.3 * fan, INF, INF, _SAFETY, serving=True),
    ]
