"""Power-on level: everything that can be told without light, within ten seconds.

The thermometers are followed beside the rest; everything else runs in turn, buses first, for what they tell explains
what devices fail with later.
"""

from __future__ import annotations

from qmodd.selftest import (
    known_answers,
    power_on_analog,
    power_on_buses,
    power_on_host,
    power_on_identity,
    power_on_instruments,
    power_on_platform,
    power_on_rails,
    power_on_random,
    power_on_temperatures,
)
from qmodd.selftest.model import Check

CHECKS: tuple[Check, ...] = (
    *power_on_temperatures.CHECKS,
    *power_on_buses.CHECKS,
    *power_on_identity.CHECKS,
    *power_on_rails.CHECKS,
    *power_on_analog.CHECKS,
    *power_on_platform.CHECKS,
    *power_on_instruments.CHECKS,
    *power_on_random.CHECKS,
    *power_on_host.CHECKS,
    *known_answers.CHECKS,
)
