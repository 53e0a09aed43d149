"""Heaters on current sources: power, phase, crosstalk, lag, ageing, opens and shorts (reference pair A6, A7)."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from sim.individuals import HEATERS, Ballast, Heaters

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

CHANNELS = HEATERS + 1
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
    """Four heaters on channels 0 to 3; on channel 4 of the current source a ballast, or nothing.

    Arrays inside have one entry a channel, shape (5,).
    """

    def __init__(self, heaters: Heaters, ballast: Ballast | None = None) -> None:
        self._h = heaters
        self._r0 = np.append(heaters.r0, ballast.r0 if ballast else math.inf)
        self._rho = np.append(heaters.rho, ballast.rho if ballast else 0.0)
        self._tau = np.append(heaters.tau, ballast.tau if ballast else SLOWEST_S)
        self._missing = np.arange(CHANNELS) == HEATERS if ballast is None else np.zeros(CHANNELS, np.bool_)
        self._wanted = np.zeros(CHANNELS)
        self._stuck = np.full(CHANNELS, np.nan)
        self._rail = False
        self._open = self._missing.copy()
        self._short = np.zeros(CHANNELS, np.bool_)
        self._growth = 1.0
        self._power = np.zeros(CHANNELS)
        self._current = np.zeros(CHANNELS)
        self._before = np.zeros(CHANNELS)
        self._since = -math.inf
        self.changes = 0

    def rho(self, channel: int) -> float:
        """Growth of its resistance with its power, 1/W."""
        return float(self._rho[channel])

    def set_current(self, channel: int, amperes: float, t: float) -> None:
        """From time t (s). Raises ValueError for a channel the part does not have."""
        if not 0 <= channel < CHANNELS:
            raise ValueError(f"heater channel {channel} is not one of 0 to {HEATERS}")
        self._wanted[channel] = max(0.0, amperes)
        self._settle(t)

    def set_rail(self, on: bool, t: float) -> None:
        self._rail = on
        self._settle(t)

    def set_faults(self, opened: Flags, shorted: Flags, t: float, stuck_a: Floats | None = None) -> None:
        """opened, shorted: shape (5,) by channel; stuck_a: A that a source gives whatever is written, nan: as written.

        Shorter arrays leave the last channels whole.
        """
        broken, bridged, stuck = self._missing.copy(), np.zeros(CHANNELS, np.bool_), np.full(CHANNELS, np.nan)
        broken[: len(opened)] |= opened
        bridged[: len(shorted)] = shorted
        if stuck_a is not None:
            stuck[: len(stuck_a)] = stuck_a
        bridged &= ~self._missing
        same = np.array_equal(broken, self._open) and np.array_equal(bridged, self._short)
        if same and np.array_equal(stuck, self._stuck, equal_nan=True):
            return
        self._open, self._short, self._stuck = broken, bridged, stuck
        self._settle(t)

    def age(self, seconds: float, scale: float) -> None:
        """Cold resistance after `seconds` in service; takes effect at the next change of a current."""
        self._growth = 1.0 + scale * AGEING * math.log1p(seconds / AGEING_S)

    def _settle(self, t: float) -> None:
        self._before = self._thermal(t)
        self._since = t
        self.changes += 1
        for i in range(CHANNELS):
            self._power[i], self._current[i] = self._driven(i)

    def _driven(self, i: int) -> tuple[float, float]:
        if not self._rail or self._open[i]:
            return 0.0, 0.0
        wanted = self._given(i)
        if self._short[i]:
            return 0.0, wanted
        return power_within(wanted, self.cold_ohm(i), float(self._rho[i]), RAIL_V - HEADROOM_V)

    def _given(self, i: int) -> float:
        """A that the source tries to give."""
        return float(self._wanted[i] if math.isnan(self._stuck[i]) else self._stuck[i])

    def cold_ohm(self, channel: int) -> float:
        """Resistance at no power, ageing included."""
        return float(self._r0[channel] * self._growth)

    def powers(self, t: float) -> Floats:
        """Thermal power of each element, W, after its lag, shape (4,)."""
        return self._thermal(t)[:HEATERS]

    def _thermal(self, t: float) -> Floats:
        age = t - self._since
        if age > SETTLED * SLOWEST_S:
            return self._power.copy()
        out: Floats = self._power + (self._before - self._power) * np.exp(-age / self._tau)
        return out

    def settled_at(self) -> float:
        """Time, s, from which the powers stand still."""
        return self._since + SETTLED * SLOWEST_S

    def heat(self) -> float:
        """Electrical power on the die, W, that of a ballast included."""
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
        if self._missing[channel] or self._current[channel] == 0.0:
            return 0.0
        if self._short[channel]:
            return float(self._current[channel] * SHORT_OHM)
        return float(self._power[channel] / self._current[channel])

    def is_open(self, channel: int) -> bool:
        """True where the source drives into an open circuit; an unconnected channel 4 always, when driven."""
        return self._rail and bool(self._open[channel]) and self._given(channel) > DRIVEN_A

    def rail(self) -> tuple[float, float]:
        """(V, A) behind the shunt, quiescent current included; (0, 0) with the rail off."""
        if not self._rail:
            return 0.0, 0.0
        amperes = float(self._current.sum()) + QUIESCENT_A
        return RAIL_V - amperes * SHUNT_OHM, amperes
