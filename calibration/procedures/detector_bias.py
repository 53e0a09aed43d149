"""Bias of the single-photon detectors: plateau in light, then dark counts at the chosen bias."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from calibration.context import CalibrationContext, CalibrationRefused
from calibration.detector_fit import Plateau, fit_dark_rate, fit_plateau
from calibration.fit import Array, FitRefused
from calibration.names import DETECTORS
from calibration.procedure import Procedure
from calibration.procedures.sweeps import count_sigma
from calibration.procedures.tags import choose_scale, illuminate, total_rates
from calibration.record import Record, block_diagonal
from drivers.roles import LightMode

STEP_A = 1.0e-6
READ_S = 0.04
DARK_S = 0.25
# The sweep of a detector ends where a step brings less than this: further up there is only the latch.
FLAT = 0.012
# Widths of the error function above its centre: saturated to 0.1 %, slope well under 1 %/uA.
PLATEAU_WIDTHS = 2.2


class DetectorBias(Procedure):
    """Plateau DE = DE_max/2 (1 + erf((I - I0)/w)) and dark counts a exp(b I) (reference control B8).

    Each detector's sweep stops on its own plateau. One that latches, seen by its bias voltage, is reset and backed off,
    never driven further. Names the detector that has no light, no plateau, or too many dark counts.
    """

    name: ClassVar[str] = "detector_bias"
    needs: ClassVar[tuple[str, ...]] = ("heater_iv",)

    async def calibrate(self, context: CalibrationContext) -> Record:
        low, _ = context.settings.detector_bias_a
        await context.need_detectors().set_bias([context.settings.detector_probe_a] * 3)
        scale = await choose_scale(context)
        await self._light_all(context)
        scale = await choose_scale(context)
        bias, rates, ends = await self._sweep(context, low)
        plateaus: list[Plateau] = []
        chosen: Array = np.zeros(3)
        for d, name in enumerate(DETECTORS):
            plateaus.append(self._plateau(name, bias[: ends[d]], rates[: ends[d], d]))
            limit = bias[ends[d] - 1] + STEP_A
            chosen[d] = min(plateaus[d].centre_a + PLATEAU_WIDTHS * plateaus[d].width_a, limit)
        self.report(context, 0.7, "plateaus found")
        chosen = await self._back_off(context, chosen, scale)
        darks, dark_raw = await self._darks(context, chosen)
        value: dict[str, float] = {"scale": scale}
        for d, name in enumerate(DETECTORS):
            p = plateaus[d]
            value |= {f"{name}_bias_a": chosen[d], f"{name}_dark_hz": darks[d]}
            value |= {f"{name}_top_hz": p.top, f"{name}_centre_a": p.centre_a, f"{name}_width_a": p.width_a}
        names = tuple(f"{n}_{q}" for n in DETECTORS for q in ("top_hz", "centre_a", "width_a"))
        return await self.make_record(
            context,
            value,
            {"bias_a": bias, "rates": rates, "dark": dark_raw},
            names=names,
            covariance=block_diagonal([np.asarray(p.covariance, dtype=np.float64) for p in plateaus]),
            residual_rms=max(p.residual_rms for p in plateaus),
        )

    def _plateau(self, name: str, bias: Array, rates: Array) -> Plateau:
        try:
            return fit_plateau(bias, rates, count_sigma(rates * READ_S) / READ_S)
        except FitRefused as e:
            raise CalibrationRefused(self.name, f"detector {name}: {e}") from e

    async def _light_all(self, context: CalibrationContext) -> None:
        """Heaters of the receiver where every detector gets some of the light."""
        best: tuple[float, dict[str, float]] = (-1.0, {})
        for basis in (0.2, 0.4):
            for split, combine in ((0.2, 0.2), (0.4, 0.2), (0.2, 0.4), (0.4, 0.4)):
                shares = {"basis": basis, "split": split, "combine": combine}
                await _set_shares(context, shares)
                rates = await total_rates(context, 0.02)
                if (worst := float(rates.min() / max(rates.sum(), 1.0))) > best[0]:
                    best = (worst, shares)
        if best[0] < 0.003:
            rates = await total_rates(context, 0.05)
            dead = DETECTORS[int(rates.argmin())]
            raise CalibrationRefused(self.name, f"detector {dead} sees no light: {rates.min():.0f} counts/s")
        await _set_shares(context, best[1])

    async def _sweep(self, context: CalibrationContext, low: float) -> tuple[Array, Array, list[int]]:
        """Bias grid (n,), rates (n, 3), and per detector how many points of it are its own."""
        high = context.settings.detector_bias_a[1]
        detectors = context.need_detectors()
        grid = np.arange(low, high + STEP_A / 2, STEP_A)
        rows: list[Array] = []
        ends = [0, 0, 0]
        for n, amperes in enumerate(grid):
            await detectors.set_bias([float(amperes if not ends[d] else grid[ends[d] - 1]) for d in range(3)])
            await context.settle()
            rows.append(await total_rates(context, READ_S))
            volts = await detectors.read_bias_voltage()
            for d in range(3):
                if not ends[d] and volts[d] > context.settings.detector_latched_v:
                    ends[d] = max(n, 1)
                    await self._unlatch(context, [float(grid[e - 1]) if e else float(amperes) for e in ends])
                elif not ends[d] and _flat([float(r[d]) for r in rows]):
                    ends[d] = n + 1
            self.report(context, 0.6 * (n + 1) / len(grid))
            if all(ends):
                break
        return grid[: len(rows)], np.array(rows), [e or len(rows) for e in ends]

    async def _unlatch(self, context: CalibrationContext, bias_a: list[float]) -> None:
        await context.need_detectors().set_bias([0.0, 0.0, 0.0])
        await context.sleep(0.05)
        await context.need_detectors().set_bias(bias_a)
        await context.settle()

    async def _back_off(self, context: CalibrationContext, chosen: Array, scale: float) -> Array:
        """At working flux each detector must still count; one that latches loses 5 % of bias a time."""
        await illuminate(context, 0, scale)
        for _ in range(5):
            await context.need_detectors().set_bias([float(b) for b in chosen])
            await context.sleep(0.02)
            volts = np.array(await context.need_detectors().read_bias_voltage())
            latched = volts > context.settings.detector_latched_v
            if not latched.any():
                return chosen
            chosen = np.where(latched, 0.95 * chosen, chosen)
            await self._unlatch(context, [float(b) for b in chosen])
        worst = DETECTORS[int(volts.argmax())]
        raise CalibrationRefused(
            self.name, f"detector {worst} latches at {chosen[volts.argmax()] * 1e6:.1f} uA and above"
        )

    async def _darks(self, context: CalibrationContext, chosen: Array) -> tuple[Array, Array]:
        """Dark counts at the chosen bias from three biases at and below it; the shutter is open again at the end."""
        await context.biases.set_voltage("shutter", context.settings.shutter_closed_v)
        await context.need_light().set(LightMode.OFF)
        await context.sleep(0.02)
        below = np.array([1.0e-6, 0.5e-6, 0.0])
        rows = []
        for d in below:
            await context.need_detectors().set_bias([float(b - d) for b in chosen])
            await context.settle()
            rows.append(await total_rates(context, DARK_S))
        await context.biases.set_voltage("shutter", context.settings.shutter_open_v)
        counts = np.array(rows) * DARK_S
        out = np.array([_dark_rate(chosen[i] - below, counts[:, i]) for i in range(3)])
        worst = int(out.argmax())
        if out[worst] > context.settings.dark_rate_max:
            raise CalibrationRefused(
                self.name,
                f"detector {DETECTORS[worst]}: {out[worst]:.0f} dark counts/s at {chosen[worst] * 1e6:.1f} uA; "
                f"{context.settings.dark_rate_max:.0f} is the limit",
            )
        return out, counts

    async def apply(self, context: CalibrationContext, record: Record) -> None:
        await context.need_detectors().set_bias([record.value[f"{n}_bias_a"] for n in DETECTORS])
        await context.biases.set_voltage("shutter", context.settings.shutter_open_v)
        await context.settle()


async def _set_shares(context: CalibrationContext, shares: dict[str, float]) -> None:
    for channel, share in shares.items():
        await context.drive.set_power(channel, share * context.drive.max_power(channel))
    await context.settle()


def _flat(rates: list[float]) -> bool:
    """The last step of bias brought next to nothing, on a rate that is not noise."""
    if len(rates) < 6 or rates[-1] < 20.0 / READ_S:
        return False
    noise = 1.5 / (rates[-1] * READ_S) ** 0.5
    return rates[-1] > 5.0 * rates[0] and rates[-1] / max(rates[-2], 1.0) - 1.0 < FLAT + noise


def _dark_rate(bias_a: Array, counts: Array) -> float:
    """From the exponential where the counts allow a fit, else their mean with the unseen half count."""
    try:
        fit = fit_dark_rate(bias_a, counts, DARK_S)
        return min(fit.rate(float(bias_a.max())), float(counts.max() + 10.0) / DARK_S)
    except FitRefused:
        return float((counts.sum() + 0.5) / (len(counts) * DARK_S))
