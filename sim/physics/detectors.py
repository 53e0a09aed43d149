"""Superconducting nanowire detectors: efficiency and darks against bias, latching, jitter (reference pair A7)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from sim.faults import FaultSchedule
from sim.physics.defects import values

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

WORKING_POINT = 0.92  # share of the switching current at which the dark rates are specified
MIDPOINT = 0.72
WIDTH = 0.08
DARK_EFOLD_A = 1.1e-6
LATCH_RATE_HZ = 20e6
LATCH_TIME_S = 0.010
RESET_BELOW_A = 1e-6
LEAD_OHM = 60.0  # bias tee and lines: what a superconducting wire shows
HOTSPOT_OHM = 50e3
SWITCH_PER_KELVIN = -0.005
INSENSITIVE, LEAKY, WEAK, NOISY_V = 0.5, 50.0, 0.6, 0.02


def relative_efficiency(bias: float, switch: float, widening: float = 1.0) -> float:
    """Share of the plateau, 0 to 1: an error function of the bias current (A). widening: 1 for a good wire; one with
    a defect has a wider curve, of which no plateau is seen below the switching current."""
    return 0.5 * (1.0 + math.erf((bias - MIDPOINT * switch) / (WIDTH * switch * widening)))


def dark_rate(bias: float, switch: float, at_working_point: float, widening: float = 1.0) -> float:
    """Darks/s: half from the fibre's own glow, which follows the efficiency, half intrinsic, exponential in bias."""
    if bias <= 0.0:
        return 0.0
    intrinsic = math.exp((bias - WORKING_POINT * switch) / DARK_EFOLD_A)
    return 0.5 * at_working_point * (relative_efficiency(bias, switch, widening) + intrinsic)


@dataclass(frozen=True)
class DetectorDefects:
    """What is wrong with detectors, each shape (3,). dead: no click comes out; normal: does not superconduct;
    sensitivity, darks, weak: factors on efficiency, darks and switching current; reading_v: noise of the bias reading,
    rms."""

    dead: Flags = field(default_factory=lambda: np.zeros(3, np.bool_))
    normal: Flags = field(default_factory=lambda: np.zeros(3, np.bool_))
    sensitivity: Floats = field(default_factory=lambda: np.ones(3))
    darks: Floats = field(default_factory=lambda: np.ones(3))
    weak: Floats = field(default_factory=lambda: np.ones(3))
    reading_v: Floats = field(default_factory=lambda: np.zeros(3))

    @classmethod
    def of(cls, faults: FaultSchedule, t: float) -> DetectorDefects:
        names = [f"bob.detector.{q}" for q in range(3)]
        return cls(
            dead=np.array([bool(faults.active("dead", name, t)) for name in names]),
            normal=np.array([bool(faults.active("normal", name, t)) for name in names]),
            sensitivity=values(faults, "insensitive", names, t, INSENSITIVE, 1.0),
            darks=values(faults, "leaky", names, t, LEAKY, 1.0),
            weak=values(faults, "weak", names, t, WEAK, 1.0),
            reading_v=values(faults, "noisy", names, t, NOISY_V, 0.0),
        )


@dataclass
class Bank:
    """Three detectors and bias sources. efficiency: plateau, (3,); darks: at the working point, 1/s; switch: A;
    widening: of the efficiency's curve, 1 for good wires; defects: what else is wrong with them."""

    efficiency: Floats
    darks: Floats
    switch: Floats
    bias: Floats = field(default_factory=lambda: np.zeros(3))
    latched: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros(3, np.bool_))
    widening: Floats = field(default_factory=lambda: np.ones(3))
    defects: DetectorDefects = field(default_factory=lambda: DetectorDefects())
    _bright_since: list[float] = field(default_factory=lambda: [math.inf] * 3)

    def set_bias(self, channel: int, amperes: float, warmer_k: float = 0.0) -> None:
        """Above the switching current a detector latches; only a bias near zero frees it."""
        self.bias[channel] = amperes
        if amperes < RESET_BELOW_A:
            self.latched[channel] = False
            self._bright_since[channel] = math.inf
        elif amperes > self.switching(warmer_k)[channel]:
            self.latched[channel] = True
        self.latched |= self.defects.normal

    def switching(self, warmer_k: float) -> Floats:
        """Switching currents, A, `warmer_k` above the cryostat's working temperature."""
        out: Floats = self.switch * self.defects.weak * max(0.0, 1.0 + SWITCH_PER_KELVIN * warmer_k)
        return out

    def note_warming(self, warmer_k: float) -> None:
        """Latch what is now biased above its switching current, and what does not superconduct at all."""
        self.latched |= (self.bias > self.switching(warmer_k)) | self.defects.normal

    def note_rates(self, rates: Floats, t: float) -> None:
        """Latch detectors that have seen more than 20 MHz for 10 ms. rates: photo-detections/s at time t (s)."""
        for q in range(3):
            if rates[q] <= LATCH_RATE_HZ:
                self._bright_since[q] = math.inf
            elif self._bright_since[q] > t:
                self._bright_since[q] = t
            elif t - self._bright_since[q] >= LATCH_TIME_S:
                self.latched[q] = True

    def efficiencies(self, warmer_k: float, factor: Floats) -> Floats:
        """Efficiency now, (3,); 0 where latched. factor: slow drift of each detector, about 1."""
        switch = self.switching(warmer_k)
        share = np.array([relative_efficiency(self.bias[q], switch[q], self.widening[q]) for q in range(3)])
        plateau = np.minimum(1.0, self.efficiency * factor) * self.defects.sensitivity
        out: Floats = np.where(self.latched | self.defects.dead, 0.0, plateau * share)
        return out

    def dark_rates(self, warmer_k: float) -> Floats:
        """Darks/s now, (3,); 0 where latched."""
        switch = self.switching(warmer_k)
        rates = np.array([dark_rate(self.bias[q], switch[q], self.darks[q], self.widening[q]) for q in range(3)])
        out: Floats = np.where(self.latched | self.defects.dead, 0.0, rates * self.defects.darks)
        return out

    def voltage(self, channel: int) -> float:
        """At the bias tee, V: near 0 superconducting, volts when latched."""
        return float(self.bias[channel] * (HOTSPOT_OHM if self.latched[channel] else LEAD_OHM))


def jitter_table(
    fwhm_ps: float, pulse_fwhm_ps: float = 100.0, tail: float = 0.02, tail_ps: float = 60.0, points: int = 2048
) -> Floats:
    """Inverse distribution of pulse shape and detector jitter, ps from its median, shape (points + 1,).

    A Gaussian of both widths, and with weight `tail` the same followed by an exponential delay.
    """
    sigma = math.hypot(fwhm_ps, pulse_fwhm_ps) / 2.3548
    x = np.arange(-6.0 * sigma, 6.0 * sigma + 15.0 * tail_ps, 0.5)
    gauss = np.exp(-(x**2) / (2.0 * sigma**2)) / (sigma * math.sqrt(2.0 * math.pi))
    z = (sigma / tail_ps - x / sigma) / math.sqrt(2.0)
    erfc = np.array([math.erfc(v) for v in z])
    late = 0.5 / tail_ps * np.exp(sigma**2 / (2.0 * tail_ps**2) - x / tail_ps) * erfc
    cdf = np.cumsum((1.0 - tail) * gauss + tail * late)
    cdf /= cdf[-1]
    edges = np.append(x[0] - 0.5, x) + 0.25
    out: Floats = np.interp(np.linspace(0.0, 1.0, points + 1), np.append(0.0, cdf), edges)
    return out - np.interp(0.5, np.append(0.0, cdf), edges)


def observed_rate(rate: Floats, dead_s: Floats, recovery_s: Floats) -> Floats:
    """Counts/s that a detector with dead time and recovery gives for Poisson photo-detections."""
    out: Floats = rate / (1.0 + rate * (dead_s + recovery_s))
    return out
