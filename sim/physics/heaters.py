"""Heaters on current sources: power, phase, crosstalk, lag, ageing, opens and shorts (reference pair A6, A7)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sim.faults import FaultSchedule
from sim.individuals import HEATERS, Ballast, Heaters
from sim.physics.defects import exchanged, values

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
DRIFTED, WEAK, SLOW_S = 1.2, 1.6, 3.0
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


@dataclass(frozen=True)
class HeaterDefects:
    """What is wrong with elements and cables. drifted: factor on the cold resistance, (5,); weak: on the power for pi,
    (4,); lag: s, nan: its own, (5,); cable: the element at each channel, (5,), swapped in pairs."""

    drifted: Floats
    weak: Floats
    lag: Floats
    cable: npt.NDArray[np.intp]

    @classmethod
    def of(cls, faults: FaultSchedule, side: str, t: float) -> HeaterDefects:
        names = [f"{side}.heater.{i}" for i in range(CHANNELS)]
        return cls(
            drifted=values(faults, "drifted", names, t, DRIFTED, 1.0),
            weak=values(faults, "weak", names[:HEATERS], t, WEAK, 1.0),
            lag=values(faults, "slow", names, t, SLOW_S, np.nan),
            cable=np.append(exchanged(faults, names[:HEATERS], t), HEATERS),
        )

    @classmethod
    def none(cls) -> HeaterDefects:
        return cls(np.ones(CHANNELS), np.ones(HEATERS), np.full(CHANNELS, np.nan), np.arange(CHANNELS))

    def same(self, other: HeaterDefects) -> bool:
        mine, theirs = ((d.drifted, d.weak, d.lag, d.cable) for d in (self, other))
        return all(np.array_equal(a, b, equal_nan=True) for a, b in zip(mine, theirs, strict=True))


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
        self._defects = HeaterDefects.none()
        self._lag = self._tau
        self._slowest = SLOWEST_S
        self._born = 0.0
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

    def set_defects(self, defects: HeaterDefects, t: float) -> None:
        """From time t (s)."""
        if defects.same(self._defects):
            return
        before = self._thermal(t)
        self._defects = defects
        self._lag = np.where(np.isnan(defects.lag), self._tau, defects.lag)
        self._slowest = max(SLOWEST_S, float(np.nanmax(defects.lag, initial=0.0)))
        self._settle(t, before)

    def born_aged(self, seconds: float) -> None:
        """In service for `seconds` before the start."""
        self._born = seconds
        self.age(0.0, 0.0)

    def age(self, seconds: float, scale: float) -> None:
        """Cold resistance after `seconds` more in service, in which it ages `scale` times as fast; takes effect at the
        next change of a current."""
        before = math.log1p(self._born / AGEING_S)
        since = math.log1p((self._born + seconds) / AGEING_S) - before
        self._growth = 1.0 + AGEING * before + scale * AGEING * since

    def _settle(self, t: float, before: Floats | None = None) -> None:
        self._before = self._thermal(t) if before is None else before
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
        """A that the source of element i tries to give."""
        channel = self._defects.cable[i]
        return float(self._wanted[channel] if math.isnan(self._stuck[channel]) else self._stuck[channel])

    def cold_ohm(self, channel: int) -> float:
        """Resistance of an element at no power, ageing included."""
        return float(self._r0[channel] * self._growth * self._defects.drifted[channel])

    def powers(self, t: float) -> Floats:
        """Thermal power of each element, W, after its lag, shape (4,)."""
        return self._thermal(t)[:HEATERS]

    def _thermal(self, t: float) -> Floats:
        age = t - self._since
        if age > SETTLED * self._slowest:
            return self._power.copy()
        out: Floats = self._power + (self._before - self._power) * np.exp(-age / self._lag)
        return out

    def settled_at(self) -> float:
        """Time, s, from which the powers stand still."""
        return self._since + SETTLED * self._slowest

    def heat(self) -> float:
        """Electrical power on the die, W, that of a ballast included."""
        return float(self._power.sum())

    def phases(self, t: float, die_c: float, walk: Floats) -> Floats:
        """Phase of each element, rad, shape (4,). walk: slow drift, rad."""
        share = math.pi * self.powers(t) / self._h.p_pi
        lost = share * (1.0 / self._defects.weak - 1.0)  # of its own waveguide; its neighbours feel all its heat
        die = self._h.die_rad_per_k * (die_c - CALIBRATION_C)
        out: Floats = self._h.phi0 + self._h.theta @ share + lost + die + walk
        return out

    def voltage(self, channel: int) -> float:
        """At the source's output, V; 0 with the rail off."""
        if not self._rail:
            return 0.0
        if self.is_open(channel):
            return RAIL_V
        i = self._defects.cable[channel]
        if self._missing[i] or self._current[i] == 0.0:
            return 0.0
        if self._short[i]:
            return float(self._current[i] * SHORT_OHM)
        return float(self._power[i] / self._current[i])

    def is_open(self, channel: int) -> bool:
        """True where the source drives into an open circuit; an unconnected channel 4 always, when driven."""
        i = self._defects.cable[channel]
        return self._rail and bool(self._open[i]) and self._given(i) > DRIVEN_A

    def rail(self) -> tuple[float, float]:
        """(V, A) behind the shunt, quiescent current included; (0, 0) with the rail off."""
        if not self._rail:
            return 0.0, 0.0
        amperes = float(self._current.sum()) + QUIESCENT_A
        return RAIL_V - amperes * SHUNT_OHM, amperes
