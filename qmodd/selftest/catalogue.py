"""Every check there is, level by level, in the order in which they run."""

from __future__ import annotations

from qmodd.selftest import (
    interferometer_bob,
    light_off,
    light_off_bob,
    light_on_alice,
    light_on_bob,
    loopback_bob,
    power_on,
    production,
    tones_bob,
)
from qmodd.selftest.model import Check

DAILY: tuple[Check, ...] = (
    *power_on.CHECKS,
    *light_off.CHECKS,
    *light_off_bob.CHECKS,
    *light_on_alice.CHECKS,
    *light_on_bob.CHECKS,
    *interferometer_bob.CHECKS,
    *tones_bob.CHECKS,
    *loopback_bob.CHECKS,
)
CHECKS: tuple[Check, ...] = (*DAILY, *production.checks(DAILY))
