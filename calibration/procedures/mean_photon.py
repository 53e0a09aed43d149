"""Absolute mean photon numbers of all eight classes, and the attenuator's setting."""

from __future__ import annotations

from math import log, log10, sqrt
from typing import ClassVar

from calibration.context import CalibrationContext, CalibrationRefused
from calibration.factory import Attenuator, MeanPhoton
from calibration.names import INTENSITIES, STATES
from calibration.procedure import Procedure
from calibration.procedures.light import energy, shine
from calibration.record import Record
from drivers.roles import LightMode

SAMPLES = 16
# Relative scatter of the mean of one class's readings.
READ_SIGMA = 0.001


class MeanPhotonNumber(Procedure):
    """mu = K I_pa3 T 10^(-A/10) per class; the attenuator for the wanted mean (reference control B10, pair A2).

    `mu_signal_low` to `mu_signal_high` holds every class of that intensity with two standard uncertainties: factory
    constant, attenuator table, amplifier and reading. `i_*_a` are PA3's currents by class, for the power loop.
    The attenuator is left at its set point, the light off.
    """

    name: ClassVar[str] = "mean_photon"
    needs: ClassVar[tuple[str, ...]] = ("decoy", "shutter")
    valid_s: ClassVar[float] = 86_400.0

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
        bare = {name: scale.constant * (i - leak) * period_s for name, i in currents.items()}
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
        amplifier = context.factory.photodiode("pa3").relative_sigma(currents["z0_signal"])
        parts = (scale.relative_sigma, table.sigma_db * log(10.0) / 10.0, amplifier, READ_SIGMA)
        relative = sqrt(sum(p * p for p in parts))
        value |= _intervals(mu, relative)
        value |= {f"mu_{n}": m for n, m in mu.items()} | {f"i_{n}_a": i for n, i in currents.items()}
        return await self.make_record(
            context,
            value,
            currents,
            names=("mu_signal", "mu_decoy", "decoy_ratio"),
            # The scale is common to both intensities; it cancels in their ratio.
            covariance=_covariance(value, relative),
        )

    async def apply(self, context: CalibrationContext, record: Record) -> None:
        await context.biases.set_voltage("voa", record.value["voa_v"])
        await context.settle()

    async def check(self, context: CalibrationContext, record: Record) -> str | None:
        wanted = context.settings.mu_signal
        return None if record.value["wanted_mu"] == wanted else f"a mean of {wanted} is asked for now"


def _factory(context: CalibrationContext) -> tuple[MeanPhoton, Attenuator]:
    if context.factory.mean_photon is None or context.factory.voa is None:
        raise CalibrationRefused("mean_photon", "the factory record has no photon scale or no attenuator table")
    return context.factory.mean_photon, context.factory.voa


def _intervals(mu: dict[str, float], relative: float) -> dict[str, float]:
    out: dict[str, float] = {}
    for intensity in INTENSITIES:
        z = [mu[f"{s}_{intensity}"] for s in ("z0", "z1")]
        every = [mu[f"{s}_{intensity}"] for s in STATES]
        out[f"mu_{intensity}"] = sum(z) / 2.0
        out[f"mu_{intensity}_low"] = min(every) * (1.0 - 2.0 * relative)
        out[f"mu_{intensity}_high"] = max(every) * (1.0 + 2.0 * relative)
    out["decoy_ratio"] = out["mu_decoy"] / out["mu_signal"]
    return out


def _covariance(value: dict[str, float], relative: float) -> tuple[tuple[float, ...], ...]:
    ms, md, r = value["mu_signal"], value["mu_decoy"], value["decoy_ratio"]
    common = relative**2 - READ_SIGMA**2
    own = READ_SIGMA**2 / 2.0
    a, b = common + own, common + own
    return (
        (ms * ms * a, ms * md * common, -ms * r * own),
        (ms * md * common, md * md * b, md * r * own),
        (-ms * r * own, md * r * own, r * r * 2.0 * own),
    )
