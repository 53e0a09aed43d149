"""Time-resolved readings of the receiver: clicks per detector and bin while the transmitter sends one state."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from calibration.context import CalibrationContext, CalibrationRefused
from calibration.fit import FitRefused
from calibration.fold import find_period, gated, strongest
from calibration.names import DETECTORS
from drivers.roles import LightMode

Tags = tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]
MAX_TAGS = 400_000
# The transmitter's attenuator sits at about 26 dB of 0.8 to 40: this much less and more light it can give.
LEAST_SCALE, MOST_SCALE = 0.1, 100.0


@dataclass(frozen=True)
class Bins:
    """Clicks in gates: dz (2,) early, late; dx (2, 3) detectors DX0, DX1 and bins early-short, middle, late-long."""

    dz: npt.NDArray[np.float64]
    dx: npt.NDArray[np.float64]


@asynccontextmanager
async def tagging(context: CalibrationContext) -> AsyncIterator[None]:
    """The tagger runs with its strobe open; the configured strobe comes back at the end."""
    source = context.need_tags()
    await source.run()
    await source.set_gate(0, 0)
    try:
        yield
    finally:
        await source.set_gate(*context.settings.gate)


async def collect(context: CalibrationContext, seconds: float) -> Tags:
    """All clicks of the next `seconds`. Raises CalibrationRefused when the tagger lost some."""
    source = context.need_tags()
    while (await source.read()).more:
        pass
    start = await source.now_ps()
    await context.sleep(seconds)
    times, channels, size = [], [], 0
    while True:
        block = await source.read()
        if block.gap:
            raise CalibrationRefused("time tagger", f"lost tags in block {block.sequence}: lower the light")
        keep = block.t >= start
        times.append(block.t[keep])
        channels.append(block.channel[keep])
        size += int(keep.sum())
        if not block.more or size > MAX_TAGS:
            return np.concatenate(times), np.concatenate(channels)


async def count_bins(context: CalibrationContext, seconds: float, state: int) -> Bins:
    """Send a state (0 Z0, 2 X0, 3 X1) and count clicks by bin, with the delays of the detector_delay record.

    Raises FitRefused when DZ, whose clicks carry the slot's phase, shows no symbol period.
    """
    t, channel = await collect(context, seconds)
    delays = context.record("detector_delay").value
    s = context.settings
    z = t[channel == 0]
    period = find_period(z, s.symbol_period_ps, s.clock_offset_max)
    comb = (0.0,) if state == 0 else (0.0, s.bin_ps)
    early, _ = strongest(period.fold(z), period.period_ps, comb)
    out = np.zeros((3, 3))
    for d, name in enumerate(DETECTORS):
        phase = period.fold(t[channel == d])
        for b in range(3 if d else 2):
            centre = early + delays[f"delay_{name}_ps"] - delays["delay_dz_ps"] + b * s.bin_ps
            out[d, b] = gated(phase, period.period_ps, centre, s.half_gate_ps)
    return Bins(out[0, :2], out[1:])


async def total_rates(context: CalibrationContext, seconds: float) -> npt.NDArray[np.float64]:
    """Counts/s of DZ, DX0, DX1 from the detector controller; shape (3,)."""
    return np.asarray(await context.need_detectors().read_rates(seconds), dtype=np.float64)


async def illuminate(context: CalibrationContext, state: int, scale: float) -> None:
    """One state in every slot, open shutter."""
    await context.need_light().set(LightMode.FIX, state, 0, scale)
    await context.biases.set_voltage("shutter", context.settings.shutter_open_v)
    await context.sleep(0.01)


async def choose_scale(context: CalibrationContext, state: int = 0) -> float:
    """Light for about the target rate in all detectors together, found from below so that none is driven to latch.

    Raises FitRefused when the fibre carries none.
    """
    scale, seen = LEAST_SCALE, 0.0
    for _ in range(4):
        await illuminate(context, state, scale)
        seen = float((await total_rates(context, 0.02)).sum())
        ratio = context.settings.target_rate / max(seen, 1.0)
        if 0.5 < ratio < 2.0:
            return scale
        scale = min(max(scale * min(ratio, 20.0), LEAST_SCALE), MOST_SCALE)
    await illuminate(context, state, scale)
    seen = float((await total_rates(context, 0.02)).sum())
    if seen < 0.02 * context.settings.target_rate:
        raise FitRefused(f"no light from the fibre: {seen:.0f} counts/s with {scale:.3g} times the normal light")
    return scale
