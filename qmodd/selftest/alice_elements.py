"""The transmitter's elements one by one, in her own light: half periods, extinctions, losses, noise, lag, fringe.

Comes after the sweeps and the search for exchanged cables; leaves every element where most light passes, the shutter
crossed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import nan, pi

import numpy as np

from calibration.fit import Array
from calibration.procedures.laser import LIVE_A
from calibration.procedures.light import shine
from drivers.roles import LaserReading, LightMode
from qmodd.selftest import alice_optics
from qmodd.selftest.alice_chain import FLOOR_A, HEATER_NAMES, MODULATORS, VOLTS, Chain, beside
from qmodd.selftest.alice_drives import attenuator_findings, drive_findings
from qmodd.selftest.alice_optics import Curve, curve, ratio
from qmodd.selftest.alice_tones import tone_findings
from qmodd.selftest.heater_checks import cables_of
from qmodd.selftest.model import Finding, Limits, skipped

# (element, photodiode behind it, photodiode before it, least visibility of its curve)
HEATED = (("filter", "pa0", "pa6", 0.5), ("split", "pa1", "pa0", 0.04), ("shutter", "pa4", "pa3", 0.5))
BIASED = (("carver", "pa1", "pa0", 0.5), ("state", "pa3", "pa1", 0.5), ("decoy", "pa3", "pa1", 0.5))
# The shutter's photodiode takes all of the light: with the carver this far closed its amplifier stays below its rail.
DIM = 0.05
WATCH_READS, WATCH_STEP_S = 56, 0.053
NOISE = Limits(high=0.01, warn_high=0.006)
# Heaters follow within 60 us: what is still missing after 2 ms, as a share of the step.
LAG_S, LATER_S = 0.002, 0.06
LAG = Limits(high=0.08)


async def element_findings(chain: Chain, reading: LaserReading) -> list[Finding]:
    """About 6 s. Raises drivers.errors.DriverError."""
    found: list[Finding] = []
    curves: dict[str, Curve] = {}
    for name, after, before, least in BIASED:
        curves[name] = _curve(chain, name, after, before, alice_optics.V_PI_SEARCH_V, least)
        found.append(_half_period(chain, name, curves[name], after))
        chain.null[name] = _or(alice_optics.null_of(curves[name], VOLTS[-1]), 0.0)
        chain.peak[name] = _or(alice_optics.peak_of(curves[name], VOLTS[-1]), chain.base[chain.act[name]])
        await chain.element(name, chain.peak[name])
    for name, after, before, least in HEATED[:2]:
        curves[name] = _curve(chain, name, after, before, alice_optics.P_PI_SEARCH_W, least)
        found.append(_half_period(chain, name, curves[name], after))
    await _set_power(chain, "filter", curves["filter"], 0.0)
    found += await _extinctions(chain, curves)
    found += await _shutter(chain, curves)
    found.append(alice_optics.long_arm(curves["split"], ("heater split", *chain.upstream("pa1"))))
    found += await _losses(chain, reading, curves["split"])
    found += await _watch(chain)
    found += await _lag(chain, curves)
    found += await _phase(chain, curves)
    if all(c.fringe for n, c in curves.items() if n in MODULATORS):
        found += await drive_findings(chain)
        if (bar := alice_optics.power_for(curves["shutter"], pi, await chain.top("shutter"))) is not None:
            v_pi = curves["carver"].fringe.x_pi if curves["carver"].fringe else nan
            found += await attenuator_findings(chain, v_pi, bar)
        # Tones open the shutter.
        found += [] if chain.leaky else await tone_findings(chain, curves)
    _figures(chain, curves)
    return found


def _or(value: float | None, other: float) -> float:
    return other if value is None else value


def _curve(
    chain: Chain,
    name: str,
    after: str,
    before: str,
    search: tuple[float, float],
    least: float,
    residual_max: float = 0.1,
) -> Curve:
    sweep = chain.sweeps[chain.act[name]]
    return curve(sweep.x, ratio(sweep, chain.see[after], chain.see[before]), search, least, residual_max)


def _half_period(chain: Chain, name: str, found: Curve, after: str) -> Finding:
    needs = chain.upstream(after)
    if name in MODULATORS:
        part, limits, unit = f"modulator {name}", alice_optics.V_PI_V, "V"
        own = cables_of("modulator", name, MODULATORS)
    else:
        limits = alice_optics.P_PI_PHASE_W if name == "phase" else alice_optics.P_PI_W
        part, unit, own = f"heater {name}", "W", cables_of("heater", name, HEATER_NAMES)
        needs = (*needs, *_temperature(chain)) if name == "phase" else needs
    kind = "v_pi" if name in MODULATORS else "p_pi"
    return alice_optics.half_period(f"{kind}.{name}", found, limits, unit, part, _others(part, needs, own))


def _temperature(chain: Chain) -> tuple[str, ...]:
    """What the AMZI's phase stands still by."""
    return ("thermistor", "peltier", chain.bench.part("tec"))


def _others(part: str, needs: Sequence[str], own: Sequence[str] = ()) -> tuple[str, ...]:
    """What comes before a part; state and decoy modulator do not explain one another."""
    two = {"modulator state", "modulator decoy"}
    return tuple(n for n in (*needs, *own) if n != part and not (part in two and n in two))


async def _set_power(chain: Chain, name: str, found: Curve, phase: float) -> None:
    watts = alice_optics.power_for(found, phase, await chain.top(name))
    if watts is not None:
        await chain.element(name, watts)


async def _extinctions(chain: Chain, curves: dict[str, Curve]) -> list[Finding]:
    """Each modulator from its peak to the bottom of a parabola through three settings about its null."""
    out = []
    for name, after, before, _ in BIASED:
        part = f"modulator {name}"
        needs = _others(part, chain.upstream(after), cables_of("modulator", name, MODULATORS))
        if curves[name].fringe is None:
            out.append(skipped(f"extinction.{name}", part, "no curve", needs))
            continue
        step, y = 0.05, []
        most = _ratio_of(await chain.settled(64), chain.see[after], chain.see[before])
        x = chain.null[name] + step * np.array([-1.0, 0.0, 1.0])
        for v in x:
            await chain.element(name, float(v))
            y.append(_ratio_of(await chain.settled(64), chain.see[after], chain.see[before]))
        c2, c1, _ = np.polyfit(x - chain.null[name], y, 2)
        shift = float(np.clip(-c1 / (2.0 * c2), -4.0 * step, 4.0 * step)) if c2 > 0.0 else 0.0
        chain.null[name] += shift
        await chain.element(name, chain.null[name])
        least = _ratio_of(await chain.settled(64), chain.see[after], chain.see[before])
        await chain.element(name, chain.peak[name])
        await chain.bench.context.settle()
        out.append(alice_optics.extinction(f"extinction.{name}", name, least, most, part, needs))
    return out


def _ratio_of(seen: dict[str, float], over: str, under: str) -> float:
    return max(seen[over], 1e-14) / max(seen[under], FLOOR_A)


async def _shutter(chain: Chain, curves: dict[str, Curve]) -> list[Finding]:
    """With the light dimmed by the carver; the shutter is crossed, dark to the outside, afterwards."""
    v_pi = curves["carver"].fringe.x_pi if curves["carver"].fringe else 4.0
    await chain.element("carver", chain.dimmed("carver", v_pi, DIM))
    await chain.record(chain.act["shutter"])
    curves["shutter"] = found = _curve(chain, "shutter", "pa4", "pa3", alice_optics.P_PI_SEARCH_W, 0.5)
    out = [_half_period(chain, "shutter", found, "pa4")]
    needs = _others("heater shutter", chain.upstream("pa4"), cables_of("heater", "shutter", HEATER_NAMES))
    seen = []
    for phase in (pi, 0.0):
        await _set_power(chain, "shutter", found, phase)
        seen.append(_ratio_of(await chain.settled(64), chain.see["pa4"], chain.see["pa3"]))
    if found.fringe is not None:
        out.append(alice_optics.extinction("extinction.shutter", "shutter", seen[0], seen[1], "heater shutter", needs))
    await chain.element("carver", chain.peak["carver"])
    return out


async def _losses(chain: Chain, reading: LaserReading, split: Curve) -> list[Finding]:
    """At the brightest of everything; the shutter's photodiode with the carver dimmed as before."""
    seen = await chain.settled(128)
    watts = {d: chain.watts(seen, chain.see[d], d) for d in ("pa6", "pa0", "pa1", "pa3")}
    # The coupler may be anywhere: what its best setting gives is the design's 3 dB.
    if split.fringe is not None:
        here = _ratio_of(seen, chain.see["pa1"], chain.see["pa0"])
        best = split.fringe.offset * (1.0 + split.fringe.visibility) / here
        watts["pa1"] *= best
        watts["pa3"] *= best
    dim = await _dimmed(chain)
    watts["pa4"] = watts["pa3"] * chain.watts(dim, chain.see["pa4"], "pa4") / chain.watts(dim, chain.see["pa3"], "pa3")

    def needs(section: str) -> tuple[str, ...]:
        before, after, *_ = alice_optics.SECTIONS[section]
        elements = {
            "laser": ("laser",),
            "filter": ("heater filter",),
            "amzi_input": ("modulator carver",),
            "state": ("modulator state", "modulator decoy"),
            "shutter": ("heater shutter",),
        }
        cables = [c for d in (before, after) if d in chain.diodes for c in cables_of("photodiode", d, chain.diodes)]
        up = [p for p in chain.upstream(after) if not p.startswith(("path", "photodiode"))] if after else []
        dead = [f"photodiode {d}" for d in (before, after) if d in chain.diodes]
        return tuple(dict.fromkeys((*elements[section], *cables, *up, *dead)))

    return [_without_itself(f) for f in alice_optics.losses(reading.power_dbm, watts, needs)]


def _without_itself(f: Finding) -> Finding:
    return replace(f, needs=tuple(n for n in f.needs if n != f.part))


async def _dimmed(chain: Chain) -> dict[str, float]:
    volts = chain.base[chain.act["carver"]]
    fringe_v = abs(chain.peak["carver"] - chain.null["carver"])
    await chain.element("carver", chain.dimmed("carver", fringe_v, DIM))
    seen = await chain.settled(128)
    await chain.element("carver", volts)
    await chain.bench.context.settle()
    return seen


async def _watch(chain: Chain) -> list[Finding]:
    """Three seconds of steady light."""
    rows = []
    for _ in range(WATCH_READS):
        rows.append(await chain.read(1))
        await chain.bench.sleep(WATCH_STEP_S)
    parts = {
        "pa6": chain.bench.part("laser"),
        "pa0": "heater filter",
        "pa1": "modulator carver",
        "pa3": "modulator state",
    }
    lit = {d: p for d, p in parts.items() if np.median([r[chain.see[d]] for r in rows]) > LIVE_A}
    renamed = [{d: r[chain.see[d]] for d in lit} for r in rows]
    needs = (chain.bench.part("adc"), chain.bench.part("biases"), chain.bench.part("heaters"))
    return alice_optics.steadiness(renamed, NOISE, lit, needs)


async def _lag(chain: Chain, curves: dict[str, Curve]) -> list[Finding]:
    """Filter heater from its peak to half of the light: what has not followed after 2 ms."""
    out = []
    for name, after, before in (("filter", "pa0", "pa6"),):
        fringe = curves[name].fringe
        part = f"heater {name}"
        home = chain.base[chain.act[name]]
        needs = _others(part, chain.upstream(after), cables_of("heater", name, HEATER_NAMES))
        if fringe is None:
            out.append(skipped(f"lag.{name}", part, "no curve", needs))
            continue
        start = _ratio_of(await chain.settled(64), chain.see[after], chain.see[before])
        await chain.write(chain.act[name], beside(home, 0.5 * fringe.x_pi, await chain.top(name)))
        await chain.bench.sleep(LAG_S)
        soon = _ratio_of(await chain.read(8), chain.see[after], chain.see[before])
        await chain.bench.sleep(LATER_S)
        later = _ratio_of(await chain.read(64), chain.see[after], chain.see[before])
        await chain.element(name, home)
        await chain.bench.sleep(LATER_S)
        left = abs(soon - later) / max(abs(start - later), 1e-12)
        out.append(Finding(f"lag.{name}", left, "1", LAG, part, needs, "follows its power too slowly"))
    return out


async def _phase(chain: Chain, curves: dict[str, Curve]) -> list[Finding]:
    """Unmodulated light interferes in the AMZI: its phase heater by the fringe at the second output."""
    # Both arms alike, else there is little to see.
    await _set_power(chain, "split", curves["split"], pi / 2.0)
    await shine(chain.bench.context, LightMode.CW)
    # Settled, the die's warming is proportional to the power and only makes the half period look shorter.
    await chain.record(chain.act["phase"], chain.bench.context.settings.die_settle_s)
    await shine(chain.bench.context, LightMode.NULL)
    # The temperature loop answers every step within seconds: up to some 10 degrees that the sinusoid does not have.
    curves["phase"] = found = _curve(chain, "phase", "pa1", "pa0", alice_optics.P_PI_SEARCH_W, 0.1, 0.25)
    visibility = found.fringe.visibility if found.fringe else nan
    return [
        _half_period(chain, "phase", found, "pa1"),
        Finding(
            "fringe",
            visibility,
            "1",
            Limits(low=0.1, high=1.05),
            "path amzi",
            ("heater phase", "heater split", *_temperature(chain), *chain.upstream("pa1")),
            found.why or "contrast of the AMZI at its second output",
        ),
    ]


def _figures(chain: Chain, curves: dict[str, Curve]) -> None:
    def drawn(names: Sequence[tuple[str, str, str, float]]) -> dict[str, tuple[Array, Array, Curve]]:
        out = {}
        for name, after, before, _ in names:
            sweep = chain.sweeps[chain.act[name]]
            out[name] = (sweep.x, ratio(sweep, chain.see[after], chain.see[before]), curves[name])
        return out

    phase = ("phase", "pa1", "pa0", 0.0)
    figures = chain.bench.figures
    figures["modulators"] = alice_optics.figure("Modulators against their bias", "bias (V)", 1.0, drawn(BIASED))
    heated = drawn((*HEATED, phase))
    figures["phase_heaters"] = alice_optics.figure("Light against the heaters", "heater power (mW)", 1e3, heated)
