"""Absolute mean photon numbers of all eight classes, and the attenuator's setting."""

from __future__ import annotations

from collections.abc import Sequence
from math import hypot, log, log10, sqrt
from typing import ClassVar

from calibration.context import CalibrationContext, CalibrationRefused
from calibration.factory import Attenuator, MeanPhoton
from calibration.names import INTENSITIES, STATES
from calibration.noise import reading_noise
from calibration.plot import Figure, Plot, Series
from calibration.procedure import CheckResult, Disturbs, Procedure, Raw
from calibration.procedures.light import energy, shine
from calibration.procedures.log_tia import steepness
from calibration.procedures.patterning import widest
from calibration.record import Record
from drivers.roles import LightMode

SAMPLES = 64
# PA3 in FIX Z0 against the record before the working point has moved: the power loop holds it in service.
CHECK_LIMIT = 0.1
# C, S and D still creep between this and the readings before them (reference pair A7): relative, of a ratio.
CREEP_SIGMA = 5e-4


class MeanPhotonNumber(Procedure):
    """mu = K I_pa3 T 10^(-A/10) per class; the attenuator for the wanted mean (reference control B10, pair A2).

    `mu_signal_low` to `mu_signal_high` holds every class of that intensity with two standard uncertainties: factory
    constant, attenuator table, amplifier and reading; where a record of patterning exists, by what a symbol's energy
    depends on the symbol before it, too. `i_*_a` are PA3's currents by class, for the power loop.
    The attenuator is left at its set point, the light off.
    """

    name: ClassVar[str] = "mean_photon"
    needs: ClassVar[tuple[str, ...]] = ("decoy", "crosstalk")
    valid_s: ClassVar[float] = 86_400.0
    cost_s: ClassVar[float] = 0.3
    check_disturbs: ClassVar[Disturbs] = Disturbs.KEYS
    renews: ClassVar[bool] = True
    equation: ClassVar[str] = "mu = K (I(pa3) - leak) T 10^(-A/10); A so that mu(Z, signal) is the wanted mean"

    async def calibrate(self, context: CalibrationContext) -> Record:
        scale, table = _factory(context)
        currents: dict[str, float] = {}
        for s, state in enumerate(STATES):
            for k, intensity in enumerate(INTENSITIES):
                currents[f"{state}_{intensity}"] = await energy(context, s, k, SAMPLES)
                self.report(context, len(currents) / 8)
        period_s = context.settings.symbol_period_ps * 1e-12
        # What leaks between the slots' windows is no part of any symbol.
        signal = (currents["z0_signal"] + currents["z1_signal"]) / 2.0
        leak = context.record("decoy").value["background"] * signal
        slope = steepness(context, "pa3")
        true = {name: slope.corrected(i - leak) for name, i in currents.items()}
        bare = {name: scale.constant * i * period_s for name, i in true.items()}
        wanted = context.settings.mu_signal
        needed_db = 10.0 * log10((bare["z0_signal"] + bare["z1_signal"]) / 2.0 / wanted)
        try:
            volts = table.voltage(needed_db)
        except ValueError as e:
            raise CalibrationRefused(self.name, f"{wanted} photons a symbol cannot be set: {e}") from e
        await context.biases.set_voltage("voa", volts)
        await shine(context, LightMode.OFF)
        value = {"voa_v": volts, "voa_db": needed_db, "wanted_mu": wanted}
        mu = {name: m * 10.0 ** (-needed_db / 10.0) for name, m in bare.items()}
        # Slope and intercept are common to all classes; the slope acts on the step between the intensities.
        amplifier = slope.relative_sigma(currents["z0_signal"])
        common = sqrt(scale.relative_sigma**2 + (table.sigma_db * log(10.0) / 10.0) ** 2 + amplifier**2)
        noise = reading_noise(context)
        own = hypot(noise.share("pa3", currents["z0_decoy"], SAMPLES), CREEP_SIGMA)
        ratio = hypot(own, log(bare["z0_signal"] / bare["z0_decoy"]) * slope.slope_sigma)
        value |= _intervals(mu, hypot(common, own), widest(context))
        value |= {f"mu_{n}": m for n, m in mu.items()} | {f"i_{n}_a": i for n, i in currents.items()}
        return await self.make_record(
            context,
            value,
            currents,
            names=("mu_signal", "mu_decoy", "decoy_ratio"),
            covariance=_covariance(value, common, own / sqrt(2.0), ratio),
        )

    async def apply(self, context: CalibrationContext, record: Record) -> None:
        await context.biases.set_voltage("voa", record.value["voa_v"])
        await context.settle()

    async def check(self, context: CalibrationContext, record: Record) -> CheckResult | str:
        wanted = context.settings.mu_signal
        if record.value["wanted_mu"] != wanted:
            return f"a mean of {wanted} is asked for now"
        try:
            seen = await energy(context, 0, 0, SAMPLES)
        finally:
            await shine(context, LightMode.OFF)
        off = seen / record.value["i_z0_signal_a"] - 1.0
        if abs(off) > CHECK_LIMIT:
            why = f"pa3 sees {seen:.3g} A of a bright Z0, {off:+.1%} from the record; {CHECK_LIMIT:.0%} is the limit"
            return CheckResult.out_of_spec(why, {"i_z0_signal_a": seen})
        return CheckResult.in_spec({"i_z0_signal_a": seen})

    def figures(self, record: Record, raw: Raw) -> Sequence[Figure]:
        v, series = record.value, []
        for intensity in INTENSITIES:
            mu = [v[f"mu_{state}_{intensity}"] for state in STATES]
            series.append(Series(intensity, [0.0, 1.0, 2.0, 3.0], mu))
            for end in ("low", "high"):
                level = v[f"mu_{intensity}_{end}"]
                series.append(Series(f"{intensity}, {end}", [0.0, 3.0], [level, level], "line"))
        return [Plot("Mean photon numbers", "state (Z0, Z1, X0, X1)", "photons a symbol (1)", series)]


def _factory(context: CalibrationContext) -> tuple[MeanPhoton, Attenuator]:
    if context.factory.mean_photon is None or context.factory.voa is None:
        raise CalibrationRefused("mean_photon", "the factory record has no photon scale or no attenuator table")
    return context.factory.mean_photon, context.factory.voa


def _intervals(mu: dict[str, float], relative: float, patterning: dict[str, float]) -> dict[str, float]:
    """`patterning`: by intensity, how far the symbol before may move an energy from its class's mean, relative."""
    out: dict[str, float] = {}
    for intensity in INTENSITIES:
        z = [mu[f"{s}_{intensity}"] for s in ("z0", "z1")]
        every = [mu[f"{s}_{intensity}"] for s in STATES]
        wide = 2.0 * relative + patterning.get(intensity, 0.0)
        out[f"mu_{intensity}"] = sum(z) / 2.0
        out[f"mu_{intensity}_low"] = min(every) * (1.0 - wide)
        out[f"mu_{intensity}_high"] = max(every) * (1.0 + wide)
    out["decoy_ratio"] = out["mu_decoy"] / out["mu_signal"]
    return out


def _covariance(value: dict[str, float], common: float, own: float, ratio: float) -> tuple[tuple[float, ...], ...]:
    """Over mu_signal, mu_decoy, decoy_ratio: the scale is common to both intensities and cancels in their ratio."""
    ms, md, r = value["mu_signal"], value["mu_decoy"], value["decoy_ratio"]
    c, o = common**2, own**2
    return (
        (ms * ms * (c + o), ms * md * c, -ms * r * o),
        (ms * md * c, md * md * (c + o), md * r * o),
        (-ms * r * o, md * r * o, r * r * ratio**2),
    )
