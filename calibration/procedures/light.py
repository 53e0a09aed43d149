"""The transmitter's own light during its calibration, and readings of its photodiodes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from calibration.context import CalibrationContext, CalibrationRefused
from drivers.roles import LightMode


async def shine(context: CalibrationContext, mode: LightMode, state: int = 0, intensity: int = 0) -> None:
    """Set the symbol source at once; a run is started when there is none."""
    source = context.need_source()
    run_id, _ = await source.now()
    if run_id == 0:
        await source.run()
    await source.set_mode(mode, state, intensity)
    await context.settle()


def reader(context: CalibrationContext, diode: str) -> Callable[[], Awaitable[float]]:
    """One photodiode as a function without arguments, A."""

    async def read() -> float:
        return (await context.photocurrents(diode))[diode]

    return read


async def brightest_z(context: CalibrationContext) -> int:
    """Send the Z state that the AMZI's input coupler favours, for steps before that coupler is balanced."""
    seen = []
    for state in (0, 1):
        await shine(context, LightMode.FIX, state)
        seen.append((await context.photocurrents("pa3"))["pa3"])
    best = 0 if seen[0] >= seen[1] else 1
    await shine(context, LightMode.FIX, best)
    return best


async def energy(context: CalibrationContext, state: int, intensity: int = 0, samples: int | None = None) -> float:
    """Photocurrent of PA3 with one state and intensity sent in every slot, A. Raises CalibrationRefused when dark."""
    await shine(context, LightMode.FIX, state, intensity)
    seen = (await context.photocurrents("pa3", samples=samples))["pa3"]
    if seen <= 0.0:
        raise CalibrationRefused("pa3", f"no light after the decoy modulator in state {state}: {seen:.3g} A")
    return seen
