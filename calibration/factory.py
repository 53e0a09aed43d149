"""What the factory wrote into the module: photodiodes, the absolute photon scale, the attenuator's table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from calibration.fit import log_tia_current


class Photodiode(BaseModel):
    """One monitor photodiode behind its logarithmic amplifier: V = slope log10(I / intercept)."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    responsivity_a_per_w: float = Field(default=0.9, gt=0)
    tap_ratio: float = Field(default=0.05, gt=0, le=1)
    log_slope_v_per_decade: float = Field(default=0.2, gt=0)
    log_intercept_a: float = Field(default=1e-10, gt=0)
    log_slope_relative_sigma: float = Field(default=5e-4, ge=0)
    log_intercept_relative_sigma: float = Field(default=3e-3, ge=0)

    def relative_sigma(self, amperes: float) -> float:
        """Standard uncertainty of the amplifier's law at a photocurrent, relative."""
        decades = math.log(max(amperes, self.log_intercept_a) / self.log_intercept_a)
        return math.hypot(decades * self.log_slope_relative_sigma, self.log_intercept_relative_sigma)

    def current(self, volts: float) -> float:
        """Photocurrent in A, dark current included."""
        return log_tia_current(volts, self.log_slope_v_per_decade, self.log_intercept_a)


class MeanPhoton(BaseModel):
    """Absolute scale of the monitor after the decoy modulator (reference control B10).

    mu at the module's output = constant * I_pa3 * T_symbol * 10^(-A_voa/10): `constant` holds tap ratio, responsivity,
    photon energy, shutter, output coupler and fixed pad; photons/(A s).
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    constant: float = Field(gt=0)
    relative_sigma: float = Field(default=0.005, ge=0)


class Attenuator(BaseModel):
    """The attenuator's table: monotone, volts ascending, dB."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    volts: tuple[float, ...]
    db: tuple[float, ...]
    sigma_db: float = Field(default=0.02, ge=0)

    @model_validator(mode="after")
    def _monotone(self) -> Attenuator:
        if len(self.volts) != len(self.db) or len(self.volts) < 2:
            raise ValueError("volts and db must have the same length, at least 2")
        if np.any(np.diff(self.volts) <= 0) or np.any(np.diff(self.db) <= 0):
            raise ValueError("volts and db must both rise")
        return self

    def attenuation(self, volts: float) -> float:
        """dB at a voltage: cubic through the four nearest entries, for straight lines would be 0.01 dB off; at the
        ends of the table, its ends."""
        v = min(max(volts, self.volts[0]), self.volts[-1])
        n = min(4, len(self.volts))
        first = int(np.clip(np.searchsorted(self.volts, v) - 2, 0, len(self.volts) - n))
        x, y = self.volts[first : first + n], self.db[first : first + n]
        return float(sum(y[i] * math.prod((v - x[j]) / (x[i] - x[j]) for j in range(n) if j != i) for i in range(n)))

    def voltage(self, db: float) -> float:
        """V for an attenuation. Raises ValueError outside the table."""
        if not self.db[0] <= db <= self.db[-1]:
            raise ValueError(f"attenuation {db:.2f} dB is outside {self.db[0]:.2f} to {self.db[-1]:.2f} dB")
        low, high = self.volts[0], self.volts[-1]
        for _ in range(60):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if self.attenuation(middle) < db else (low, middle)
        return 0.5 * (low + high)


class FactoryRecord(BaseModel):
    """Raises pydantic.ValidationError when the mapping does not fit. Unknown entries are left to other readers."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    serial: str
    photodiodes: dict[str, Photodiode] = {}
    mean_photon: MeanPhoton | None = None
    voa: Attenuator | None = None

    @classmethod
    def from_mapping(cls, raw: Mapping[str, Any]) -> FactoryRecord:
        return cls.model_validate(dict(raw))

    def photodiode(self, name: str) -> Photodiode:
        """Nominal values for a diode that the factory did not measure."""
        return self.photodiodes.get(name, Photodiode())
