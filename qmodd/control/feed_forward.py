"""What the temperature loop goes by: gains, and a constant current through a controller that takes only a target."""

from __future__ import annotations

from dataclasses import dataclass

# d(pumped heat)/dI where the element's own value could not be told: alpha T of the reference element, W/A
# (reference pair A6.5).
NOMINAL_W_PER_A = 0.0133 * 303.15
OFFSET_LIMIT_K = 0.3


@dataclass(frozen=True)
class Tuning:
    """What regulation goes by: gains, largest current, and the heat that an ampere more pumps."""

    kp_a_per_k: float
    ti_s: float
    clamp_a: float
    watts_per_a: float = NOMINAL_W_PER_A


def ramped(now_c: float, target_c: float, ramp_c_per_s: float, dt_s: float) -> float:
    """The next set point on the way to a target, never faster than the ramp."""
    reach = ramp_c_per_s * dt_s
    return min(max(target_c, now_c - reach), now_c + reach)


class TargetOffset:
    """A constant current through a controller that takes only a target (exact for any update times).

    A PI controller with target offset delta gives kp (delta + 1/ti int delta dt); for delta = delta0 exp(-t/ti) that is
    kp delta0 at all times. So a load of dP W is met at once by delta0 = -dP/(watts_per_a kp), before the thermistor has
    noticed, and nothing is left of it in the target later. Held between updates, the offset that keeps the sum constant
    is delta - delta dt/ti.
    """

    def __init__(self) -> None:
        self.kelvin = 0.0

    def add(self, amperes: float, kp_a_per_k: float) -> None:
        """`amperes` more from now on; positive cools, which a lower target does."""
        wanted = self.kelvin - amperes / kp_a_per_k
        self.kelvin = min(max(wanted, -OFFSET_LIMIT_K), OFFSET_LIMIT_K)

    def advance(self, dt_s: float, ti_s: float) -> None:
        self.kelvin -= self.kelvin * min(dt_s / ti_s, 1.0)


def feed_forward_k(delta_w: float, watts_per_a: float, kp_a_per_k: float) -> float:
    """Target offset (K) at the moment at which the heaters' sum rises by delta_w."""
    return -delta_w / (watts_per_a * kp_a_per_k)
