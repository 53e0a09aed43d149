"""A value's unit, limits, slew and safe value: the one place where limits are checked.

A driver makes one `Quantity` an output. `admit` is called before a single byte is written; `wrote` after the device has
taken the value. Nothing here touches a bus or asks for the time: monotonic seconds are handed in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from drivers.errors import OutOfRange


@dataclass(frozen=True)
class Limits:
    """Bounds of an output, both inclusive, in `unit`. `safe` is what the output goes to when its owner is gone.

    `slew_per_s` bounds the change between two writes to `slew_per_s` times the time between them; None: no bound.
    Raises ValueError if the numbers contradict each other.
    """

    unit: str
    low: float
    high: float
    safe: float
    slew_per_s: float | None = None

    def __post_init__(self) -> None:
        if not all(math.isfinite(x) for x in (self.low, self.high, self.safe)):
            raise ValueError(f"limits must be finite, not {self.low}, {self.high}, safe {self.safe} {self.unit}")
        if not self.low <= self.safe <= self.high:
            raise ValueError(
                f"safe value {self.safe:g} {self.unit} must lie in {self.low:g} to {self.high:g} {self.unit}"
            )
        if self.slew_per_s is not None and not (math.isfinite(self.slew_per_s) and self.slew_per_s > 0):
            raise ValueError(f"slew must be positive, not {self.slew_per_s} {self.unit}/s")


class Quantity:
    """One output: its name, its limits, and the last value the device took (None before the first write)."""

    def __init__(self, output: str, limits: Limits) -> None:
        self.output = output
        self.limits = limits
        self._value: float | None = None
        self._written_at = 0.0

    @property
    def value(self) -> float:
        """Last value written; the safe value before the first write."""
        return self.limits.safe if self._value is None else self._value

    def admit(self, value: float, now_s: float) -> float:
        """Return `value` as a float if it may be written now.

        Raises OutOfRange naming output, value, limit and unit. NaN and infinities are refused. The safe value is
        always admitted, however fast it is reached.
        """
        number = self.check(value)
        slew = self.limits.slew_per_s
        if slew is None or self._value is None or number == self.limits.safe:
            return number
        room = slew * max(0.0, now_s - self._written_at)
        # A hair so that a ramp computed with the same numbers is not refused for its last bit.
        hair = 4 * math.ulp(max(abs(number), abs(self._value)))
        if abs(number - self._value) > room * (1 + 1e-9) + hair:
            unit = self.limits.unit
            raise OutOfRange(
                f"{self.output}: {number:g} {unit} is {abs(number - self._value):g} {unit} from the present "
                f"{self._value:g} {unit}; the slew limit {slew:g} {unit}/s allows {room:g} now; nothing was written"
            )
        return number

    def check(self, value: float) -> float:
        """Bounds only, without slew. Raises OutOfRange."""
        number, limits = float(value), self.limits
        if not math.isfinite(number):
            raise OutOfRange(
                f"{self.output}: {number} {limits.unit} is not a number within {limits.low:g} to {limits.high:g} "
                f"{limits.unit}; nothing was written"
            )
        if limits.low <= number <= limits.high:
            return number
        side, bound = ("below the lower", limits.low) if number < limits.low else ("above the upper", limits.high)
        raise OutOfRange(
            f"{self.output}: {number:g} {limits.unit} is {side} limit {bound:g} {limits.unit}; nothing was written"
        )

    def towards(self, target: float, now_s: float) -> float:
        """The admissible value nearest to `target` now: one step of a ramp. Raises OutOfRange for the target."""
        number = self.check(target)
        slew = self.limits.slew_per_s
        if slew is None or self._value is None:
            return number
        room = slew * max(0.0, now_s - self._written_at)
        return min(max(number, self._value - room), self._value + room)

    def wrote(self, value: float, now_s: float) -> None:
        """Remember what the device took and when."""
        self._value = value
        self._written_at = now_s

    def forget(self) -> None:
        """The device was reset: what it holds is not known any more."""
        self._value = None
