"""What clicks in bins say about the receiver's four elements: pure numerics (reference pair A3, A4, A5).

With X light both pulses are there. An X detector q has three bins: early by the short arm, the middle where early-long
and late-short interfere, late by the long arm:

    b[q, short] = e_q to^2 ls E,   b[q, long] = e_q ro^2 ll L   (to and ro exchanged for q = 1)
    m[q] = b[q, short] L/E + b[q, long] E/L +- 2 v sqrt(b[q, short] b[q, long]) cos t

so that the four satellites give both couplers free of efficiencies and losses, and normalise the interference. L/E is
that of the Z detector. Of Z light alone the leak of the state modulator would interfere in the middle bin: 16 % at an
extinction of 22 dB.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from calibration.fit import Array


@dataclass(frozen=True)
class Reading:
    """Clicks with X light, dead time taken off: z (2,) early, late; x (2, 3) detectors DX0, DX1 by bin."""

    z: Array
    x: Array

    @classmethod
    def of(cls, z: Array, x: Array) -> Reading:
        """Half a click stands for none."""
        return cls(np.maximum(z, 0.5), np.maximum(x, 0.5))

    @classmethod
    def from_row(cls, row: dict[str, float]) -> Reading:
        """From the names that `row` gives."""
        return cls.of(
            np.array([row["z0"], row["z1"]]), np.array([[row[f"x{q}{b}"] for b in range(3)] for q in range(2)])
        )

    def row(self) -> dict[str, float]:
        """By name: z0 z1, x00 x01 x02 x10 x11 x12 (detector, bin)."""
        out = {f"z{b}": float(self.z[b]) for b in range(2)}
        return out | {f"x{q}{b}": float(self.x[q, b]) for q in range(2) for b in range(3)}

    @property
    def pulses(self) -> tuple[float, float]:
        """(ln(L/E), its standard uncertainty) at the Z detector."""
        return math.log(self.z[1] / self.z[0]), math.sqrt(float(np.sum(1.0 / self.z)))

    def _satellites(self) -> float:
        """Variance of half the logarithm of a double ratio of the four satellites."""
        return 0.25 * float(np.sum(1.0 / self.x[:, [0, 2]]))

    def arms(self) -> tuple[float, float]:
        """ln of light by the short over light by the long arm, ls/ll, whatever the output coupler does; its sigma."""
        pulses, sigma = self.pulses
        x = self.x
        ratio = 0.5 * math.log(x[0, 0] * x[1, 0] / (x[0, 2] * x[1, 2])) + pulses
        return ratio, math.sqrt(self._satellites() + sigma**2)

    def ports(self) -> tuple[float, float]:
        """ln of the output coupler's bar over cross share, to^2/ro^2, whatever the arms do; its sigma."""
        x = self.x
        return 0.5 * math.log(x[0, 0] * x[1, 2] / (x[1, 0] * x[0, 2])), math.sqrt(self._satellites())

    def efficiencies(self) -> tuple[float, float]:
        """ln of the efficiency of DX0 over that of DX1, free of both couplers; its sigma."""
        x = self.x
        return 0.5 * math.log(x[0, 0] * x[0, 2] / (x[1, 0] * x[1, 2])), math.sqrt(self._satellites())

    def basis(self) -> tuple[float, float]:
        """ln of clicks in the X over those in the Z detectors; its sigma."""
        x, z = float(self.x.sum()), float(self.z.sum())
        return math.log(x / z), math.sqrt(1.0 / x + 1.0 / z)

    def interference(self) -> tuple[Array, Array]:
        """(v cos t at DX0 and at DX1 with the sign of DX0, (2,); their covariance (2, 2))."""
        value, gradient = _interference(self.z, self.x)
        noise = np.concatenate([self.z, self.x.ravel()])
        return value, np.asarray((gradient * noise) @ gradient.T)

    def mean_interference(self) -> tuple[float, float]:
        """Both detectors' v cos t by their weights; its sigma."""
        value, covariance = self.interference()
        weight = np.linalg.solve(covariance, np.ones(2))
        variance = 1.0 / float(weight.sum())
        return float(weight @ value) * variance, math.sqrt(variance)


def _interference(z: Array, x: Array) -> tuple[Array, Array]:
    """Values (2,) and their derivatives by (z early, z late, x00 ... x12), (2, 8)."""
    rho = float(z[1] / z[0])
    value, gradient = np.zeros(2), np.zeros((2, 8))
    for q, sign in ((0, 1.0), (1, -1.0)):
        short, middle, late = (float(c) for c in x[q])
        root = 2.0 * math.sqrt(short * late)
        excess = middle - short * rho - late / rho
        value[q] = sign * excess / root
        by_rho = sign * (-short + late / rho**2) / root
        gradient[q, 0], gradient[q, 1] = -by_rho * rho / z[0], by_rho / z[0]
        at = 2 + 3 * q
        gradient[q, at] = sign * (-rho / root - 0.5 * excess / (root * short))
        gradient[q, at + 1] = sign / root
        gradient[q, at + 2] = sign * (-1.0 / (rho * root) - 0.5 * excess / (root * late))
    return value, gradient


def coupler_phase(log_ratio: float, near_rad: float) -> tuple[float, float]:
    """(phase, d phase/d log_ratio) of a coupler whose bar over cross power is cot^2(phase/2), next to `near_rad`."""
    base = 2.0 * math.atan(math.exp(-0.5 * log_ratio))
    found = [c + 2.0 * math.pi * round((near_rad - c) / (2.0 * math.pi)) for c in (base, -base)]
    phase = min(found, key=lambda c: abs(c - near_rad))
    return phase, -0.5 * math.sin(phase)


def share_of(log_ratio: float, sigma: float, counts: float) -> tuple[float, float]:
    """(bar share 1/(1 + cross/bar), sigma) of a coupler; `counts` bound it from below where it is all or nothing."""
    share = 1.0 / (1.0 + math.exp(-log_ratio))
    return share, max(share * (1.0 - share) * sigma, 0.5 / max(counts, 1.0))


def balanced_rad(long: float) -> float:
    """Phase of the input coupler whose arms carry the same, the long one transmitting `long` (reference pair A2)."""
    return 2.0 * math.asin(math.sqrt(1.0 / (1.0 + long)))
