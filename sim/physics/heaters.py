"""Heaters on current sources: power, phase, crosstalk, lag, ageing, opens and shorts (reference pair A6, A7)."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from sim.individuals import HEATERS, Heaters

Floats = npt.NDArray[np.float64]

RAIL_V = 4.0
SHUNT_OHM = 0.05
HEADROOM_V = 0.25  # the current source's drop at full scale
QUIESCENT_A = 0.004
SHORT_OHM = 0.4
CALIBRATION_C = 30.0
AGEING, AGEING_S = 0.001, 360_000.0
SETTLED = 12.0  # lags after which a step is over
SLOWEST_S = 60e-6
DRIVEN_A = 1e-7  # less than one code: an open circuit shows no flag


def power_at(current: float, r0: float, rho: float) -> float:
    """Power, W, at a fixed current: P = I^2 R0 (1 + rho P). Infinite where it runs away; compliance then limits."""
    p0 = current * current * r0
    return p0 / (1.0 - rho * p0) if rho * p0 < 1.0 else math.inf


def power_within(current: float, r0: float, rho: float, volts: float) -> tuple[float, float]:
    """(power W, current A) of a source that cannot give more than `volts`."""
    power = power_at(current, r0, rho)
    if math.isfinite(power) and (current == 0.0 or power / current <= volts):
        return power, current
    resistance = 0.5 * (r0 + math.sqrt(r0 * r0 + 4.0 * r0 * rho * volts * volts))
    return volts * volts / resistance, volts / resistance


class HeaterBank:
    """Four heaters on channels 0 to 3; channel 4 of the current source is not connected."""

    def __init__(self, heaters: Heaters) -> None:
        self._h = heaters
        self._wanted = np.zeros(HEATERS + 1)
        self._rail = False
        self._open = np.zeros(HEATERS, np.bool_)
        self._short = np.zeros(HEATERS, np.bool_)
        self._growth = 1.0
        self._power = np.zeros(HEATERS)
        self._current = np.zeros(HEATERS)
        self._before = np.zeros(HEATERS)
        self._since = -math.inf
        self.changes = 0

    def set_current(self, channel: int, amperes: float, t: float) -> None:
        """From time t (s). Raises ValueError for a channel the part does not have."""
        if not 0 <= channel <= HEATERS:
            raise ValueError(f"heater channel {channel} is not one of 0 to {HEATERS}")
        self._wanted[channel] = max(0.0, amperes)
        self._settle(t)

    def set_rail(self, on: bool, t: float) -> None:
        self._rail = on
        self._settle(t)

    def set_faults(self, opened: npt.NDArray[np.bool_], shorted: npt.NDArray[np.bool_], t: float) -> None:
        """opened, shorted: shape (4,)."""
        if np.array_equal(opened, self._open) and np.array_equal(shorted, self._short):
            return
        self._open, self._short = opened.copy(), shorted.copy()
        self._settle(t)

    def age(self, seconds: float, scale: float) -> None:
        """Cold resistance after `seconds` in service; takes effect at the next change of a current."""
        self._growth = 1.0 + scale * AGEING * math.log1p(seconds / AGEING_S)

    def _settle(self, t: float) -> None:
        self._before = self.powers(t)
        self._since = t
        self.changes += 1
        for i in range(HEATERS):
            self._power[i], self._current[i] = self._driven(i)

    def _driven(self, i: int) -> tuple[float, float]:
        if not self._rail or self._open[i]:
            return 0.0, 0.0
        if self._short[i]:
            return 0.0, float(self._wanted[i])
        r0 = self._h.r0[i] * self._growth
        return power_within(float(self._wanted[i]), r0, self._h.rho[i], RAIL_V - HEADROOM_V)

    def powers(self, t: float) -> Floats:
        """Thermal power of each element, W, after its lag, shape (4,)."""
        age = t - self._since
        if age > SETTLED * SLOWEST_S:
            return self._power.copy()
        out: Floats = self._power + (self._before - self._power) * np.exp(-age / self._h.tau)
        return out

    def settled_at(self) -> float:
        """Time, s, from which the powers stand still."""
        return self._since + SETTLED * SLOWEST_S

    def heat(self) -> float:
        """Electrical power on the die, W."""
        return float(self._power.sum())

    def phases(self, t: float, die_c: float, walk: Floats) -> Floats:
        """Phase of each element, rad, shape (4,). walk: slow drift, rad."""
        share = math.pi * self.powers(t) / self._h.p_pi
        die = self._h.die_rad_per_k * (die_c - CALIBRATION_C)
        out: Floats = self._h.phi0 + self._h.theta @ share + die + walk
        return out

    def voltage(self, channel: int) -> float:
        """At the source's output, V; 0 with the rail off."""
        if not self._rail:
            return 0.0
        if self.is_open(channel):
            return RAIL_V
        if channel == HEATERS or self._current[channel] == 0.0:
            return 0.0
        if self._short[channel]:
            return float(self._current[channel] * SHORT_OHM)
        return float(self._power[channel] / self._current[channel])

    def is_open(self, channel: int) -> bool:
        """True where the source drives into an open circuit; channel 4 always, when driven."""
        broken = channel == HEATERS or bool(self._open[channel])
        return self._rail and broken and bool(self._wanted[channel] > DRIVEN_A)

    def rail(self) -> tuple[float, float]:
        """(V, A) behind the shunt, quiescent current included; (0, 0) with the rail off."""
        if not self._rail:
            return 0.0, 0.0
        amperes = float(self._current.sum()) + QUIESCENT_A
        return RAIL_V - amperes * SHUNT_OHM, amperes
