"""How the thermal plant is made to show itself: a current driven on the way to the set point, or a relay about it.

An experiment is asked for the next current with every reading and refuses as soon as the plant does not do what a
plant does: no response, or one of the wrong sign (a reversed element would run away under regulation). Pure.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from calibration.fit import FitRefused
from calibration.tec import LEAK_SIGMA, ZERO_C, Drive, Element, TecPlant, fit_element, fit_plant, pumped, simc
from drivers.roles import TecReading

REST_S = 1.0
PROBE_S = 3.0
LONGEST_S = 30.0
LONGEST_WAY_S = 20.0
# Shares of the current limit: first look, the most on the way, relay.
PROBE_SHARE, TRAVEL_SHARE, RELAY_SHARE = 0.3, 0.7, 0.15
# Wide on purpose: near the ultimate frequency slope and lag look alike; a slower cycle tells them apart, and the fit
# takes hysteresis as it is.
HYSTERESIS_K = 0.08
RELAY_SWITCHES = 5
RELAY_PATIENCE_S = 5.0
RELAY_LEFT_K = 1.0
# The least that a plant moves by when driven, K; and how far off the driven current the controller may read back.
RESPONSE_K = 0.05
READ_BACK = 0.2
# Nearer than this to the target there is no way to go: the relay is used.
NEAR_K = 2.0
# On a longer way than this the sink and the pumped heat change too much for one slope: regulate first, then the relay.
FAR_K = 10.0
# What is left of the way when regulation takes over, s at the present rate: the delay, and room.
HAND_OVER_S, HAND_OVER_K = 1.0, 0.1


# A relay swings too little and too quickly to tell the leak: about what a submount's may be, 1/s (98 s, pair A6.5).
RELAY_LEAK_SIGMA = 0.01
# The slope's share that the model leaves open: the sink moves, the pumped heat depends on the temperature.
SLOPE_MODEL_ERROR = 0.01


@dataclass(frozen=True)
class Identified:
    """What an experiment found. `kind` is "way" or "relay"; `object_c` the mean temperature during it; `hold_a` the
    current that would hold the temperature where the experiment ended."""

    kind: str
    plant: TecPlant
    element: Element | None
    object_c: float
    hold_a: float
    raw: Mapping[str, Any]

    def at(self, target_c: float) -> Identified:
        """The same with the slope at another temperature: it goes with the absolute one (reference control B4)."""
        factor = (target_c + ZERO_C) / (self.object_c + ZERO_C)
        p, covariance = self.plant, self.plant.covariance.copy()
        covariance[0, :] *= factor
        covariance[:, 0] *= factor
        covariance[0, 0] += (SLOPE_MODEL_ERROR * p.slope_k_per_a_s) ** 2
        return replace(
            self, object_c=target_c, plant=replace(p, slope_k_per_a_s=p.slope_k_per_a_s * factor, covariance=covariance)
        )

    def watts_per_a(self) -> float | None:
        """d(pumped heat)/dI = alpha T_c - R I about the holding current, W/A; None where alpha could not be told."""
        e = self.element
        if e is None or e.seebeck_v_per_k is None:
            return None
        return e.seebeck_v_per_k * (self.object_c + ZERO_C) - e.ohm * self.hold_a

    def gains(self) -> tuple[float, float]:
        """(kp A/K, ti s), SIMC with tau_c = theta."""
        return simc(self.plant)

    def clamp_a(self, limit_a: float) -> float:
        """The configured limit, or 0.7 I_opt where that is known and lower (reference control B4)."""
        clamp = self.element.clamp_a(self.object_c) if self.element else None
        return limit_a if clamp is None else min(limit_a, clamp)

    def values(self, limit_a: float) -> dict[str, float]:
        """For the record. The element's values only where they could be told."""
        p, (kp, ti) = self.plant, self.gains()
        out = {
            "slope_k_per_a_s": p.slope_k_per_a_s,
            "leak_per_s": p.leak_per_s,
            "dead_s": p.dead_s,
            "lag_s": p.lag_s,
            "kp_a_per_k": kp,
            "ti_s": ti,
            "clamp_a": self.clamp_a(limit_a),
        }
        if self.element is not None:
            out["element_ohm"] = self.element.ohm
            optimum = self.element.optimum_a(self.object_c)
            watts = self.watts_per_a()
            if self.element.seebeck_v_per_k is not None and optimum is not None and watts is not None:
                out |= {"seebeck_v_per_k": self.element.seebeck_v_per_k, "optimum_a": optimum, "pumped_w_per_a": watts}
        return out


@dataclass
class Experiment(ABC):
    """`step` with every reading: the current from now on (None: done). `drove` says when it was really written."""

    limit_a: float
    _t: list[float] = field(default_factory=list)
    _readings: list[TecReading] = field(default_factory=list)
    _at: list[float] = field(default_factory=list)
    _amperes: list[float] = field(default_factory=list)

    kind = ""
    leak_sigma = LEAK_SIGMA

    def step(self, t_s: float, reading: TecReading) -> float | None:
        """Raises FitRefused with a diagnosis; the caller then takes the current away."""
        if self._t and t_s <= self._t[-1]:
            # Two readings of one moment are one.
            self._t.pop()
            self._readings.pop()
        self._t.append(t_s)
        self._readings.append(reading)
        return self._next(t_s, reading)

    def drove(self, t_s: float, amperes: float) -> None:
        """Repetitions of the same current are no change."""
        if not self._amperes or self._amperes[-1] != amperes:
            self._at.append(t_s)
            self._amperes.append(amperes)

    def drives(self, amperes: float) -> bool:
        """Whether this is what is driven already."""
        return bool(self._amperes) and self._amperes[-1] == amperes

    @property
    def hold_a(self) -> float:
        """The current before the experiment: what held the temperature, as far as one knows without a fit."""
        return self._readings[0].current_a if self._readings else 0.0

    @abstractmethod
    def _next(self, t_s: float, reading: TecReading) -> float | None: ...

    def evaluate(self) -> Identified:
        """Fit what was read. Raises FitRefused."""
        if len(self._at) < 2:
            raise FitRefused("the current was never changed")
        t, y = np.array(self._t), np.array([r.object_c for r in self._readings])
        amperes = np.array([r.current_a for r in self._readings])
        volts = np.array([r.voltage_v for r in self._readings])
        difference = np.array([r.sink_c - r.object_c for r in self._readings])
        element = fit_element(amperes, volts, difference)
        mean_c = float(y.mean())
        optimum = element.optimum_a(mean_c) if element else None
        drive = Drive(tuple(self._at), tuple(self._amperes))
        raw = {"t_s": t, "object_c": y, "current_a": amperes, "voltage_v": volts, "difference_k": difference}
        raw |= {"driven_at_s": np.array(self._at), "driven_a": np.array(self._amperes)}
        plant = fit_plant(t, y, drive, optimum, leak_sigma=self.leak_sigma)
        return Identified(self.kind, plant, element, mean_c, self._hold(plant, optimum), raw)

    def _hold(self, plant: TecPlant, optimum_a: float | None) -> float:
        """A relay began where regulation held; on the way it is what the rate of the last second leaves over."""
        rate, _ = self._line(self._t[-1] - 1.0, self._t[-1])
        driven = float(pumped(np.array([self._amperes[-1]]), optimum_a)[0])
        return driven + rate / plant.slope_k_per_a_s

    def _since_drive(self, t_s: float) -> float:
        return t_s - self._at[-1]

    def _line(self, from_s: float, until_s: float) -> tuple[float, float]:
        """(K/s, C at t = 0): a straight line through the readings between two times."""
        n = [i for i, t in enumerate(self._t) if from_s <= t <= until_s]
        slope, level = np.polyfit([self._t[i] for i in n], [self._readings[i].object_c for i in n], 1)
        return float(slope), float(level)

    def _rest(self, until_s: float) -> tuple[float, float]:
        """What the plant does by itself, as `_line`."""
        return self._line(self._t[0], until_s)

    def _moved(self, t_s: float) -> float:
        """K since the first change of the current, less what the plant did by itself at rest."""
        slope, level = self._rest(self._at[1])
        return self._readings[-1].object_c - (slope * t_s + level)

    def _check(self, t_s: float, since_s: float, *, enough: bool) -> None:
        """Raises FitRefused: reversed, or (once it is `enough`) no response at all."""
        change, moved = self._amperes[-1] - self._amperes[0], self._moved(t_s)
        warms = change < 0.0
        if moved * (1.0 if warms else -1.0) < -RESPONSE_K:
            raise FitRefused(
                f"CHECK POLARITY: {change:+.2f} A should {'warm' if warms else 'cool'} the object, and it moved by "
                f"{moved:+.3f} K within {since_s:.1f} s; {RESPONSE_K:g} K the wrong way is the limit: "
                "Peltier element reversed"
            )
        if not enough or abs(moved) >= RESPONSE_K:
            return
        read = self._readings[-1].current_a
        if abs(read - self._amperes[-1]) > READ_BACK * abs(change):
            raise FitRefused(
                f"the controller reads {read:+.2f} A back while {self._amperes[-1]:+.2f} A are driven; "
                f"{100 * READ_BACK:.0f} % is the limit: Peltier element open or output stage dead"
            )
        raise FitRefused(
            f"no response: {change:+.2f} A moved the object by {moved:+.3f} K within {since_s:.1f} s; at least "
            f"{RESPONSE_K:g} K is expected: thermistor not on the object, or Peltier element shorted"
        )


@dataclass
class Way(Experiment):
    """On the way to the target: at rest, a first look with a small current, then as fast as the ramp allows."""

    target_c: float = 30.0
    ramp_k_per_s: float = 0.5
    _rate: float = field(default=0.0, init=False)

    kind = "way"

    def _next(self, t_s: float, reading: TecReading) -> float | None:
        if not self._at:
            return 0.0
        way = self.target_c - self._readings[0].object_c
        sign = -1.0 if way > 0.0 else 1.0
        if len(self._at) == 1:
            return sign * PROBE_SHARE * self.limit_a if self._since_drive(t_s) >= REST_S else 0.0
        since = t_s - self._at[1]
        if len(self._at) == 2:
            self._check(t_s, since, enough=since >= PROBE_S)
            if since < PROBE_S:
                return self._amperes[-1]
            return self._travel()
        left = (self.target_c - reading.object_c) * (1.0 if way > 0.0 else -1.0)
        done = left <= self._rate * HAND_OVER_S + HAND_OVER_K or t_s - self._t[0] > LONGEST_WAY_S
        return None if done else self._amperes[-1]

    def _travel(self) -> float:
        """The current that gives the ramp, from the rate of the first look's last second."""
        rate = abs(self._line(self._t[-1] - 1.0, self._t[-1])[0])
        wanted = abs(self._amperes[-1]) * self.ramp_k_per_s / max(rate, 1e-3)
        amperes = min(wanted, TRAVEL_SHARE * self.limit_a)
        self._rate = rate * amperes / abs(self._amperes[-1])
        return amperes if self._amperes[-1] > 0.0 else -amperes


@dataclass
class Relay(Experiment):
    """About the present temperature, plus and minus a share of the limit about the present current."""

    _centre_c: float = field(default=0.0, init=False)

    kind = "relay"
    leak_sigma = RELAY_LEAK_SIGMA

    def _hold(self, plant: TecPlant, optimum_a: float | None) -> float:
        return self._amperes[0]

    def _next(self, t_s: float, reading: TecReading) -> float | None:
        step = RELAY_SHARE * self.limit_a
        if not self._at:
            room = self.limit_a - step
            return min(max(reading.current_a, -room), room)
        held = self._amperes[0]
        if len(self._at) == 1:
            if self._since_drive(t_s) < REST_S:
                return held
            self._centre_c = reading.object_c
            # Against its own drift first: that the temperature turns is then the current's doing.
            return held - step if self._rest(t_s)[0] < 0.0 else held + step
        off = reading.object_c - self._centre_c
        if len(self._at) == 2:
            since = t_s - self._at[1]
            self._check(t_s, since, enough=since >= RELAY_PATIENCE_S)
        if abs(off) > RELAY_LEFT_K or t_s - self._t[0] > LONGEST_S:
            raise FitRefused(
                f"no limit cycle: the object is {off:+.3f} K from where the relay began after "
                f"{t_s - self._t[0]:.1f} s; the limits are {RELAY_LEFT_K:g} K and {LONGEST_S:g} s"
            )
        cooling = self._amperes[-1] > held
        if (off < -HYSTERESIS_K) if cooling else (off > HYSTERESIS_K):
            if len(self._at) > RELAY_SWITCHES:
                return None
            return held - step if cooling else held + step
        return self._amperes[-1]


def experiment(reading: TecReading, target_c: float, limit_a: float, ramp_k_per_s: float) -> Experiment | None:
    """The one that costs least: on the way where there is one, else the relay; None: too far, regulate first."""
    way_k = abs(target_c - reading.object_c)
    if way_k > FAR_K:
        return None
    if way_k >= NEAR_K:
        return Way(limit_a, target_c=target_c, ramp_k_per_s=ramp_k_per_s)
    return Relay(limit_a)
