"""Measured noise of the analogue readings, and what is common to all of them: amplifier laws and R(P).

Noise is measured once, from single conversions, and taken as absolute: the scatter of a fit with four degrees of
freedom says too little (its normalised error squared would be 2). What does not average out enters as variants: the
readings as they would be with one systematic part a standard uncertainty off (`fit.added`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from calibration.context import CalibrationContext
from calibration.factory import Photodiode
from calibration.fit import Array
from calibration.names import HEATER_MONITOR

# Relative, of one conversion, where nothing has been measured.
NOMINAL = 0.005
LEAST = 1e-5


@dataclass(frozen=True)
class ReadingNoise:
    """Relative noise of one conversion by input, 1; dark currents and their uncertainty, A."""

    relative: Mapping[str, float]
    dark_a: Mapping[str, float]
    dark_sigma_a: Mapping[str, float]

    def of(self, name: str, samples: int = 1) -> float:
        """Relative noise of the mean of `samples` conversions."""
        return max(self.relative.get(name, NOMINAL), LEAST) / math.sqrt(samples)

    def sigma(self, diode: str, amperes: Array, samples: int) -> Array:
        """Standard uncertainty, A, of photocurrents from which the dark current has been taken off.

        The noise is a share of all that flows, dark current included.
        """
        flows = np.abs(np.asarray(amperes, dtype=np.float64)) + self.dark_a.get(diode, 0.0)
        return np.hypot(self.of(diode, samples) * flows, self.dark_sigma_a.get(diode, 0.0))

    def share(self, diode: str, amperes: float, samples: int) -> float:
        """`sigma` of one reading as a share of it."""
        return float(self.sigma(diode, np.array([amperes]), samples)[0]) / abs(amperes)


def reading_noise(context: CalibrationContext) -> ReadingNoise:
    """From the records of photodiodes and heaters; nominal for what they do not have."""
    zero, heaters = context.store.active("photodiode_zero"), context.store.active("heater_iv")
    relative: dict[str, float] = {}
    dark: dict[str, float] = {}
    sigma: dict[str, float] = {}
    if zero is not None:
        for name in zero.value:
            if name.endswith("_noise"):
                relative[name.removesuffix("_noise")] = zero.value[name]
            elif name.endswith("_dark_a"):
                diode = name.removesuffix("_dark_a")
                dark[diode] = zero.value[name]
                sigma[diode] = zero.value.get(f"{diode}_dark_noise_a", zero.sigma(name))
    if heaters is not None and "monitor_noise" in heaters.value:
        relative[HEATER_MONITOR] = heaters.value["monitor_noise"]
    return ReadingNoise(relative, dark, sigma)


def amplifier_variants(context: CalibrationContext, diode: str, amperes: Array) -> list[Array]:
    """Photocurrents, dark taken off, as they would read with the amplifier's slope, then its intercept, one sigma off.

    Both laws act on what flows; on the dark current, which was read through the same amplifier, too.
    """
    law = context.factory.photodiode(diode)
    dark = reading_noise(context).dark_a.get(diode, 0.0)
    flows = np.maximum(np.asarray(amperes, dtype=np.float64) + dark, 1e-15)
    steep = _steeper(flows, law) - (float(_steeper(np.array([dark]), law)[0]) if dark > 0.0 else 0.0)
    return [steep, np.asarray(amperes) * (1.0 + law.log_intercept_relative_sigma)]


def _steeper(amperes: Array, law: Photodiode) -> Array:
    return np.asarray(amperes * (amperes / law.log_intercept_a) ** law.log_slope_relative_sigma)


def power_variants(context: CalibrationContext, channel: str, powers_w: Array) -> list[Array]:
    """True powers, W, that belong to believed ones when R(P) is off by each principal part of its uncertainty.

    P = I^2 R0/(1 - I^2 R0 rho) at the same current (reference control B1). Empty without a heater record.
    """
    record = context.store.active("heater_iv")
    names = [f"{channel}_r0_ohm", f"{channel}_rho_per_w"]
    if record is None or any(n not in record.covariance_names for n in names):
        return []
    at = [record.covariance_names.index(n) for n in names]
    covariance = np.asarray(record.covariance)[np.ix_(at, at)]
    r0, rho = (record.value[n] for n in names)
    p = np.asarray(powers_w, dtype=np.float64)
    values, vectors = np.linalg.eigh(covariance)
    out = []
    for value, vector in zip(values, vectors.T, strict=True):
        d_r0, d_rho = math.sqrt(max(0.0, float(value))) * vector
        out.append(p * (1.0 + (1.0 + rho * p) * d_r0 / r0 + p * d_rho))
    return out


def scatter(values: Array) -> float:
    """Standard deviation of single readings, (n,), n >= 2."""
    return float(np.std(values, ddof=1))
