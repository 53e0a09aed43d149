"""The analogue board between photodiodes and ADC: logarithmic amplifiers, and a divider for the heater monitor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

HEATER_MONITOR = 2
HEATER_DIVIDER = 4.0
RELATIVE_NOISE = 5e-4


class AnalogParameters(Protocol):
    """One module's amplifiers: slope, V per decade, and intercept, A; each shape (8,), one an ADC channel."""

    @property
    def tia_vy_v(self) -> Floats: ...
    @property
    def tia_iz_a(self) -> Floats: ...


@dataclass(frozen=True)
class Analog:
    """Plain AnalogParameters."""

    tia_vy_v: Floats
    tia_iz_a: Floats

    @classmethod
    def nominal(cls) -> Analog:
        """0.2 V per decade from 100 pA (reference hardware A6)."""
        return cls(np.full(8, 0.2), np.full(8, 1e-10))


class AnalogBoard:
    """Voltages at the ADC's pins. `photocurrents()` A shape (8,); `monitor_v()` the heater DAC's multiplexer pin, V.

    V = Vy·log10(I/Iz), never below 0. Currents and the monitor's voltage carry relative noise, `noise` rms a sample.
    """

    def __init__(
        self,
        parameters: AnalogParameters,
        photocurrents: Callable[[], Floats],
        monitor_v: Callable[[], float],
        random: np.random.Generator,
        noise: float = RELATIVE_NOISE,
        shorted: int | None = None,
    ) -> None:
        """`shorted`: the channel whose input the board shorts, where it does."""
        self._slope = np.asarray(parameters.tia_vy_v, dtype=np.float64)
        self._intercept = np.asarray(parameters.tia_iz_a, dtype=np.float64)
        self._photocurrents = photocurrents
        self._monitor_v = monitor_v
        self._random = random
        self._noise = noise
        self._shorted = shorted

    def volts(self) -> Floats:
        """One sample of every pin, V, shape (8,)."""
        ratio = self._photocurrents() / self._intercept
        wobble = 1.0 + self._noise * self._random.standard_normal(8)
        ratio *= wobble
        volts = self._slope * np.log10(np.maximum(ratio, 1.0))
        volts[HEATER_MONITOR] = self._monitor_v() / HEATER_DIVIDER * wobble[HEATER_MONITOR]
        if self._shorted is not None:
            volts[self._shorted] = 0.0
        return volts
