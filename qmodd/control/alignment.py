"""Modulator biases to their set points by the source's own light, right before keys.

Bias creeps with the logarithm of time and starts anew with every power-up, so a record's set point is a few degrees off
when it is applied. Readings in FIX mode, which nobody outside can shape, take that out in a third of a second; nothing
is calibrated anew for it. They also give what the loops in KEY mode go by: the current of every class, and PA0 with it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from calibration.context import CalibrationContext
from calibration.names import INTENSITIES, STATES
from calibration.procedures.light import energy, shine
from drivers.roles import LightMode, Pilot
from qmodd.control.facts import Railed
from qmodd.control.modulators import carver_error
from qmodd.control.power import class_average

ROUNDS = 2
SAMPLES = 64
# Further than this a record does not describe the part any more, V.
LIMIT_V = 0.5


@dataclass(frozen=True)
class Alignment:
    """Set points found (V), currents by class name (A, as the mean_photon record's `i_*_a`), PA0 then (A), share of
    the light between the slots' windows, and what was still off after the last step (relative)."""

    carver_v: float
    state_v: float
    decoy_v: float
    currents: dict[str, float]
    pa0_a: float
    background: float
    state_error: float
    decoy_error: float

    def expected(self, p_x: float, p_decoy: float, pilot: Pilot | None) -> float:
        """PA3/PA0 in KEY mode."""
        return class_average(self.currents, p_x, p_decoy, pilot, self.background) / self.pa0_a


async def align(context: CalibrationContext) -> Alignment:
    """C to its null by its dither, then Newton steps on Q(X0)/Q(X1) = 1 and on the ratio of the intensities; light off
    at the end. C comes first: its leak is in every energy.

    Raises LoopFault where C has no null, Railed when a bias would have to leave its record by more than half a volt,
    CalibrationRefused without a record or light, and what drivers raise.
    """
    state, decoy = context.record("state_trim").value, context.record("decoy").value
    background = decoy.get("background", 0.0)
    await shine(context, LightMode.FIX, 0)
    await _null_carver(context)
    x = ratio = 0.0
    for n in range(ROUNDS + 1):
        x = await energy(context, 2, 0, SAMPLES) / await energy(context, 3, 0, SAMPLES) - 1.0
        weak = await energy(context, 0, 1, SAMPLES) + await energy(context, 1, 1, SAMPLES)
        strong = await energy(context, 0, 0, SAMPLES) + await energy(context, 1, 0, SAMPLES)
        seen = (weak / strong - background) / (1.0 - background)
        ratio = math.log(max(seen, 1e-6) / decoy["ratio"])
        if n < ROUNDS:
            await _move(context, "state", -x / state["null_slope_per_v"], state["null_v"])
            await _move(context, "decoy", -ratio / decoy["ratio_slope_per_v"], decoy["peak_v"])
    currents = {
        f"i_{name}_{intensity}_a": await energy(context, s, k, SAMPLES)
        for s, name in enumerate(STATES)
        for k, intensity in enumerate(INTENSITIES)
    }
    pa0 = (await context.photocurrents("pa0", samples=4 * SAMPLES))["pa0"]
    await shine(context, LightMode.OFF)
    biases = context.biases
    carver_v, state_v, decoy_v = (biases.voltage(channel) for channel in ("carver", "state", "decoy"))
    return Alignment(carver_v, state_v, decoy_v, currents, pa0, background, x, ratio)


async def _null_carver(context: CalibrationContext) -> None:
    record = context.record("carver_bias").value
    for _ in range(ROUNDS):
        found = await carver_error(context, context.biases.voltage("carver"), record["v_pi_v"], SAMPLES)
        await _move(context, "carver", -found.rad * record["v_pi_v"] / math.pi, record["null_v"])


async def _move(context: CalibrationContext, channel: str, by_v: float, recorded_v: float) -> None:
    wanted = context.biases.voltage(channel) + by_v
    if abs(wanted - recorded_v) > LIMIT_V:
        raise Railed(
            channel,
            f"{channel} modulator: its set point is {wanted - recorded_v:+.2f} V from its record; {LIMIT_V} V is the "
            "limit",
        )
    await context.biases.set_voltage(channel, wanted)
    await context.settle()
