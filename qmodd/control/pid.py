"""PID without I/O: derivative filter, anti-windup by back-calculation, feed-forward, slew limit, bumpless hand-over."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class PidGains:
    """kp in output/input, ti and td in s (ti inf: no integral, td 0: no derivative).

    `n` sets the derivative filter's time constant td/n. Output limits and slew (output/s) are hard.
    """

    kp: float
    ti_s: float = math.inf
    td_s: float = 0.0
    n: float = 8.0
    low: float = -math.inf
    high: float = math.inf
    slew_per_s: float = math.inf

    def __post_init__(self) -> None:
        if self.low >= self.high or self.ti_s <= 0 or self.td_s < 0 or self.slew_per_s <= 0 or self.n <= 0:
            raise ValueError(f"impossible gains: {self}")


@dataclass(frozen=True)
class PidOutput:
    """What to write, and whether a limit or the slew rate shaped it."""

    value: float
    saturated: bool
    slewing: bool


class Pid:
    """u = kp (e + 1/ti int e + td de/dt) + feed-forward, e = set point - measured.

    The derivative acts on the measured value, so that a step of the set point does not kick. The integral is led back
    by what limits took away, with the time constant sqrt(ti td), or ti (reference control, Astrom and Hagglund).
    """

    def __init__(self, gains: PidGains, output: float = 0.0) -> None:
        self.gains = gains
        self._integral = output
        self._derivative = 0.0
        self._last_measured: float | None = None
        self._last_output = output

    def take_over(self, output: float, set_point: float, measured: float, feed_forward: float = 0.0) -> None:
        """Continue from an output that somebody else set, without a bump."""
        g = self.gains
        self._last_output = min(max(output, g.low), g.high)
        self._last_measured = measured
        self._derivative = 0.0
        self._integral = self._last_output - g.kp * (set_point - measured) - feed_forward

    def retune(self, gains: PidGains, set_point: float) -> None:
        """New gains from now on; the output does not jump."""
        self.gains = gains
        if self._last_measured is not None:
            self.take_over(self._last_output, set_point, self._last_measured)

    def step(self, set_point: float, measured: float, dt_s: float, feed_forward: float = 0.0) -> PidOutput:
        """One period of dt_s > 0. Raises ValueError for a measured value that is not a number."""
        if not math.isfinite(measured) or dt_s <= 0:
            raise ValueError(f"measured {measured}, period {dt_s} s")
        g = self.gains
        error = set_point - measured
        if self._last_measured is not None and g.td_s > 0:
            lag = g.td_s / g.n
            rate = -(measured - self._last_measured) / dt_s
            self._derivative += (rate - self._derivative) * dt_s / (lag + dt_s)
        self._last_measured = measured
        wanted = g.kp * (error + g.td_s * self._derivative) + self._integral + feed_forward
        limited = min(max(wanted, g.low), g.high)
        reach = g.slew_per_s * dt_s
        value = min(max(limited, self._last_output - reach), self._last_output + reach)
        if math.isfinite(g.ti_s):
            tracking_s = math.sqrt(g.ti_s * g.td_s) or g.ti_s
            lead_back = (value - wanted) * dt_s / max(tracking_s, dt_s)
            self._integral += g.kp * error * dt_s / g.ti_s + lead_back
        self._last_output = value
        return PidOutput(value, saturated=wanted != limited, slewing=value != limited)
