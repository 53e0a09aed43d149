"""Bias of the single-photon detectors: plateau in light, then dark counts at the chosen bias."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from calibration.context import CalibrationContext, CalibrationRefused
from calibration.dead_time import counted_rate, true_rate
from calibration.detector_fit import SLOPE_MAX, Darks, Plateau, fit_darks, fit_plateau
from calibration.fit import Array, FitRefused, added
from calibration.names import DETECTORS
from calibration.plot import Figure
from calibration.procedure import CheckResult, Disturbs, Procedure, Raw
from calibration.procedures.receiver_figures import plateaus
from calibration.procedures.sweeps import count_sigma
from calibration.procedures.tags import choose_scale, dead_times, illuminate, total_rates
from calibration.record import Record, block_diagonal
from drivers.roles import LightMode

# Every detector begins with these, A; the width of a plateau's edge is about a ninth of its centre (pair A7).
FIRST_A, FIRST_S = (11e-6, 14e-6, 17e-6), 0.04
USUAL_WIDTH = 1.0 / 9.0
# Then these many widths from the centre that the first ones say.
PLACES, READ_S = (-0.8, -0.1, 0.6, 1.3, 2.0, 2.6), 0.1
# Darks are read this far below the chosen bias, for so long.
DARK_BELOW_A, DARK_S = (1.4e-6, 0.7e-6, 0.0), (0.25, 0.25, 0.6)
# A detector that latches early is run below that, where its rate still rises by no more than this per uA.
BACKED_OFF_SLOPE = 0.03
RESET_S = 0.05
# Light wanders from point to point by polarisation and laser (pair A7), relative; until the record is stored, too. At
# the X detectors what leaks into the late bin interferes, with a phase that follows the die's temperature.
POINT_SHARE, TOP_SHARE = 1e-3, (0.002, 0.006, 0.006)


class DetectorBias(Procedure):
    """Plateau DE = DE_max/2 (1 + erf((I - I0)/w)) and darks a f(I) + b exp(I/e) (reference control B8, pair A7).

    Nine biases a detector, six of them placed by what the first three show. One that latches, seen by its bias voltage,
    is reset and never driven there again. Names the detector that has no light, no plateau, too many dark counts, that
    stays latched, or whose counts come on the other one's channel.
    """

    name: ClassVar[str] = "detector_bias"
    needs: ClassVar[tuple[str, ...]] = ("heater_iv",)
    disturbs: ClassVar[Disturbs] = Disturbs.LINK
    cost_s: ClassVar[float] = 4.4
    layout: ClassVar[int] = 2
    equation: ClassVar[str] = "n = top/2 [1 + erf((I - I0) / w)], n = m / (1 - m tau); dark = a n/top + b exp(I / e)"

    async def calibrate(self, context: CalibrationContext) -> Record:
        await context.need_detectors().set_bias([context.settings.detector_probe_a] * 3)
        await self._must_be_awake(context)
        await choose_scale(context)
        await self._light_all(context)
        await self._must_be_itself(context)
        scale = await choose_scale(context)
        sweep = await _Sweep(context).run(lambda f: self.report(context, 0.6 * f))
        plateaus_ = [self._plateau(context, sweep, d) for d in range(3)]
        chosen = np.array([min(p.choose(), sweep.limit[d]) for d, p in enumerate(plateaus_)])
        for d, p in enumerate(plateaus_):
            self._must_be_flat(d, p, float(chosen[d]), bool(sweep.backed_off[d]))
        self.report(context, 0.7, "plateaus found")
        chosen = await self._back_off(context, chosen, scale)
        darks, counts = await self._darks(context, chosen, plateaus_)
        value: dict[str, float] = {"scale": scale}
        blocks: list[Array] = []
        for d, name in enumerate(DETECTORS):
            p = plateaus_[d]
            value |= {f"{name}_bias_a": chosen[d], f"{name}_dark_hz": darks[d].rate(float(chosen[d]))}
            value |= {f"{name}_top_hz": p.top, f"{name}_centre_a": p.centre_a, f"{name}_width_a": p.width_a}
            blocks += [np.asarray(p.covariance), np.array([[darks[d].sigma(float(chosen[d])) ** 2]])]
        return await self.make_record(
            context,
            value,
            {"bias_a": np.array(sweep.bias), "rates": np.array(sweep.rates), "dark": counts},
            names=tuple(f"{n}_{q}" for n in DETECTORS for q in ("top_hz", "centre_a", "width_a", "dark_hz")),
            covariance=block_diagonal(blocks),
            residual_rms=max(p.residual_rms for p in plateaus_),
            residuals=np.concatenate([p.residuals for p in plateaus_]).tolist(),
        )

    def figures(self, record: Record, raw: Raw) -> Sequence[Figure]:
        return plateaus(record, raw)

    async def check(self, context: CalibrationContext, record: Record) -> CheckResult:
        """No detector is latched: bias voltages alone, nothing is moved. One that stays so is another detector."""
        volts = await context.need_detectors().read_bias_voltage()
        if max(volts) > context.settings.detector_latched_v:
            # A loop, or the bias that was just applied, may be at it.
            await context.sleep(0.3)
            volts = await context.need_detectors().read_bias_voltage()
        read = {f"{n}_v": float(v) for n, v in zip(DETECTORS, volts, strict=True)}
        worst = int(np.argmax(volts))
        if volts[worst] > context.settings.detector_latched_v:
            return CheckResult.out_of_spec(
                f"detector {DETECTORS[worst]} is latched: {volts[worst]:.2f} V at the bias tee; "
                f"{context.settings.detector_latched_v:g} V is the limit",
                read,
            )
        return CheckResult.in_spec(read)

    async def _must_be_awake(self, context: CalibrationContext) -> None:
        """Raises CalibrationRefused for a detector that latches at the probe's bias even after a reset."""
        for _ in range(3):
            volts = np.array(await context.need_detectors().read_bias_voltage())
            if not (volts > context.settings.detector_latched_v).any():
                return
            await unlatch(context, [context.settings.detector_probe_a] * 3)
        worst = int(volts.argmax())
        raise CalibrationRefused(
            self.name,
            f"detector {DETECTORS[worst]} stays latched: {volts[worst]:.2f} V at "
            f"{context.settings.detector_probe_a * 1e6:.0f} uA after three resets; "
            f"{context.settings.detector_latched_v:g} V is the limit",
        )

    async def _must_be_itself(self, context: CalibrationContext) -> None:
        """With one X detector biased, its own channel counts. Raises CalibrationRefused when the other's does."""
        probe = context.settings.detector_probe_a
        for own, other in ((1, 2), (2, 1)):
            await context.need_detectors().set_bias([probe if d in (0, own) else 0.0 for d in range(3)])
            await context.settle()
            rates = await total_rates(context, 0.02)
            if rates[other] > 10.0 * (rates[own] + 100.0):
                raise CalibrationRefused(
                    self.name,
                    f"detectors dx0 and dx1 are exchanged: with only {DETECTORS[own]} biased, {DETECTORS[other]} gives "
                    f"{rates[other]:.0f} counts/s and {DETECTORS[own]} {rates[own]:.0f}; ten times its own and 1000 "
                    "is the limit",
                )
        await context.need_detectors().set_bias([probe] * 3)
        await context.settle()

    def _plateau(self, context: CalibrationContext, sweep: _Sweep, d: int) -> Plateau:
        bias, counted, seconds = (np.array(c) for c in (sweep.bias, sweep.rates, sweep.seconds))
        own = np.array(sweep.own)[:, d]
        bias, counted, seconds = bias[own, d], counted[own, d], seconds[own]
        tau, sigma_tau = (float(t[d]) for t in dead_times(context))

        def solved(tau_s: float) -> Plateau:
            rates = true_rate(counted, tau_s)
            noise = count_sigma(counted * seconds) / seconds * np.square(1.0 / (1.0 - counted * tau_s))
            fit = fit_plateau(bias, rates, noise, POINT_SHARE)
            scale = 1.0 / (1.0 + fit.top * tau_s) ** 2
            g = np.diag([scale, 1.0, 1.0])
            top = float(counted_rate(fit.top, tau_s))
            return Plateau(top, fit.centre_a, fit.width_a, g @ fit.covariance @ g, fit.residuals, fit.residual_rms)

        def parameters(tau_s: Array) -> Array:
            p = solved(float(tau_s[0]))
            return np.array([p.top, p.centre_a, p.width_a])

        try:
            p = solved(tau)
            dead = added(parameters, np.array([tau]), [np.array([tau + sigma_tau])])
        except FitRefused as e:
            raise CalibrationRefused(self.name, f"detector {DETECTORS[d]}: {e}") from e
        light = np.diag([(TOP_SHARE[d] * p.top) ** 2, 0.0, 0.0])
        return Plateau(p.top, p.centre_a, p.width_a, p.covariance + dead + light, p.residuals, p.residual_rms)

    def _must_be_flat(self, d: int, plateau: Plateau, bias_a: float, backed_off: bool) -> None:
        slope, limit = plateau.slope_per_ua(bias_a), BACKED_OFF_SLOPE if backed_off else SLOPE_MAX
        if slope > limit:
            raise CalibrationRefused(
                self.name,
                f"detector {DETECTORS[d]}: no plateau up to {bias_a * 1e6:.1f} uA: the rate still rises by {slope:.1%} "
                f"per uA; {limit:.0%} is the limit",
            )

    async def _light_all(self, context: CalibrationContext) -> None:
        """Heaters of the receiver where every detector gets some of the light."""
        best: tuple[float, dict[str, float]] = (-1.0, {})
        for basis, (split, combine) in product((0.2, 0.4), ((0.2, 0.2), (0.4, 0.2), (0.2, 0.4), (0.4, 0.4))):
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
            await unlatch(context, [float(b) for b in chosen])
        worst = DETECTORS[int(volts.argmax())]
        raise CalibrationRefused(
            self.name, f"detector {worst} latches at {chosen[volts.argmax()] * 1e6:.1f} uA and above"
        )

    async def _darks(
        self, context: CalibrationContext, chosen: Array, plateaus_: Sequence[Plateau]
    ) -> tuple[list[Darks], Array]:
        """Dark counts at and below the chosen bias; the shutter is open again at the end."""
        await context.biases.set_voltage("shutter", context.settings.shutter_closed_v)
        await context.need_light().set(LightMode.OFF)
        await context.sleep(0.02)
        rows = []
        for below, seconds in zip(DARK_BELOW_A, DARK_S, strict=True):
            await context.need_detectors().set_bias([float(b - below) for b in chosen])
            await context.settle()
            rows.append(await total_rates(context, seconds) * seconds)
        await context.biases.set_voltage("shutter", context.settings.shutter_open_v)
        counts, below_a, seconds_ = np.array(rows), np.array(DARK_BELOW_A), np.array(DARK_S)
        out = [fit_darks(chosen[d] - below_a, counts[:, d], seconds_, plateaus_[d]) for d in range(3)]
        rates = np.array([out[d].rate(float(chosen[d])) for d in range(3)])
        worst = int(rates.argmax())
        if rates[worst] > context.settings.dark_rate_max:
            raise CalibrationRefused(
                self.name,
                f"detector {DETECTORS[worst]}: {rates[worst]:.0f} dark counts/s at {chosen[worst] * 1e6:.1f} uA; "
                f"{context.settings.dark_rate_max:.0f} is the limit",
            )
        return out, counts

    async def apply(self, context: CalibrationContext, record: Record) -> None:
        await context.need_detectors().set_bias([record.value[f"{n}_bias_a"] for n in DETECTORS])
        await context.biases.set_voltage("shutter", context.settings.shutter_open_v)
        await context.settle()


@dataclass
class _Sweep:
    """Rows of bias (A), counts/s and reading time, all three detectors at once; `own`: whose row it is.

    `limit`: A, below which a detector has not latched.
    """

    context: CalibrationContext
    bias: list[Array] = field(default_factory=list)
    rates: list[Array] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    own: list[npt.NDArray[np.bool_]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.limit = np.full(3, self.context.settings.detector_bias_a[1])
        self.backed_off = np.zeros(3, dtype=bool)

    async def run(self, done: Callable[[float], None]) -> _Sweep:
        for amperes in FIRST_A:
            await self._read(np.full(3, amperes), FIRST_S)
        first = [self._edge(d) for d in range(3)]
        low = self.context.settings.detector_bias_a[0]
        for k, place in enumerate(PLACES):
            wanted = np.array([centre + place * width for centre, width in first])
            await self._read(np.maximum(wanted, low), READ_S)
            done((k + 1) / len(PLACES))
        return self

    def _edge(self, d: int) -> tuple[float, float]:
        """(centre, width) of the curve of the usual width through the first rows, A."""
        rows = [k for k in range(len(self.bias)) if self.own[k][d]]
        bias, rates = (np.array([float(c[k][d]) for k in rows]) for c in (self.bias, self.rates))
        sigma = count_sigma(rates * FIRST_S) / FIRST_S + 0.02 * max(float(rates.max()), 1.0)
        best = (np.inf, 15e-6)
        for centre in np.linspace(9e-6, 21e-6, 61):
            shape = np.array([_share(b, centre, USUAL_WIDTH * centre) for b in bias])
            top = float(shape @ (rates / sigma**2)) / max(float(shape @ (shape / sigma**2)), 1e-30)
            best = min(best, (float(np.sum(((rates - top * shape) / sigma) ** 2)), float(centre)))
        return best[1], USUAL_WIDTH * best[1]

    async def _read(self, wanted: Array, seconds: float) -> None:
        """One row; a detector that latches on the way is reset, its limit lowered, its reading not used."""
        detectors = self.context.need_detectors()
        bias = np.minimum(wanted, self.limit)
        await detectors.set_bias([float(b) for b in bias])
        await self.context.settle()
        rates = await total_rates(self.context, seconds)
        latched = np.array(await detectors.read_bias_voltage()) > self.context.settings.detector_latched_v
        self.bias.append(bias)
        self.rates.append(rates)
        self.seconds.append(seconds)
        self.own.append(~latched)
        if latched.any():
            self.backed_off |= latched
            self.limit = np.where(latched, np.minimum(self.limit, 0.96 * bias), self.limit)
            await unlatch(self.context, [FIRST_A[0]] * 3)


async def unlatch(context: CalibrationContext, bias_a: list[float]) -> None:
    """Bias off, then on again: what frees a latched detector (reference control B8)."""
    await context.need_detectors().set_bias([0.0, 0.0, 0.0])
    await context.sleep(RESET_S)
    await context.need_detectors().set_bias(bias_a)
    await context.settle()


def _share(bias_a: float, centre_a: float, width_a: float) -> float:
    return Plateau(1.0, centre_a, width_a, np.zeros((3, 3)), np.zeros(0), 0.0).relative(bias_a)


async def _set_shares(context: CalibrationContext, shares: dict[str, float]) -> None:
    for channel, share in shares.items():
        await context.drive.set_power(channel, share * context.drive.max_power(channel))
    await context.settle()
