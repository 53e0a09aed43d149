"""Frames of the link: which slot a click belongs to, from a public string."""

from __future__ import annotations

from collections.abc import Sequence
from math import hypot, sqrt
from typing import ClassVar

import numpy as np

from calibration.context import CalibrationContext, CalibrationRefused
from calibration.fold import BINS, histogram
from calibration.framesync import ACCEPT_SIGMA, SyncRefused, acquire, fold_delays
from calibration.names import DETECTORS
from calibration.plot import Figure, Plot, Series
from calibration.procedure import Disturbs, Procedure, Raw
from calibration.procedures.detector_delay import OFFSET_SIGMA
from calibration.procedures.tags import collect, tagging
from calibration.record import Record, diagonal
from drivers.roles import LightMode

# The default of the key engine, which begins every run of keys with the same search (reference pair B3).
SYNC_S = 0.3
# Scatter of single clicks: pulse and jitter, ps.
CLICK_PS = 50.0


class FrameSync(Procedure):
    """Coarse to fine (reference control B9, pair B3): the symbol period on the tag clock from the first harmonic of
    DZ's clicks, the slot modulo 65536 from a correlation with the public string, the superframe from another.

    Works up to 35 dB in normal light. Says how clear both peaks are, and what light, clock or detector is to blame.
    """

    name: ClassVar[str] = "frame_sync"
    needs: ClassVar[tuple[str, ...]] = ("detector_delay",)
    valid_s: ClassVar[float] = 30 * 86_400.0
    disturbs: ClassVar[Disturbs] = Disturbs.LINK
    deferred: ClassVar[bool] = True
    cost_s: ClassVar[float] = 0.5
    equation: ClassVar[str] = "t = t_0 + slot T (1 + offset) + bit bin; peak = sum sign(bit) code(slot) / sqrt(clicks)"

    async def calibrate(self, context: CalibrationContext) -> Record:
        s = context.settings
        await context.need_light().set(LightMode.SYNC)
        await context.biases.set_voltage("shutter", s.shutter_open_v)
        await context.sleep(0.02)
        async with tagging(context):
            t, channel = await collect(context, SYNC_S)
        await context.need_light().set(LightMode.OFF)
        dz = t[channel == 0]
        found = acquire(dz, s.symbol_period_ps, s.bin_ps, s.clock_offset_max)
        if isinstance(found, SyncRefused):
            raise CalibrationRefused(
                self.name, f"no frame: {found.reason} ({len(dz)} clicks of dz in {SYNC_S:g} s of the public string)"
            )
        value = {
            "clock_offset": found.y,
            "code_peak": found.snr_code,
            "superframe_peak": found.snr_superframe,
            "peak_limit": ACCEPT_SIGMA,
            "clicks": float(len(dz)),
        }
        delays = fold_delays(t, channel, found.clock, s.bin_ps)
        if not isinstance(delays, SyncRefused):
            known = context.record("detector_delay").value
            for name, ps in zip(DETECTORS[1:], delays.delays_ps[1:], strict=True):
                value[f"{name}_shift_ps"] = ps - known[f"delay_{name}_ps"]
        sigma = sqrt(12.0 / max(found.used, 1)) * CLICK_PS / (SYNC_S * 1e12)
        period = s.symbol_period_ps * (1.0 + found.y)
        phase = np.mod((dz - found.clock.tag_ps).astype(np.float64) - found.clock.frac_ps + 1000.0, period)
        return await self.make_record(
            context,
            value,
            {"cells": histogram(phase, period), "period_ps": [period]},
            names=("clock_offset",),
            covariance=diagonal([hypot(sigma, OFFSET_SIGMA)]),
        )

    def figures(self, record: Record, raw: Raw) -> Sequence[Figure]:
        width = float(np.ravel(raw["period_ps"])[0]) / BINS
        cells = np.asarray(raw["cells"])[:150]
        at = (np.arange(len(cells)) + 0.5) * width - 1000.0
        return [
            Plot(
                "Clicks of DZ in the slot, public string",
                "time after the early pulse (ps)",
                "clicks (1)",
                [Series("DZ", at.tolist(), cells.tolist(), "line")],
                ((0.0, "early"), (800.0, "late")),
            )
        ]
