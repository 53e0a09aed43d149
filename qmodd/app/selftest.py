"""Quick self-test at boot: identities are checked by `open`; here read-back, rails and known answers, no light."""

from __future__ import annotations

from dataclasses import dataclass

from qmodd.app.failures import NotReady
from qmodd.module import Module

# The heater supply is 4.0 V; the reference module's tolerance is 5 %, and the ADC's shorted channel reads its offset.
RAIL_V = (3.6, 4.4)
RAIL_IDLE_A = (0.0, 0.05)
SHORT_V = (-0.002, 0.002)
WITNESS_C = (5.0, 60.0)
SPARE_TEST_A = 1e-3


@dataclass(frozen=True)
class CheckResult:
    """One check with its limits; `why` is empty when it passed."""

    name: str
    value: float
    unit: str
    low: float
    high: float

    @property
    def ok(self) -> bool:
        return self.low <= self.value <= self.high

    @property
    def why(self) -> str:
        if self.ok:
            return ""
        return f"{self.name} reads {self.value:.6g} {self.unit}; allowed is {self.low:g} to {self.high:g} {self.unit}"


async def quick_selftest(module: Module) -> list[CheckResult]:
    """Runs in well under a second. Heaters stay at zero except the unconnected spare channel.

    Raises NotReady naming every failed check with value and limit, or a drivers.errors.DriverError.
    """
    checks: list[CheckResult] = []
    rail = await module.rail.read()
    checks.append(CheckResult("heater_rail_voltage", rail.bus_v, "V", *RAIL_V))
    checks.append(CheckResult("heater_rail_idle_current", rail.current_a, "A", *RAIL_IDLE_A))
    volts = await module.adc.read_volts(4)
    checks.append(CheckResult("adc_shorted_input", volts["short"], "V", *SHORT_V))
    checks.append(CheckResult("submount_temperature", await module.submount.read_celsius(), "C", *WITNESS_C))
    checks.append(await _spare_is_open(module))
    if failed := [c.why for c in checks if not c.ok]:
        raise NotReady("self-test: " + "; ".join(failed))
    return checks


async def _spare_is_open(module: Module) -> CheckResult:
    """The unconnected channel must raise its flag when driven, and only it: proves the flags are read, not assumed.

    It stays driven, so that the heartbeat on this bus has the same known answer.
    """
    await module.heaters.set_current("spare", SPARE_TEST_A)
    flagged = await module.heaters.open_circuits()
    return CheckResult("open_circuit_flag_of_spare_alone", float(flagged == {"spare"}), "", 1.0, 1.0)
