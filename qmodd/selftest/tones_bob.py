"""Pilot tones on the receiver's four heaters, read at pb1, at the sum and at the difference of pb2 and pb3.

The set points are such that each heater has a monitor that answers it: pb1 the basis splitter alone; the sum the input
coupler of the interferometer, by its long arm's loss; the difference the combiner, with unequal arms, and the phase.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from typing import cast

from calibration.fit import PI
from qmodd.selftest.bench import Bench
from qmodd.selftest.diode import PART, SHUTTER_PART, has_diode, lit
from qmodd.selftest.interferometer_bob import POINTS, Points, read
from qmodd.selftest.light_on_bob import NO_DIODE
from qmodd.selftest.model import Check, Finding, Level, Limits, skipped
from qmodd.selftest.receiver import DIE_S, DIODES, RECEIVER_HEATERS, Heater, outputs_kept
from qmodd.selftest.tones import SIGNIFICANT, Actuator, sound

BASE_RAD = {"basis": PI / 2.0, "split": PI / 3.0, "combine": PI / 2.0}
# The die's temperature, and with it the interferometer's phase, is another one than in its sweep: of two that are a
# quarter turn apart one is on the fringe's slope.
PHASES_RAD = (PI / 2.0, PI)
OWN = {"basis": "pb1", "split": "pb2+pb3", "phase": "pb2-pb3", "combine": "pb2-pb3"}
# About 9 degrees of each element's phase, W.
AMPLITUDE_W = 2e-3
# Of a neighbour's heat an element gets 0.04 exp(-d/1.5), with a spread of 20 % (pair A6): 4 % at most.
CROSSTALK = Limits(high=0.15)


async def tones(bench: Bench) -> Sequence[Finding]:
    """Every control path from the heater DAC to a photodiode, all at once; and what the neighbours do to the basis
    splitter."""
    points = cast("Points | None", bench.notes.get(POINTS))
    if not has_diode(bench) or points is None:
        why = "heaters gave no set points" if has_diode(bench) else NO_DIODE
        return [skipped(f"tone.{h}", f"heater {h}", why) for h in RECEIVER_HEATERS]
    responses = []
    async with outputs_kept(bench), lit(bench):
        for phase in PHASES_RAD:
            actuators = [_actuator(bench, points, h, {**BASE_RAD, "phase": phase}[h]) for h in RECEIVER_HEATERS]
            for actuator in actuators:
                await actuator.write(actuator.base)
            await bench.sleep(DIE_S)
            responses.append(await sound(bench, actuators, lambda: _monitors(bench, points), repeats=2))
    response = responses[0]
    bench.figures["Pilot tones"] = response.figure("Pilot tones", "per amplitude")
    parts = (bench.part("heaters"), bench.part("adc"), bench.part("rail"))
    always = (PART, SHUTTER_PART, "shutter", *parts, *(f"photodiode {n}" for n in DIODES))
    found = []
    for channel, monitor in OWN.items():
        seen = [r.of(channel, monitor) for r in responses]
        hint = f"{monitor} does not answer the tone."
        clear = Limits(low=SIGNIFICANT)
        z = max(abs(gain) / max(sigma, 1e-12) for gain, sigma in seen)
        found.append(Finding(f"tone.{channel}", z, "sigma", clear, f"heater {channel}", always, hint))
    own = abs(response.of("basis", "pb1")[0])
    others = max(abs(response.of(h, "pb1")[0]) for h in RECEIVER_HEATERS if h != "basis")
    hint = "Another heater moves the basis splitter more than its heat can."
    needs = (*always, *(f"heater {h}" for h in RECEIVER_HEATERS if h != "basis"))
    share = others / own if own > 0.0 else math.nan
    return [*found, Finding("crosstalk.basis", share, "", CROSSTALK, "heater basis", needs, hint)]


def _actuator(bench: Bench, points: Points, channel: str, target_rad: float) -> Actuator:
    heater = Heater(bench, channel)
    base = points.power(bench, channel, target_rad)
    base = min(max(base, AMPLITUDE_W), heater.most_w - AMPLITUDE_W)

    def write(one: Heater) -> Callable[[float], Awaitable[None]]:
        return lambda watts: one.set(watts)

    return Actuator(channel, f"heater {channel}", write(heater), base, AMPLITUDE_W, "W")


async def _monitors(bench: Bench, points: Points) -> dict[str, float]:
    """Relative to the light in front: the diode's own wander is none of theirs."""
    seen = await read(bench)
    seen["pb3"] /= points.pb3_over_pb2
    return {
        "pb1": seen["pb1"] / seen["pb0"],
        "pb2+pb3": (seen["pb2"] + seen["pb3"]) / seen["pb0"],
        "pb2-pb3": (seen["pb2"] - seen["pb3"]) / seen["pb0"],
    }


CHECKS = (
    Check(
        "receiver tones",
        Level.LIGHT_ON,
        tones,
        ("heater_dac", "monitor_adc", "bias_dac"),
        ("bob",),
        after=(SHUTTER_PART, "shutter", "interlock"),
        budget_s=10.0,
    ),
)
