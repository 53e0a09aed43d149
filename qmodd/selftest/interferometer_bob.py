"""The receiver's four heaters by the photodiodes, in the self-test diode's light, and what each path loses.

In this order nothing needs to be known beforehand and no step depends on the interferometer's phase before its turn
(reference pair A3, A4; light by the Z arm is cos^2(b/2), in the X arm by the short and the long way

    S^2 = cos^2(s/2),  G^2 = l sin^2(s/2),  pb2 +- pb3:  S^2 + G^2,  cos c (S^2 - G^2) - 2 v S G sin c cos(p)

of the light in that arm, where b, s, p, c are the phases of basis, split, phase and combine):
  basis    pb1 is a whole fringe; then all light goes into the X arm
  combine  what pb2 loses pb3 gains: what one of the two reads less than the other
  split    pb2 + pb3 are a small fringe, whose contrast is the long arm's loss; then all light goes by the short way
  combine  pb2 of both is a whole fringe, whatever the phase; then 50:50, and the arms balanced
  phase    the fringe of the interferometer
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from calibration.fit import PI, Array, FitRefused, Fringe, fit_fringe
from calibration.plot import Plot, Series
from calibration.receiver_optics import balanced_rad
from qmodd.selftest.bench import Bench
from qmodd.selftest.diode import PART, SHUTTER_PART, has_diode, lit
from qmodd.selftest.heater_checks import resistances
from qmodd.selftest.light_on_bob import DARK, NO_DIODE
from qmodd.selftest.model import Check, Finding, Level, Limits, skipped
from qmodd.selftest.receiver import (
    DIE_S,
    DIODES,
    RECEIVER_HEATERS,
    WARM_S,
    Heater,
    currents,
    outputs_kept,
    swept,
    watts,
)

# By name in `Bench.notes`: what `heaters` found, for the detectors' turn.
POINTS = "receiver_points"
# P_pi of the population, W: 40 mW +- 8 %, cut at 3 sigma (pair A7), +-6 % where the resistance is not known.
P_PI_W = Limits(0.028, 0.053)
SEARCH_W = (0.022, 0.075)
LEAST = {"basis": 0.8, "split": 0.04, "combine": 0.7, "phase": 0.4}
# What another heater may show in its place: the long arm's loss makes no deeper a fringe of the sum.
MOST = {"split": 0.35}
LONG_DB = Limits(0.5, 2.1)
VISIBILITY, EXTINCTION = Limits(low=0.88, warn_low=0.92), Limits(low=0.97)


@dataclass
class Points:
    """Fringes by heater (of pb1; of the sum; of pb2's share; of pb2's share), watts of the light in front of the basis
    splitter by arm, and the long arm's transmission."""

    fringes: dict[str, Fringe] = field(default_factory=dict)
    z_w: float = math.nan
    x_w: float = math.nan
    entry_w: float = math.nan
    long: float = math.nan
    pb3_over_pb2: float = 1.0

    def power(self, bench: Bench, channel: str, target_rad: float) -> float:
        """Least watts at which a heater's phase is the target's, or as near as it gets."""
        fringe, most = self.fringes[channel], Heater(bench, channel).most_w
        roots = fringe.roots(target_rad, 0.0, most)
        if roots:
            return roots[0]
        miss = {w: abs(math.remainder(fringe.phase(w) - target_rad, 2.0 * PI)) for w in (0.0, most)}
        return min(miss, key=lambda w: miss[w])


class _Exchanged(Exception):
    """Photodiodes on one another's cables: nothing more can be told."""


async def heaters(bench: Bench) -> Sequence[Finding]:
    """P_pi, extinction and balance of basis, split, combine and phase, the interferometer's visibility, and the loss of
    its long arm."""
    if not has_diode(bench):
        return [skipped(f"p_pi.{h}", f"heater {h}", NO_DIODE) for h in RECEIVER_HEATERS]
    points = Points()
    found: list[Finding] = []
    async with outputs_kept(bench), lit(bench):
        await resistances(bench)
        for channel in RECEIVER_HEATERS:
            await Heater(bench, channel).set(0.0)
        for channel, step in _STEPS.items():
            try:
                await step(bench, points, found)
            except _Exchanged:
                break
            except FitRefused as e:
                found += await _no_fringe(bench, points, channel, str(e))
                break
        else:
            found += await _steady(bench, points)
            bench.notes[POINTS] = points
    return found


async def read(bench: Bench) -> dict[str, float]:
    """Light at the taps, W."""
    return watts(bench, await currents(bench), bench.notes[DARK])


def _needs(bench: Bench, *more: str) -> tuple[str, ...]:
    always = (PART, SHUTTER_PART, "shutter", bench.part("heaters"), bench.part("adc"), bench.part("rail"))
    return (*always, *more)


async def _no_fringe(bench: Bench, points: Points, channel: str, why: str) -> list[Finding]:
    """A heater that makes no fringe; and whether another one makes it in its place."""
    diodes = ("pb1",) if channel == "basis" else ("pb2", "pb3")
    needs = _needs(bench, *(f"photodiode {d}" for d in diodes), "rail heater", "path input")
    found: list[Finding] = []
    first = RECEIVER_HEATERS.index(channel)
    await Heater(bench, channel).set(0.0)
    for other in (h for h in RECEIVER_HEATERS if h not in points.fringes and h != channel):
        powers, seen = await swept(bench, other, lambda: read(bench))
        await Heater(bench, other).set(0.0)
        try:
            if _fringe(points, channel, powers, seen).visibility > MOST.get(channel, 1.5):
                continue
        except FitRefused:
            continue
        a, b = sorted((first, RECEIVER_HEATERS.index(other)))
        part = f"cables of heater {RECEIVER_HEATERS[a]} and heater {RECEIVER_HEATERS[b]}"
        hint = f"Heater {other} does what {channel} should: their cables are exchanged."
        found.append(Finding(f"own_heater.{channel}", 0.0, "", Limits.exactly(1.0), part, needs, hint))
        needs = (*needs, part)
        break
    else:
        found += await _lit(bench, points, diodes)
    lost = Finding(f"p_pi.{channel}", math.nan, "W", P_PI_W, f"heater {channel}", needs, f"No fringe: {why}.")
    return [*found, lost]


async def _lit(bench: Bench, points: Points, diodes: Sequence[str]) -> list[Finding]:
    """Each photodiode of an arm sees light at one of the heaters' settings, unless it is itself dark."""
    brightest = dict.fromkeys(diodes, -math.inf)
    for basis in (0.0, 1.0):
        for combine in (0.0, 0.4, 0.8):
            await Heater(bench, "basis").set(
                points.power(bench, "basis", PI) if "basis" in points.fringes else 0.04 * basis
            )
            await Heater(bench, "combine").set(combine * Heater(bench, "combine").most_w)
            await bench.context.settle()
            seen = await read(bench)
            brightest = {d: max(brightest[d], seen[d]) for d in diodes}
    best = max(brightest.values())
    hint = "It gets light in turn with the other one, and sees none."
    limits, needs = Limits(low=0.02), _needs(bench, "path input")
    if len(diodes) < 2 or not best > 0.0:
        return []
    return [Finding(f"lit.{d}", w / best, "", limits, f"photodiode {d}", needs, hint) for d, w in brightest.items()]


def _p_pi(bench: Bench, channel: str, fringe: Fringe) -> Finding:
    record = bench.context.store.active(
        {"basis": "basis_split", "split": "arm_split", "combine": "combiner"}.get(channel, "")
    )
    limits = P_PI_W
    if record is not None and "p_pi_w" in record.value:
        known = record.value["p_pi_w"]
        limits = Limits(0.93 * known, 1.07 * known)
    sigma = float(np.sqrt(fringe.covariance[3, 3]))
    hint = "Phase for its power: a cracked or loose heater, or another heater answers."
    return Finding(f"p_pi.{channel}", fringe.x_pi, "W", limits, f"heater {channel}", _needs(bench), hint, sigma=sigma)


def _fringe(points: Points, channel: str, powers: Array, seen: Mapping[str, Array]) -> Fringe:
    """The curve that is this heater's own, see above. Raises FitRefused."""
    pb1, both = seen["pb1"], seen["pb2"] + seen["pb3"] / points.pb3_over_pb2
    if channel == "basis":
        y = pb1
    elif channel == "split":
        # Corrected for what the heater's neighbour, the basis splitter, gives to Z meanwhile.
        y = both / (1.0 - np.clip(pb1 / points.z_w, 0.0, 0.9))
    else:
        y = seen["pb2"] / np.where(both > 0.0, both, np.nan)
    if not np.isfinite(y).all():
        raise FitRefused("a photodiode's amplifier is at its rail, or it sees nothing")
    return fit_fringe(powers, y, *SEARCH_W, visibility_min=LEAST[channel], residual_max=0.15)


async def _turn(bench: Bench, points: Points, channel: str) -> tuple[Fringe, dict[str, Array]]:
    """Sweep of one heater: its fringe, kept in the points and drawn, and the readings. Raises FitRefused."""
    powers, seen = await swept(bench, channel, lambda: read(bench), DIE_S if channel == "phase" else WARM_S)
    fringe = points.fringes[channel] = _fringe(points, channel, powers, seen)
    mw = (1e3 * powers).tolist()
    lines = [Series(n, mw, (1e6 * y).tolist()) for n, y in seen.items() if n != "pb0"]
    bench.figures[f"Fringe of {channel}"] = Plot(f"Fringe of {channel}", "heater power (mW)", "light (uW)", lines)
    return fringe, seen


async def _basis(bench: Bench, points: Points, found: list[Finding]) -> None:
    fringe, seen = await _turn(bench, points, "basis")
    if other := _exchanged(seen):
        part, hint = f"cables of photodiode pb1 and photodiode {other}", f"{other} follows the Z arm, pb1 the X arm."
        found.append(Finding("arm.pb1", 0.0, "", Limits.exactly(1.0), part, _needs(bench), hint))
        raise _Exchanged
    points.z_w, points.entry_w = fringe.offset * (1.0 + fringe.visibility), float(seen["pb0"].mean())
    await Heater(bench, "basis").set(points.power(bench, "basis", PI))
    hint = "Light in the Z arm that cannot be switched into the X arm."
    needs = _needs(bench, "photodiode pb1")
    found += [
        _p_pi(bench, "basis", fringe),
        Finding("extinction.basis", fringe.visibility, "", EXTINCTION, "heater basis", needs, hint),
    ]


def _exchanged(seen: Mapping[str, Array]) -> str:
    """Of pb2 and pb3 the one that goes against the other while that goes with pb1: both are of one arm."""
    for one, twin in (("pb2", "pb3"), ("pb3", "pb2")):
        swing = min(float(np.ptp(seen[n])) / max(float(np.max(seen[n])), 1e-15) for n in ("pb1", one, twin))
        with_pb1 = [float(np.corrcoef(seen["pb1"], seen[n])[0, 1]) for n in (one, twin)]
        if swing > 0.5 and with_pb1[0] < -0.8 and with_pb1[1] > 0.8:
            return one
    return ""


async def _twins(bench: Bench, points: Points) -> None:
    """Whatever interferes, what pb2 loses pb3 gains: pb3's reading over pb2's of the same light, by their swings."""
    for channel in ("combine", "phase"):
        _, seen = await swept(bench, channel, lambda: read(bench))
        await Heater(bench, channel).set(0.0)
        swing = [float(np.std(seen[n])) for n in ("pb2", "pb3")]
        enough = 0.05 * max(float(seen[n].max()) for n in ("pb2", "pb3"))
        if min(swing) > enough and float(np.corrcoef(seen["pb2"], seen["pb3"])[0, 1]) < -0.95:
            points.pb3_over_pb2 = swing[1] / swing[0]
            return


async def _split(bench: Bench, points: Points, found: list[Finding]) -> None:
    await _twins(bench, points)
    fringe, _ = await _turn(bench, points, "split")
    high, low = 1.0 + fringe.visibility, 1.0 - fringe.visibility
    points.x_w, points.long = fringe.offset * high, max(low / high, 1e-3)
    await Heater(bench, "split").set(points.power(bench, "split", 0.0))
    loss = -10.0 * math.log10(points.long)
    hint = "Loss of the interferometer's long arm against its short one."
    needs = _needs(bench, "photodiode pb2", "photodiode pb3", "heater split")
    found += [_p_pi(bench, "split", fringe), Finding("loss.long_arm", loss, "dB", LONG_DB, "path amzi", needs, hint)]


async def _combine(bench: Bench, points: Points, found: list[Finding]) -> None:
    """With all light by the short way: no interference in it."""
    fringe, _ = await _turn(bench, points, "combine")
    await Heater(bench, "combine").set(points.power(bench, "combine", PI / 2.0))
    await Heater(bench, "split").set(points.power(bench, "split", balanced_rad(points.long)))
    found.append(_p_pi(bench, "combine", fringe))


async def _phase(bench: Bench, points: Points, found: list[Finding]) -> None:
    fringe, _ = await _turn(bench, points, "phase")
    needs = _needs(bench, "photodiode pb2", "photodiode pb3")
    hint = "Interference at pb2 and pb3 with balanced arms and a 50:50 combiner."
    found += [
        _p_pi(bench, "phase", fringe),
        Finding("visibility.photodiodes", fringe.visibility, "", VISIBILITY, "path amzi", needs, hint),
    ]


_STEPS: dict[str, Callable[[Bench, Points, list[Finding]], Awaitable[None]]] = {
    "basis": _basis,
    "split": _split,
    "combine": _combine,
    "phase": _phase,
}


async def _steady(bench: Bench, points: Points) -> list[Finding]:
    """Half of the light in each arm, half of that at each output, nothing interferes: how much readings scatter."""
    await Heater(bench, "basis").set(points.power(bench, "basis", PI / 2.0))
    await Heater(bench, "split").set(points.power(bench, "split", 0.0))
    await bench.context.settle()
    rows = [await currents(bench, 1) for _ in range(24)]
    found = []
    for name in DIODES:
        y = np.array([row[name] for row in rows])
        # Of neighbours in time: the die's own course is no noise.
        noise = float(np.std(np.diff(y)) / math.sqrt(2.0) / max(float(np.mean(y)), 1e-12))
        needs = (bench.part("adc"), PART)
        found.append(
            Finding(f"noise.{name}", noise, "", Limits(high=0.02), f"photodiode {name}", needs, "Readings scatter.")
        )
    return found


_BOB = ("bob",)
CHECKS = (
    Check(
        "receiver heaters",
        Level.LIGHT_ON,
        heaters,
        ("heater_dac", "monitor_adc", "bias_dac"),
        _BOB,
        after=(SHUTTER_PART, "shutter", "interlock"),
        budget_s=15.0,
    ),
)
