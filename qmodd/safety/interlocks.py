"""Which interlock a set of readings violates, and why. Pure: readings in, reasons out.

The laser's line, the cover and the detectors' line act in hardware as well; here they get their reason. What a module
does not have, and what could not be read, is None: it is not judged, and whoever reads says so.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

# A bias below this is none (the detectors' own line goes by the same), A; a shutter's drive below this is closed, V.
UNBIASED_A, SHUTTER_CLOSED_V = 1e-6, 0.5
# The rail's monitor reads currents of the sources that nobody wrote: its own offset and the spare channel.
RAIL_EXCESS_A = 2e-3


@dataclass(frozen=True)
class Limits:
    """What may not be exceeded: degrees Celsius, A, W, K, rpm."""

    submount_max_c: float = 60.0
    object_max_c: float = 60.0
    sink_max_c: float = 68.0
    supply_max_c: float = 85.0
    rail_max_a: float = 0.2
    tec_max_a: float = 2.5
    heater_budget_w: float = 0.40
    cryostat_max_k: float = 3.2
    fan_min_rpm: float = 1000.0


@dataclass(frozen=True)
class Readings:
    """One look at the hardware. `laser_on`, `heaters_on`: as the enable lines were commanded; `written_w`, `written_a`:
    what the heaters' sources were last told, as power on the chip and as current; `bias_a`: the largest bias written.
    """

    interlock_ok: bool | None = None
    cover_closed: bool | None = None
    cryostat_ok: bool | None = None
    detectors_unbiased: bool | None = None
    cryostat_k: float | None = None
    submount_c: float | None = None
    object_c: float | None = None
    sink_c: float | None = None
    supply_c: float | None = None
    fan_rpm: float | None = None
    supply_fault: str = ""
    tec_a: float | None = None
    rail_v: float | None = None
    rail_a: float | None = None
    written_w: float = 0.0
    written_a: float = 0.0
    bias_a: float = 0.0
    diode_shutter_v: float | None = None
    laser_on: bool = False
    heaters_on: bool = False

    @property
    def heaters_w(self) -> float | None:
        """Power on the chip by the measured rail: what was written, and as heat all current that nobody wrote."""
        if self.rail_a is None or self.rail_v is None:
            return None
        return self.written_w + max(0.0, self.rail_v) * max(0.0, self.rail_a - self.written_a - RAIL_EXCESS_A)


@dataclass(frozen=True)
class Violation:
    """`interlock` names the kind, `reading` what was read. `latch`: a person has to clear it. `ends`: no output may be
    on while it lasts; else it is told only. `sudden`: one reading is enough; an analogue one has to be confirmed."""

    interlock: str
    reading: str
    why: str
    latch: bool = False
    ends: bool = True
    sudden: bool = False


def violations(r: Readings, limits: Limits) -> tuple[Violation, ...]:
    """Every interlock that is violated, the roots first."""
    return (*_contacts(r), *_temperatures(r, limits), *_currents(r, limits), *_detectors(r, limits), *_told(r, limits))


def _contacts(r: Readings) -> Iterator[Violation]:
    """The board cuts the laser for either contact. Where both are open, the cover is what to close first."""
    if r.cover_closed is False:
        said = "the cover is open" + (" and was opened while light was on" if r.laser_on else "")
        yield Violation("cover-open", "cover_closed", said, latch=r.laser_on, sudden=True)
    elif r.interlock_ok is False:
        yield Violation("interlock-open", "interlock_ok", "the interlock loop is open", sudden=True)


def _temperatures(r: Readings, limits: Limits) -> Iterator[Violation]:
    for name, what, value, limit in (
        ("submount_c", "submount", r.submount_c, limits.submount_max_c),
        ("object_c", "TEC object", r.object_c, limits.object_max_c),
        ("sink_c", "heat sink", r.sink_c, limits.sink_max_c),
        ("supply_c", "supply", r.supply_c, limits.supply_max_c),
    ):
        if _above(value, limit):
            yield Violation("over-temperature", name, f"{what} at {value:.1f} C; {limit:g} C is the limit", latch=True)


def _currents(r: Readings, limits: Limits) -> Iterator[Violation]:
    if _above(r.rail_a, limits.rail_max_a):
        assert r.rail_a is not None
        said = f"heater rail at {1e3 * r.rail_a:.0f} mA; {1e3 * limits.rail_max_a:g} mA is the limit"
        yield Violation("over-current", "rail_a", said, latch=True)
    if r.tec_a is not None and _above(abs(r.tec_a), limits.tec_max_a):
        said = f"TEC current at {r.tec_a:+.2f} A; {limits.tec_max_a:g} A is the limit"
        yield Violation("over-current", "tec_a", said, latch=True)
    if r.heaters_on and _above(r.heaters_w, limits.heater_budget_w):
        assert r.rail_a is not None
        said = (
            f"heaters take {r.heaters_w:.3f} W by the rail ({1e3 * r.rail_a:.0f} mA, {1e3 * r.written_a:.0f} mA were "
            f"written); the chip's budget is {limits.heater_budget_w:g} W"
        )
        yield Violation("heater-budget", "heaters_w", said, latch=True)


def _detectors(r: Readings, limits: Limits) -> Iterator[Violation]:
    if r.cryostat_ok is False:
        yield Violation("cryostat-warm", "cryostat_ok", "the cryostat's line says that it is not cold", sudden=True)
    elif _above(r.cryostat_k, limits.cryostat_max_k):
        said = f"the cryostat is at {r.cryostat_k:.2f} K; {limits.cryostat_max_k:g} K is the limit"
        yield Violation("cryostat-warm", "cryostat_k", said)
    shutter_open = r.diode_shutter_v is not None and r.diode_shutter_v >= SHUTTER_CLOSED_V
    if shutter_open and (r.bias_a >= UNBIASED_A or r.detectors_unbiased is False):
        said = (
            f"the diode's shutter is driven open ({r.diode_shutter_v:.1f} V) while detectors are biased "
            f"({1e6 * r.bias_a:.1f} uA); {1e6 * UNBIASED_A:g} uA is the limit"
        )
        yield Violation("diode-shutter", "diode_shutter_v", said, sudden=True)


def _told(r: Readings, limits: Limits) -> Iterator[Violation]:
    """What a person has to know and what is no reason to go dark."""
    if r.supply_fault:
        yield Violation("supply-fault", "supply_fault", f"the supply reports {r.supply_fault}", ends=False)
    if r.fan_rpm is not None and r.fan_rpm < limits.fan_min_rpm:
        said = f"fan at {r.fan_rpm:.0f} rpm; {limits.fan_min_rpm:g} rpm is the least"
        yield Violation("fan-failed", "fan_rpm", said, ends=False)


def _above(value: float | None, limit: float) -> bool:
    """A reading that is not a number is above every limit: nothing is known of what it stands for."""
    return value is not None and not (math.isfinite(value) and value <= limit)
