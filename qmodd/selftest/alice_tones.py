"""Pilot tones of a transmitter: every heater and modulator a little about the middle of its slope, all at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial
from math import log, pi

from calibration.procedures.light import shine
from drivers.roles import LightMode
from qmodd.selftest.alice_chain import FLOOR_A, HEATER_NAMES, MODULATORS, Chain, beside
from qmodd.selftest.alice_optics import Curve, power_for
from qmodd.selftest.heater_checks import cables_of
from qmodd.selftest.model import Finding, Limits
from qmodd.selftest.tones import SIGNIFICANT, Actuator, Response, sound

Read = Callable[[], Awaitable[Mapping[str, float]]]

# About 0.08 rad on a design's element.
HEATER_W, BIAS_V = 1.0e-3, 0.1
# Photodiode behind each element over the one before it: what only this element changes.
OWN = {
    "filter": ("pa0", "pa6"),
    "split": ("pa1", "pa0"),
    "phase": ("pa1", "pa0"),
    "shutter": ("pa4", "pa3"),
    "carver": ("pa1", "pa0"),
    "state": ("pa3", "pa1"),
    "decoy": ("pa3", "pa1"),
}
# At half of its light an element changes ln of it by its phase: what is seen over what the half period says.
EXPECTED = Limits(0.45, 1.8)
PROVEN = Limits(low=SIGNIFICANT)
# Neighbours are 2 to 4 % (pair A6.2), as phases.
CROSSTALK = Limits(high=0.10)


async def tone_findings(chain: Chain, curves: Mapping[str, Curve]) -> list[Finding]:
    """Half a second. Proves every control path that has a photodiode; the matrix goes into the report."""
    actuators = await _actuators(chain, curves)
    pairs = sorted({OWN[a.name] for a in actuators})

    async def read() -> Mapping[str, float]:
        seen = await chain.read(8)
        ln = {d: log(max(seen[chain.see[d]], FLOOR_A)) for d in ("pa6", "pa0", "pa1", "pa3", "pa4")}
        return {"pa6": ln["pa6"]} | {f"{a}/{b}": ln[a] - ln[b] for a, b in pairs}

    home = dict(chain.base)
    try:
        response = await sound(chain.bench, actuators, read)
        phase = await _phase(chain, [a for a in actuators if a.name == "phase"], curves["phase"], read)
    finally:
        await shine(chain.bench.context, LightMode.NULL)
        for name, x in home.items():
            await chain.put(name, x)
    chain.bench.figures["tones"] = response.figure("Response of the photodiodes to tones", "ln of the light")
    return [*_proofs(chain, response, curves), *phase, *_crosstalk(chain, response)]


async def _phase(chain: Chain, alone: list[Actuator], found: Curve, read: Read) -> list[Finding]:
    """The AMZI's phase shows in light that interferes only. The chip is as warm as the other heaters make it, so where
    on its fringe it is nobody knows: of two settings 90 degrees apart one is on a slope."""
    if not alone or found.fringe is None:
        return []
    await shine(chain.bench.context, LightMode.CW)
    most, home = 0.0, alone[0].base
    top = await chain.top("phase") - HEATER_W
    for base in (home, beside(home, 0.5 * found.fringe.x_pi, top)):
        await alone[0].write(base)
        await chain.bench.sleep(chain.bench.context.settings.die_settle_s)
        seen = await sound(chain.bench, [replace(alone[0], base=base)], read)
        gain, sigma = seen.of("phase", "pa1/pa0")
        most = max(most, abs(gain) / max(sigma, 1e-12))
    return [_proven(chain, "phase", most)]


async def _actuators(chain: Chain, curves: Mapping[str, Curve]) -> list[Actuator]:
    """At half of their light; the AMZI's coupler and phase where they are."""
    out = []
    for name in (*HEATER_NAMES, *MODULATORS):
        fringe = curves[name].fringe
        if fringe is None:
            continue
        write: Callable[[float], Awaitable[None]] = partial(chain.write, chain.act[name])
        if name in MODULATORS:
            base, amplitude, unit, kind = chain.dimmed(name, fringe.x_pi, 0.5), BIAS_V, "V", "modulator"
        else:
            base = _slope(chain, name, curves[name], await chain.top(name))
            amplitude, unit, kind = HEATER_W, "W", "heater"
        out.append(Actuator(name, f"{kind} {name}", write, base, amplitude, unit))
    return out


def _slope(chain: Chain, name: str, found: Curve, top: float) -> float:
    """The least power at which the light is half."""
    options = [power_for(found, phase, top) for phase in (pi / 2.0, -pi / 2.0)]
    usable = [w for w in options if w is not None and HEATER_W <= w <= top - HEATER_W]
    home = chain.base.get(chain.act[name], 0.0)
    return min(usable, default=min(max(home, HEATER_W), top - HEATER_W))


def _proofs(chain: Chain, response: Response, curves: Mapping[str, Curve]) -> list[Finding]:
    out = []
    for name in response.actuators:
        after, before = OWN[name]
        gain, sigma = response.of(name, f"{after}/{before}")
        fringe = curves[name].fringe
        assert fringe is not None
        kind, every = ("modulator", MODULATORS) if name in MODULATORS else ("heater", HEATER_NAMES)
        part = f"{kind} {name}"
        needs = tuple(n for n in (*chain.upstream(after), *cables_of(kind, name, every)) if n != part)
        if name == "split":
            out.append(_proven(chain, name, abs(gain) / max(sigma, 1e-12)))
        if name in ("split", "phase"):
            continue
        amplitude = BIAS_V if kind == "modulator" else HEATER_W
        seen = abs(gain) / (pi * amplitude / fringe.x_pi)
        hint = "response to its tone over what its half period gives"
        out.append(Finding(f"tone.{name}", seen, "1", EXPECTED, part, needs, hint, sigma=sigma))
    return out


def _proven(chain: Chain, name: str, z: float) -> Finding:
    part = f"heater {name}"
    # The AMZI is as steady as its temperature.
    held = ("thermistor", "peltier", chain.bench.part("tec"))
    needs = (*chain.upstream("pa1"), *cables_of("heater", name, HEATER_NAMES), *held)
    return Finding(f"tone.{name}", z, "1", PROVEN, part, needs, "standard uncertainties by which its tone is seen")


def _crosstalk(chain: Chain, response: Response) -> list[Finding]:
    """Largest response of filter and shutter to a neighbour's heater over that to their own."""
    out = []
    for name in ("filter", "shutter"):
        others = [h for h in HEATER_NAMES if h in response.actuators and h != name]
        if name not in response.actuators or not others:
            continue
        monitor = "/".join(OWN[name])
        own, _ = response.of(name, monitor)
        most = max(others, key=lambda h: abs(response.of(h, monitor)[0]))
        value = abs(response.of(most, monitor)[0]) / max(abs(own), 1e-12)
        needs = (f"heater {most}", *chain.upstream(OWN[name][0]))
        needs = tuple(n for n in needs if n != f"heater {name}")
        hint = f"most from heater {most}"
        out.append(Finding(f"crosstalk.{name}", value, "1", CROSSTALK, f"heater {name}", needs, hint))
    return out
