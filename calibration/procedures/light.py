"""The transmitter's own light during its calibration, and readings of its photodiodes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import numpy as np

from calibration.context import CalibrationContext, CalibrationRefused
from calibration.fit import Array
from calibration.noise import reading_noise
from drivers.roles import LightMode

# Conversions behind one reading of a sweep: 0.5 % of one becomes 0.125 %.
SAMPLES = 16
# The least that any monitor sees of its light at the best point of its sweep; ten times a good diode's dark current.
LIVE_A = 3e-9


async def shine(context: CalibrationContext, mode: LightMode, state: int = 0, intensity: int = 0) -> None:
    """Set the symbol source at once; a run is started when there is none."""
    source = context.need_source()
    run_id, _ = await source.now()
    if run_id == 0:
        await source.run()
    await source.set_mode(mode, state, intensity)
    await context.settle()


def reader(context: CalibrationContext, diode: str, samples: int = SAMPLES) -> Callable[[], Awaitable[float]]:
    """One photodiode as a function without arguments, A."""

    async def read() -> float:
        return (await context.photocurrents(diode, samples=samples))[diode]

    return read


def sigma_of(context: CalibrationContext, diode: str, samples: int = SAMPLES) -> Callable[[Array], Array]:
    """Absolute uncertainty, A, of readings of `reader`, from the measured noise."""
    noise = reading_noise(context)
    return lambda y: noise.sigma(diode, y, samples)


def ratio_sigma(context: CalibrationContext, over: str, under: str, y: Array, x: Array, samples: int) -> Array:
    """Relative uncertainty of y/x, photocurrents of two diodes in the same conversions."""
    noise = reading_noise(context)
    return np.hypot(noise.sigma(over, y, samples) / np.abs(y), noise.sigma(under, x, samples) / np.abs(x))


def must_live(procedure: str, diode: str, amperes: Array, witness: str) -> None:
    """Raises CalibrationRefused when a diode stays at its dark current wherever the sweep goes; `witness` says why
    there must be light."""
    most = float(np.max(amperes))
    if most < LIVE_A:
        raise CalibrationRefused(
            procedure,
            f"photodiode {diode} is dead or its path is dark: {most:.2g} A at the best of {len(amperes)} settings, "
            f"{LIVE_A:.0e} A is the least, although {witness}",
        )


async def brightest_z(context: CalibrationContext) -> int:
    """Send the Z state that the AMZI's input coupler favours, for steps before that coupler is balanced."""
    seen = []
    for state in (0, 1):
        await shine(context, LightMode.FIX, state)
        seen.append((await context.photocurrents("pa3"))["pa3"])
    best = 0 if seen[0] >= seen[1] else 1
    await shine(context, LightMode.FIX, best)
    return best


async def energy(context: CalibrationContext, state: int, intensity: int = 0, samples: int = SAMPLES) -> float:
    """Photocurrent of PA3 with one state and intensity sent in every slot, A. Raises CalibrationRefused when dark."""
    await shine(context, LightMode.FIX, state, intensity)
    seen = (await context.photocurrents("pa3", samples=samples))["pa3"]
    if seen <= 0.0:
        raise CalibrationRefused("pa3", f"no light after the decoy modulator in state {state}: {seen:.3g} A")
    return seen
