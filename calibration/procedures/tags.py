"""Time-resolved readings of the receiver: clicks per detector and bin while the transmitter sends one state."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from calibration.context import CalibrationContext, CalibrationRefused, LightRefused
from calibration.dead_time import live_counts
from calibration.fit import Array, FitRefused
from calibration.fold import Period, find_period, gated, strongest
from calibration.names import DETECTORS
from drivers.roles import LightMode

Tags = tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]
MAX_TAGS = 1_000_000
# So many clicks of DZ tell the slot's phase to a fifth of a ps.
PHASE_TAGS = 20_000
# The transmitter's attenuator sits at about 26 dB of 0.8 to 40: this much less and more light it can give.
LEAST_SCALE, MOST_SCALE = 0.1, 100.0
# Light with less than this share of the wanted rate is none.
NO_LIGHT = 0.02
# For bins of one arm and one output: clicks/s in all detectors together.
BRIGHT_RATE = 2.0e6


@dataclass(frozen=True)
class Bins:
    """Clicks in gates: dz (2,) early, late; dx (2, 3) detectors DX0, DX1 and bins early-short, middle, late-long.

    Corrected for dead time: what a detector that is never blind would have counted.
    """

    dz: Array
    dx: Array


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
        if size > MAX_TAGS:
            # Counting only a part of them would read as loss.
            raise CalibrationRefused("time tagger", f"{size} clicks in {seconds:g} s; {MAX_TAGS} is the limit")
        if not block.more:
            return np.concatenate(times), np.concatenate(channels)


def slot_phase(context: CalibrationContext, z: npt.NDArray[np.int64], state: int) -> tuple[Period, float]:
    """Symbol period on the tag clock and place of the early pulse in it, ps, from clicks of DZ.

    Raises FitRefused when they show no symbol period.
    """
    s = context.settings
    near = z[:PHASE_TAGS]
    period = find_period(near, s.symbol_period_ps, s.clock_offset_max)
    early, _ = strongest(period.fold(near), period.period_ps, (0.0,) if state == 0 else (0.0, s.bin_ps))
    return period, early


async def count_bins(context: CalibrationContext, seconds: float, state: int) -> Bins:
    """Clicks by bin while a state is sent (0 Z0, 2 X0, 3 X1), with the delays of the detector_delay record.

    Raises FitRefused when DZ, whose clicks carry the slot's phase, shows no symbol period.
    """
    t, channel = await collect(context, seconds)
    delays = context.record("detector_delay").value
    s = context.settings
    period, early = slot_phase(context, t[channel == 0], state)
    slots = seconds / (s.symbol_period_ps * 1e-12)
    tau, _ = dead_times(context)
    out = np.zeros((3, 3))
    for d, name in enumerate(DETECTORS):
        phase = period.fold(t[channel == d])
        bins = 3 if d else 2
        centres = early + delays[f"delay_{name}_ps"] - delays["delay_dz_ps"] + s.bin_ps * np.arange(bins)
        seen = np.array([gated(phase, period.period_ps, float(c), s.half_gate_ps) for c in centres], dtype=np.float64)
        out[d, :bins] = live_counts(seen, slots, tau[d] / (s.symbol_period_ps * 1e-12))
    return Bins(out[0, :2], out[1:])


def dead_times(context: CalibrationContext) -> tuple[Array, Array]:
    """(dead time and recovery together, its standard uncertainty) of each detector, s: measured, or what is usual."""
    s, record = context.settings, context.store.active("dead_time")
    if record is None:
        return np.full(3, s.dead_s), np.full(3, s.dead_sigma_s)
    names = [f"{n}_tau_s" for n in DETECTORS]
    return np.array([record.value[n] for n in names]), np.array([record.sigma(n) for n in names])


async def total_rates(context: CalibrationContext, seconds: float) -> Array:
    """Counts/s of DZ, DX0, DX1 from the detector controller; shape (3,)."""
    return np.asarray(await context.need_detectors().read_rates(seconds), dtype=np.float64)


async def illuminate(context: CalibrationContext, state: int, scale: float) -> None:
    """One state in every slot, open shutter."""
    await context.need_light().set(LightMode.FIX, state, 0, scale)
    await context.biases.set_voltage("shutter", context.settings.shutter_open_v)
    await context.sleep(0.01)


async def choose_scale(context: CalibrationContext, state: int = 0, rate: float | None = None) -> float:
    """Light for about `rate` counts/s (the settings' by default) in all detectors together, found from below so that
    none is driven to latch.

    Raises FitRefused when the fibre carries none, LightRefused when the transmitter gives none.
    """
    wanted = context.settings.target_rate if rate is None else rate
    scale, seen = LEAST_SCALE, 0.0
    given = 0.0
    for _ in range(5):
        try:
            await illuminate(context, state, scale)
        except LightRefused as e:
            # It gave some before: with all that it has, the fibre shows next to nothing.
            if given and seen < NO_LIGHT * context.settings.target_rate:
                raise no_light(context, seen, given) from e
            raise
        given = scale
        seen = float((await total_rates(context, 0.02)).sum())
        ratio = wanted / max(seen, 1.0)
        if 0.5 < ratio < 2.0 or (scale == MOST_SCALE and ratio > 1.0):
            break
        scale = min(max(scale * min(ratio, 20.0), LEAST_SCALE), MOST_SCALE)
    if seen < NO_LIGHT * context.settings.target_rate:
        raise no_light(context, seen, given)
    return given


def no_light(context: CalibrationContext, seen_hz: float, scale: float) -> FitRefused:
    """The diagnosis: what was read, with what light, and the limit."""
    return FitRefused(
        f"no light from the fibre: {seen_hz:.0f} counts/s with {scale:.3g} times the normal light, which the "
        f"transmitter reports as on; {NO_LIGHT * context.settings.target_rate:.0f} counts/s are the least"
    )
