"""Input coupler of the transmitter's interferometer: early and late pulse of equal energy."""

from __future__ import annotations

from collections.abc import Sequence
from math import acos, exp, hypot, log, pi
from typing import ClassVar

import numpy as np

from calibration.context import CalibrationContext
from calibration.fit import Array, FitRefused, Fringe, LeastSquares, added, choose_power, gauss_newton, judged
from calibration.noise import amplifier_variants, power_variants
from calibration.plot import Figure, Plot, Series
from calibration.procedure import CheckResult, Disturbs, Procedure, Raw
from calibration.procedures.figures import POINTS
from calibration.procedures.fringes import MODEL_RAD, block
from calibration.procedures.light import SAMPLES, energy, ratio_sigma, shine
from calibration.procedures.sweeps import DIE_RAD_PER_W, die_power, heater_fringe, heater_sweep
from calibration.record import Record, block_diagonal
from drivers.roles import LightMode

# Early over late, logarithmic: 15 degrees of the coupler, which its neighbours' powers may be worth at the time of this
# check; `crosstalk`, with all powers set, looks closer.
CHECK_LIMIT = 0.5


class AmziSplit(Procedure):
    """A1 so that PA3 reads the same for FIX Z0 and FIX Z1 (reference pair A2: E = L after the AMZI).

    E goes with cos^2(x/2), L with l sin^2(x/2), both over PA0: one fit of both gives P_pi, the long arm's transmission
    l, and the balance, whatever l is and however much S leaks of the other bin.
    """

    name: ClassVar[str] = "amzi_split"
    needs: ClassVar[tuple[str, ...]] = ("state_bias",)
    cost_s: ClassVar[float] = 0.4
    check_disturbs: ClassVar[Disturbs] = Disturbs.KEYS
    renews: ClassVar[bool] = True
    layout: ClassVar[int] = 2
    equation: ClassVar[str] = "E = e [1 + Ve cos x], L = l [1 - Vl cos x], x = phi0 + pi P / P_pi; set E = L"

    async def calibrate(self, context: CalibrationContext) -> Record:
        async def row() -> dict[str, float]:
            out: dict[str, float] = {}
            for state, name in ((0, "early"), (1, "late")):
                await shine(context, LightMode.FIX, state)
                seen = await context.photocurrents("pa3", "pa0", samples=SAMPLES)
                out[f"{name}_pa3"], out[f"{name}_pa0"] = seen["pa3"], seen["pa0"]
            return out

        powers, seen = await heater_sweep(context, "split", row, done=lambda f: self.report(context, f))
        sweep = _Sweep(context, powers, seen)
        fit = judged(sweep.solved(sweep.y, powers), "early and late pulse", bounded=True)
        p = fit.parameters[:6]
        ys = [_with(seen, d, v) for d in ("pa3", "pa0") for v in _amplifier(context, seen, d)]
        common = added(lambda y: sweep.solved(y, powers).parameters, sweep.y, ys)
        bent = [(x, sweep.solved(sweep.y, x).parameters) for x in power_variants(context, "split", powers)]
        true_watts = sum((np.outer(q - fit.parameters, q - fit.parameters) for _, q in bent), np.zeros((7, 7)))
        fringe = Fringe(float(p[0]), float(p[2]), float(p[4]), float(p[5]), np.zeros((4, 4)), fit.residual_rms)
        turn = balance(p)
        top = context.drive.max_power("split")
        chosen = min((choose_power(fringe, t, top) for t in (turn, -turn)), key=lambda c: c.power_w)
        await context.drive.set_power("split", chosen.power_w)
        await context.settle()
        sign = 1.0 if abs((fringe.phase(chosen.power_w) - turn + pi) % (2 * pi) - pi) < 0.1 else -1.0
        power_sigma = _power_sigma(p, (fit.covariance + common)[:6, :6], chosen.power_w, sign)
        for true, q in bent:
            moved = float(np.interp(_power_at(q, chosen.power_w, sign), true, powers))
            power_sigma = hypot(power_sigma, moved - chosen.power_w)
        whole = fit.covariance + common + true_watts
        value = {
            "phi0_rad": float(p[4]),
            "p_pi_w": float(p[5]),
            "power_w": chosen.power_w,
            "margin": chosen.margin,
            "order": chosen.order,
            "early": float(p[0]),
            "late": float(p[1]),
            "early_visibility": float(p[2]),
            "late_visibility": float(p[3]),
            "long_transmission": float(p[1] / p[0]),
            "reduced_chi2": fit.reduced_chi2,
        }
        return await self.make_record(
            context,
            value,
            {"power_w": powers, **seen},
            names=("phi0_rad", "p_pi_w", "power_w"),
            covariance=block_diagonal([whole[4:6, 4:6], block(power_sigma)]),
            residual_rms=float(np.sqrt(np.mean(sweep.residuals(fit) ** 2))),
            residuals=sweep.residuals(fit).tolist(),
        )

    async def apply(self, context: CalibrationContext, record: Record) -> None:
        await context.drive.set_power("split", record.value["power_w"])
        await context.settle()

    async def check(self, context: CalibrationContext, record: Record) -> CheckResult:
        """Energies of both Z states, at the powers as they are."""
        try:
            ratio = await energy(context, 0) / await energy(context, 1)
        finally:
            await shine(context, LightMode.OFF)
        if abs(log(ratio)) > CHECK_LIMIT:
            why = f"early over late pulse is {ratio:.3f}; {exp(CHECK_LIMIT):.2f} either way is the limit"
            return CheckResult.out_of_spec(why, {"early_over_late": ratio})
        return CheckResult.in_spec({"early_over_late": ratio})

    def figures(self, record: Record, raw: Raw) -> Sequence[Figure]:
        v, x = record.value, np.asarray(raw["power_w"])
        q = np.array([v[n] for n in ("early", "late", "early_visibility", "late_visibility", "phi0_rad", "p_pi_w")])
        line = np.linspace(float(x.min()), float(x.max()), POINTS)
        parts = np.split(model(line, q), 2)
        series = []
        for name, part in zip(("early", "late"), parts, strict=True):
            seen = np.asarray(raw[f"{name}_pa3"]) / np.asarray(raw[f"{name}_pa0"])
            series.append(Series(name, (1e3 * x).tolist(), seen.tolist()))
            series.append(Series(f"{name}, model", (1e3 * line).tolist(), part.tolist(), "line"))
        marks = ((1e3 * v["power_w"], "balance"),)
        return [Plot("Early and late pulse", "heater power (mW)", "photocurrent pa3 / pa0 (1)", series, marks)]


def model(x: Array, q: Array) -> Array:
    """(early, late) one after the other, (2 n,), for powers x; q: e, l, Ve, Vl, phi0, P_pi."""
    c = np.cos(q[4] + pi * x / q[5])
    return np.concatenate([q[0] * (1.0 + q[2] * c), q[1] * (1.0 - q[3] * c)])


def balance(q: Array) -> float:
    """Phase x at which E = L, rad, 0 to pi."""
    return acos(float(np.clip((q[1] - q[0]) / (q[0] * q[2] + q[1] * q[3]), -1.0, 1.0)))


def _ratios(context: CalibrationContext, seen: dict[str, Array]) -> tuple[Array, Array]:
    y = np.concatenate([seen[f"{n}_pa3"] / seen[f"{n}_pa0"] for n in ("early", "late")])
    relative = np.concatenate(
        [ratio_sigma(context, "pa3", "pa0", seen[f"{n}_pa3"], seen[f"{n}_pa0"], SAMPLES) for n in ("early", "late")]
    )
    return y, np.abs(y) * relative


def _amplifier(context: CalibrationContext, seen: dict[str, Array], diode: str) -> list[dict[str, Array]]:
    pairs = [amplifier_variants(context, diode, seen[f"{n}_{diode}"]) for n in ("early", "late")]
    return [{"early": e, "late": late} for e, late in zip(*pairs, strict=True)]


def _with(seen: dict[str, Array], diode: str, moved: dict[str, Array]) -> Array:
    """The ratios with one diode's readings replaced."""
    parts = []
    for n in ("early", "late"):
        now = {"pa3": seen[f"{n}_pa3"], "pa0": seen[f"{n}_pa0"], diode: moved[n]}
        parts.append(now["pa3"] / now["pa0"])
    return np.concatenate(parts)


class _Sweep:
    """Both series of a sweep, and the fit of the law above with the die's course along (see `fringes.measure`)."""

    def __init__(self, context: CalibrationContext, powers: Array, seen: dict[str, Array]) -> None:
        """Raises FitRefused when there is no fringe."""
        self.context = context
        self.y, noise = _ratios(context, seen)
        n = len(powers)
        y = self.y[:n]
        first = heater_fringe(context, powers, y, noise[:n] + 0.02 * y.max(), 0.5, absolute=False)
        late = float(self.y[n:].mean())
        self.start = np.array([first.offset, late, first.visibility, 0.95, first.phi0_rad, first.x_pi, 0.0])
        felt = die_power(powers, seen)
        self.felt = felt - felt[np.argmax(seen["at_s"])]
        slope = np.sin(first.phi0_rad + pi * powers / first.x_pi)
        self.sigma = np.hypot(noise, MODEL_RAD * np.concatenate([first.offset * slope, late * slope]))

    def solved(self, y: Array, powers: Array) -> LeastSquares:
        """Over e, l, Ve, Vl, phi0, P_pi and the die's rad/W. Raises FitRefused: no coupler is like that."""

        def whitened(q: Array) -> Array:
            x = powers + q[6] * q[5] / pi * self.felt
            return np.append(model(x, q) / self.sigma, q[6] / DIE_RAD_PER_W)

        wanted = np.append(y / self.sigma, 0.0)
        fit = gauss_newton(whitened, self.start, wanted, np.ones(len(wanted)), absolute=True)
        low, high = self.context.settings.heater_p_pi_w
        e, late, ve, vl, _, x_pi, _ = (float(v) for v in fit.parameters)
        if not (low <= x_pi <= high and min(ve, vl) > 0.5 and max(ve, vl) < 1.05 and 0.3 < late / e < 1.5):
            raise FitRefused(
                f"early and late pulse fit no coupler: half period {x_pi * 1e3:.1f} mW, visibilities {ve:.2f} and "
                f"{vl:.2f}, long arm {late / e:.2f}"
            )
        return fit

    def residuals(self, fit: LeastSquares) -> Array:
        return np.asarray(fit.residuals[:-1] * self.sigma)


def _power_at(q: Array, near_w: float, sign: float) -> float:
    """Balanced power, phi0 + pi P/P_pi = sign x + 2 pi k, next to a known one, W."""
    period = 2.0 * float(q[5])
    at = float((sign * balance(q) - q[4]) * q[5] / pi)
    return at + period * round((near_w - at) / period)


def _power_sigma(p: Array, covariance: Array, watts: float, sign: float) -> float:
    """Standard uncertainty of the balanced power, W."""
    steps = 1e-5 * np.maximum(np.abs(p), 1e-4)
    g = np.array(
        [
            (_power_at(p + h, watts, sign) - _power_at(p - h, watts, sign)) / (2 * s)
            for s, h in zip(steps, np.diag(steps), strict=True)
        ]
    )
    return float(np.sqrt(max(0.0, g @ covariance @ g)))
