"""Light-off level, common to both kinds of module: heaters, photodiodes, temperature (reference control C)."""

from __future__ import annotations

from collections.abc import Sequence

from qmodd.selftest.bench import Bench
from qmodd.selftest.diode_checks import diode_findings
from qmodd.selftest.heater_checks import heater_findings
from qmodd.selftest.model import Check, Finding, Level
from qmodd.selftest.tec_checks import OFF_CHECKS


async def _heaters(bench: Bench) -> Sequence[Finding]:
    return await heater_findings(bench)


async def _photodiodes(bench: Bench) -> Sequence[Finding]:
    return await diode_findings(bench)


CHECKS: tuple[Check, ...] = (
    Check("photodiodes", Level.LIGHT_OFF, _photodiodes, ("monitor_adc",), after=("monitor_adc",)),
    Check("heaters", Level.LIGHT_OFF, _heaters, ("heater_dac", "heater_rail"), after=("heater_dac",), budget_s=12.0),
    *OFF_CHECKS,
)
