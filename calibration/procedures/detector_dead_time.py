"""How long each detector is blind after a click, and how the three compare without that."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log, sqrt
from typing import ClassVar

import numpy as np

from calibration.context import CalibrationContext, CalibrationRefused
from calibration.dead_time import LAST, DeadTime, Pairs, awake, fit_dead_time, pairs_of, true_rate
from calibration.fit import Array, FitRefused
from calibration.names import DETECTORS
from calibration.plot import Figure, Plot, Series
from calibration.procedure import Disturbs, Procedure, Raw
from calibration.procedures.figures import POINTS
from calibration.procedures.receiver_splits import X0, X1, read_bins
from calibration.procedures.tags import BRIGHT_RATE, choose_scale, collect, illuminate, tagging, total_rates
from calibration.record import Record, block_diagonal, diagonal
from drivers.roles import LightMode

# Bright, so that a second click soon after the first is no rarity; in pieces that the tagger can hold.
PIECES, PIECE_S = 10, 0.1
RATE_HZ = 2.5e6
# What a detector of this kind can have (pair A7, with margin), s.
DEAD_S, RECOVERY_S = (8e-9, 30e-9), (1e-9, 10e-9)


class DetectorDeadTime(Procedure):
    """Pairs of clicks by the time between them, X light: how soon a second one follows (reference control B10, pair
    A7). Later rates are corrected with it. Names the detector that stays blind too long.
    """

    name: ClassVar[str] = "dead_time"
    needs: ClassVar[tuple[str, ...]] = ("detector_delay",)
    valid_s: ClassVar[float] = 90 * 86_400.0
    disturbs: ClassVar[Disturbs] = Disturbs.LINK
    deferred: ClassVar[bool] = True
    cost_s: ClassVar[float] = 1.2
    equation: ClassVar[str] = "pairs(D) / pairs(far) = 1 - exp(-(D - t_d) / t_r) for D > t_d, else 0; tau = t_d + t_r"

    async def calibrate(self, context: CalibrationContext) -> Record:
        scale = await choose_scale(context, X0, RATE_HZ)
        s = context.settings
        found: list[Pairs] = []
        async with tagging(context):
            for k in range(PIECES):
                # In phase, X0 leaves by one detector and X1 by the other.
                await illuminate(context, (X0, X1)[k % 2], scale)
                t, channel = await collect(context, PIECE_S)
                pieces = [
                    pairs_of(t[channel == d], s.symbol_period_ps, s.bin_ps, 2 if d else 1, PIECE_S) for d in range(3)
                ]
                found = [a.add(b) for a, b in zip(found, pieces, strict=True)] if found else pieces
                self.report(context, (k + 1) / PIECES)
        await context.need_light().set(LightMode.OFF)
        fits = [self._fit(name, pairs) for name, pairs in zip(DETECTORS, found, strict=True)]
        value: dict[str, float] = {}
        raw: dict[str, Array] = {}
        sum_of = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
        for name, fit in zip(DETECTORS, fits, strict=True):
            value |= {f"{name}_dead_s": fit.dead_s, f"{name}_recovery_s": fit.recovery_s}
            value[f"{name}_tau_s"] = fit.dead_s + fit.recovery_s
            raw |= {f"{name}_at_s": np.asarray(fit.at_s), f"{name}_alive": np.asarray(fit.alive)}
        residuals = np.concatenate([f.residuals for f in fits])
        return await self.make_record(
            context,
            value,
            raw,
            names=tuple(value),
            covariance=block_diagonal([sum_of @ f.covariance @ sum_of.T for f in fits]),
            residual_rms=float(np.sqrt(np.mean(residuals**2))),
            residuals=residuals.tolist(),
        )

    def _fit(self, name: str, pairs: Pairs) -> DeadTime:
        try:
            return fit_dead_time(pairs, DEAD_S, RECOVERY_S)
        except FitRefused as e:
            why = f"detector {name}: {e} ({pairs.total:.0f} pairs up to {LAST} slots apart)"
            raise CalibrationRefused(self.name, why) from e

    def figures(self, record: Record, raw: Raw) -> Sequence[Figure]:
        series: list[Series] = []
        for name in DETECTORS:
            at, alive = np.asarray(raw[f"{name}_at_s"]), np.asarray(raw[f"{name}_alive"])
            series.append(Series(name, (at * 1e9).tolist(), alive.tolist()))
            line = np.linspace(0.0, float(at.max()), POINTS)
            model = awake(line, record.value[f"{name}_dead_s"], record.value[f"{name}_recovery_s"])
            series.append(Series(f"{name} model", (line * 1e9).tolist(), model.tolist(), "line"))
        title = "Second clicks after a click, against far ones"
        return [Plot(title, "time between the two (ns)", "share (1)", series)]


class EfficiencyBalance(Procedure):
    """DX0 against DX1 by the four satellites, which both couplers cancel in, and X against Z at the working point, dead
    time taken off by n = m/(1 - m tau) (reference control B10, pair A5).
    """

    name: ClassVar[str] = "efficiency_balance"
    needs: ClassVar[tuple[str, ...]] = ("dead_time",)
    valid_s: ClassVar[float] = 30 * 86_400.0
    disturbs: ClassVar[Disturbs] = Disturbs.LINK
    deferred: ClassVar[bool] = True
    cost_s: ClassVar[float] = 0.9
    equation: ClassVar[str] = (
        "eta(DX0)/eta(DX1) = sqrt(x00 x02 / (x10 x12)); X/Z = (n(DX0) + n(DX1))/n(DZ), n = m / (1 - m tau)"
    )

    async def calibrate(self, context: CalibrationContext) -> Record:
        await choose_scale(context, X0, BRIGHT_RATE)
        async with tagging(context):
            rows = [await read_bins(context, 0.2) for _ in range(2)]
        seconds = 0.2
        counted = await total_rates(context, seconds)
        await context.need_light().set(LightMode.OFF)
        tau = np.array([context.record("dead_time").value[f"{n}_tau_s"] for n in DETECTORS])
        tau_sigma = np.array([context.record("dead_time").sigma(f"{n}_tau_s") for n in DETECTORS])
        rates = true_rate(counted, tau)
        darks = np.array([context.record("detector_bias").value[f"{n}_dark_hz"] for n in DETECTORS])
        light = rates - darks
        if float(light.min()) <= 0.0:
            worst = DETECTORS[int(light.argmin())]
            raise CalibrationRefused(
                self.name, f"detector {worst}: {counted.min():.0f} counts/s in X light, not more than its dark counts"
            )
        pairs = [r.efficiencies() for r in rows]
        weight = np.array([1.0 / s**2 for _, s in pairs])
        ratio = exp(float(weight @ np.array([v for v, _ in pairs])) / float(weight.sum()))
        x_over_z = float((light[1] + light[2]) / light[0])
        counting = 1.0 / (counted[1] + counted[2]) + 1.0 / counted[0]
        blind = float(np.sum(np.square(rates * tau_sigma * np.array([1.0, 0.5, 0.5]))))
        return await self.make_record(
            context,
            {
                "efficiency_ratio": ratio,
                "x_over_z": x_over_z,
                "rate_imbalance": log(float(light[1] / light[2])),
                **{f"{n}_hz": float(r) for n, r in zip(DETECTORS, rates, strict=True)},
            },
            {"rates": counted, "at": np.arange(3.0), **{k: [r.row()[k] for r in rows] for k in rows[0].row()}},
            names=("efficiency_ratio", "x_over_z"),
            covariance=diagonal([ratio / sqrt(float(weight.sum())), x_over_z * sqrt(counting / seconds + blind)]),
        )

    def figures(self, record: Record, raw: Raw) -> Sequence[Figure]:
        at = [float(k) for k in range(3)]
        counted = Series("counted", at, (np.asarray(raw["rates"]) * 1e-3).tolist())
        true = Series("without dead time", at, [record.value[f"{n}_hz"] * 1e-3 for n in DETECTORS])
        return [Plot("Rates of DZ, DX0, DX1 with X light", "detector", "rate (1000/s)", [counted, true])]
