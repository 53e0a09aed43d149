"""Heaters without light: I-V of every channel, what its neighbours and the supply see of it, and whether it lasts.

A current source and the heater behind it are told apart by the supply: what the source gives it takes from the rail,
whatever it is connected to (reference control B1, pair A6.1, A7).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from calibration.broken import heater_volts
from calibration.context import CalibrationContext
from calibration.fit import Array, FitRefused, Resistance, fit_resistance
from calibration.plot import Plot, Series
from calibration.procedures.heater_iv import SAMPLES, SHARES, heaters_of
from qmodd.selftest.bench import Bench
from qmodd.selftest.model import Finding, Limits, Verdict

# Resistances found by a light-off level, for what comes after it: dict[str, Resistance].
NOTE = "heater_resistances"
# R0 is 90 ohm +-6 % and grows by 0.1 % ln(1 + t/100 h): 0.8 % in 25 years (pair A7); 1 % for the monitor's divider.
R0_OHM = Limits.around(90.0, 90.0 * 0.085, 90.0 * 0.070)
RHO_PER_W = Limits.around(0.9, 0.25)
# Against a record: ageing since then, and what both readings are uncertain by.
AGEING, AGEING_S = 1e-3, 360_000.0
RECORD_SIGMAS, RECORD_LEAST = 6.0, 2e-3
# What the supply shows over what was set: monitor and source are good to 1 % each.
GIVEN = Limits.around(1.0, 0.03)
RAIL_A = Limits(0.002, 0.007)
BLIND = 0.2
# With nothing set neither voltage nor current flows; offsets of source and monitor are below this.
REST_V = Limits(high=0.05)
# All heaters at once, at a current at which the whole is below half of the rail's range.
HOLD_A = 0.012
HOLD_READS, HOLD_STEP_S = 84, 0.023
STEADY = Limits(high=0.015)
# A source that meets no heater goes to its compliance, 3.75 V of 4.0 V.
COMPLIANCE_V = 3.68


@dataclass
class Seen:
    """What one channel showed. `volts` at `amperes` ascending; `drawn_a`: rail current at the last, less idle; `rest_v`
    with nothing set; `elsewhere_v`: by other channel, its voltage while only this one is driven; `held`: V, flags."""

    channel: str
    amperes: Array
    volts: Array
    drawn_a: float
    flagged: bool
    rest_v: float = 0.0
    elsewhere_v: dict[str, float] = field(default_factory=dict)
    held_v: list[float] = field(default_factory=list)
    dropped: int = 0

    @property
    def given(self) -> float:
        """Current that the supply saw over the current that was set."""
        return self.drawn_a / float(self.amperes[-1])

    @property
    def ohm(self) -> float:
        return float(self.volts[-1] / self.amperes[-1])

    def resistance(self) -> Resistance:
        """Raises FitRefused."""
        return fit_resistance(self.amperes, self.volts, np.maximum(2e-3 * self.volts, 1e-4))


async def heater_findings(bench: Bench) -> list[Finding]:
    """I-V, quiescent current, neighbours and two seconds of patience; all currents are as found afterwards."""
    context = bench.context
    channels = heaters_of(context)
    before = {c: context.heaters.current(c) for c in channels}
    try:
        await _all(context, channels, 0.0)
        await context.sleep(context.settings.rail_settle_s)
        idle_a = (await context.rail.read()).current_a
        rest = {c: await _voltage(context, c) for c in channels}
        seen = [await _sweep(context, c, channels, idle_a) for c in channels]
        for s in seen:
            s.rest_v = rest[s.channel]
        await _hold(context, seen)
    finally:
        await context.heaters.monitor(None)
        for c, amperes in before.items():
            await context.heaters.set_current(c, amperes)
    bench.notes[NOTE] = fits = _fits(seen)
    _figure(bench, seen)
    return [*_supply(bench, seen, idle_a), *(f for s in seen for f in _findings(bench, s, seen, fits))]


async def resistances(bench: Bench) -> dict[str, Resistance]:
    """R(P) by channel: from this run's light-off level, else from the record, else measured now. A channel without a
    sound I-V is missing."""
    if NOTE not in bench.notes:
        record = bench.context.store.active("heater_iv")
        if record is None:
            await heater_findings(bench)
        else:
            names = [n.removesuffix("_r0_ohm") for n in record.value if n.endswith("_r0_ohm")]
            bench.notes[NOTE] = {n: bench.context.drive.resistance(n) for n in names}
    found: dict[str, Resistance] = bench.notes[NOTE]
    return found


def nominal() -> Resistance:
    """What a heater is designed to be, for one whose I-V is broken."""
    return Resistance(90.0, 0.9, np.zeros((2, 2)), 0.0)


async def set_power(bench: Bench, channel: str, watts: float) -> None:
    """By this run's resistances. Raises drivers.errors.OutOfRange."""
    law = (await resistances(bench)).get(channel, nominal())
    await bench.context.heaters.set_current(channel, law.current(watts))


def cables(kind: str, a: str, b: str) -> str:
    """Name of the part that two exchanged cables are."""
    return f"cables of {kind} {a} and {kind} {b}"


def cables_of(kind: str, one: str, every: Sequence[str]) -> tuple[str, ...]:
    """All pairs of cables that `one` may be exchanged in, in the order of `every`."""
    at = every.index(one)
    return tuple(cables(kind, *sorted((one, o), key=every.index)) for i, o in enumerate(every) if i != at)


# ---------------------------------------------------------------- readings


async def _all(context: CalibrationContext, channels: Sequence[str], amperes: float) -> None:
    for c in channels:
        await context.heaters.set_current(c, amperes)


async def _voltage(context: CalibrationContext, channel: str, samples: int = 8) -> float:
    await context.heaters.monitor(channel)
    await context.settle()
    return await heater_volts(context, samples)


async def _sweep(context: CalibrationContext, channel: str, channels: Sequence[str], idle_a: float) -> Seen:
    top = min(context.heaters.max_current_a, (context.settings.heater_max_power_w / 100.0) ** 0.5)
    amperes, volts = np.array(SHARES) * top, np.zeros(len(SHARES))
    await context.heaters.monitor(channel)
    try:
        for k, a in enumerate(amperes):
            await context.heaters.set_current(channel, float(a))
            await context.settle()
            volts[k] = await heater_volts(context, SAMPLES)
        await context.sleep(context.settings.rail_settle_s)
        drawn = (await context.rail.read()).current_a - idle_a
        flagged = channel in await context.heaters.open_circuits()
        elsewhere = {c: await _voltage(context, c) for c in channels if c != channel}
    finally:
        await context.heaters.set_current(channel, 0.0)
    await context.sleep(context.settings.rail_settle_s)
    return Seen(channel, amperes, volts, drawn, flagged, elsewhere_v=elsewhere)


async def _hold(context: CalibrationContext, seen: Sequence[Seen]) -> None:
    """All at one current; voltages in turn, flags every time: what comes and goes is caught in the act."""
    await _all(context, [s.channel for s in seen], HOLD_A)
    await context.settle()
    for k in range(HOLD_READS):
        s = seen[k % len(seen)]
        s.held_v.append(await _voltage(context, s.channel, 4))
        flags = await context.heaters.open_circuits()
        for other in seen:
            other.dropped += other.channel in flags
        await context.sleep(HOLD_STEP_S)


def _fits(seen: Sequence[Seen]) -> dict[str, Resistance]:
    out = {}
    for s in seen:
        try:
            found = s.resistance()
        except FitRefused:
            continue
        if R0_OHM.low / 2.0 < found.r0_ohm < 2.0 * R0_OHM.high and abs(found.rho_per_w) < 3.0:
            out[s.channel] = found
    return out


# ---------------------------------------------------------------- findings


def _supply(bench: Bench, seen: Sequence[Seen], idle_a: float) -> list[Finding]:
    """Of the rail and of all sources together: what every channel shares is no channel's fault."""
    rail, dac = bench.part("rail"), bench.part("heaters")
    # Noise and offset of one source are in every difference of rail currents.
    needs = (bench.bus("rail"), "supply", bench.part("platform"), dac)
    # A source that gives what nobody asked for is seen by its heater's voltage; the supply is then not to blame.
    stuck = sum(s.rest_v / 90.0 for s in seen if s.rest_v > REST_V.high)
    given = float(np.median([s.given for s in seen]))
    ohm = float(np.median([s.ohm for s in seen if math.isfinite(s.ohm)]))
    # 90 ohm by voltage over set current: the sources are off as well; else only the supply's monitor is.
    # Neither voltage nor current anywhere is a rail that is off.
    sources = ohm > 10.0 and GIVEN.judge(given) is Verdict.FAILED and abs(ohm / 98.0 - given) < abs(ohm / 98.0 - 1.0)
    hint = "all channels alike: " + ("the current sources' scale" if sources else "the supply monitor's scale")
    return [
        Finding("rail_quiescent", idle_a - stuck, "A", RAIL_A, rail, needs, "current of the heater rail, nothing set"),
        Finding("rail_given", given, "1", GIVEN, dac if sources else rail, needs[: 3 if sources else 4], hint),
    ]


def _findings(bench: Bench, s: Seen, seen: Sequence[Seen], fits: dict[str, Resistance]) -> list[Finding]:
    heater, dac, rail = f"heater {s.channel}", bench.part("heaters"), bench.part("rail")
    common = (bench.bus("heaters"), bench.part("adc"), bench.bus("adc"), "supply", bench.part("platform"))
    typical = float(np.median([o.given for o in seen]))
    # With a supply monitor that sees nothing at all there is no telling what a source gives.
    given = s.given / typical if typical > BLIND else 1.0
    source_off = GIVEN.judge(given) is Verdict.FAILED or REST_V.judge(s.rest_v) is Verdict.FAILED
    broken = s.flagged or s.volts[-1] >= COMPLIANCE_V
    law, why = fits.get(s.channel), _what(s, broken)
    given_part = heater if broken else dac
    needs = (*common, dac, rail) if source_off and not broken else common
    found = [
        Finding(
            f"heater_resistance.{s.channel}",
            law.r0_ohm if law else s.ohm,
            "ohm",
            R0_OHM,
            heater,
            needs,
            why,
            sigma=math.sqrt(float(law.covariance[0, 0])) if law else 0.0,
        ),
        Finding(f"heater_given.{s.channel}", given, "1", GIVEN, given_part, (*common, rail), why),
        Finding(f"heater_rest.{s.channel}", s.rest_v, "V", REST_V, dac, common, "voltage with nothing set: " + why),
        Finding(
            f"heater_elsewhere.{s.channel}",
            max((v - o.rest_v for o in seen for c, v in s.elsewhere_v.items() if c == o.channel), default=0.0),
            "V",
            REST_V,
            dac,
            (*common, heater),
            "another channel shows a voltage while only this one is driven",
        ),
        _steady(bench, s, common),
    ]
    if law is not None:
        found.append(Finding(f"heater_rho.{s.channel}", law.rho_per_w, "1/W", RHO_PER_W, heater, (*needs, dac), why))
        found += _against_record(bench, s.channel, law, needs)
    return found


def _what(s: Seen, broken: bool) -> str:
    at = f"{s.volts[-1]:.2f} V at {1e3 * s.amperes[-1]:.1f} mA set, the supply gives {1e3 * s.drawn_a:.1f} mA"
    if s.rest_v > REST_V.high:
        return f"its source gives current that nobody asked for; {at}"
    if broken:
        return f"open; {at}"
    if s.ohm < R0_OHM.low / 2.0:
        return f"shorted, or the monitor does not follow; {at}"
    return at


def _steady(bench: Bench, s: Seen, common: tuple[str, ...]) -> Finding:
    """Largest deviation of the held voltage from its median; a voltage at the compliance or a flag is a broken wire,
    anything smaller is the source."""
    v = np.array(s.held_v)
    middle = float(np.median(v))
    off = float(np.max(np.abs(v - middle))) / max(middle, 1e-3)
    wire = s.dropped > 0 or float(v.max()) >= COMPLIANCE_V
    if wire:
        off = max(off, 1.0)
    dac = bench.part("heaters")
    hint = f"comes and goes: open in {s.dropped} of {HOLD_READS} looks" if wire else "its current is not steady"
    part = f"heater {s.channel}" if wire else dac
    return Finding(f"heater_steady.{s.channel}", off, "1", STEADY, part, common, hint)


def _against_record(bench: Bench, channel: str, law: Resistance, needs: tuple[str, ...]) -> list[Finding]:
    record = bench.context.store.active("heater_iv")
    if record is None or f"{channel}_r0_ohm" not in record.value:
        return []
    name = f"{channel}_r0_ohm"
    age_s = max(0.0, (bench.clock.utc() - record.created).total_seconds())
    sigma = math.hypot(record.sigma(name), math.sqrt(float(law.covariance[0, 0]))) / record.value[name]
    room = RECORD_LEAST + RECORD_SIGMAS * sigma
    limits = Limits(-room, room + AGEING * math.log1p(age_s / AGEING_S))
    drift = law.r0_ohm / record.value[name] - 1.0
    hint = f"{law.r0_ohm:.2f} ohm, {record.value[name]:.2f} ohm in its record of {record.created:%Y-%m-%d}"
    return [Finding(f"heater_drift.{channel}", drift, "1", limits, f"heater {channel}", needs, hint, sigma=sigma)]


def _figure(bench: Bench, seen: Sequence[Seen]) -> None:
    series = [Series(s.channel, (1e3 * s.amperes).tolist(), s.volts.tolist()) for s in seen]
    bench.figures["heater_iv"] = Plot("I-V of the heaters", "current set (mA)", "voltage (V)", series)
