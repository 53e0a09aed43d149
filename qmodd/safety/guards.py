"""Devices behind a check: what may not be written is refused before a byte leaves, with both figures.

A guard stands in a module's place of the device and passes everything else on. The heaters are held to the chip's
budget; the diode's shutter and the detectors' bias exclude one another.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from drivers.errors import Refused
from drivers.roles import DetectorBank, DigitalIO, HeaterBank, VoltageBank
from qmodd.module import Module
from qmodd.safety.interlocks import SHUTTER_CLOSED_V, UNBIASED_A

# Connected to nothing: takes no power.
SPARE = "spare"
DIODE_SHUTTER = "diode_shutter"
UNBIASED_LINE = "detectors_unbiased"
# Of a heater that has not been measured yet: above what the factory lets pass.
UNKNOWN_OHM = 110.0
# The rail's monitor averages; what was written within this may still be in its reading.
RECENT_S = 1.0

Power = Callable[[str, float], float]


def nominal_power(_channel: str, amperes: float) -> float:
    """W of a heater that is not calibrated: on the safe side."""
    return amperes * amperes * UNKNOWN_OHM


@dataclass
class HeaterBudget:
    """Power of the whole chip by what is written; `power` gives the watts of a channel at a current."""

    budget_w: float
    clock: Callable[[], float]
    power: Power = nominal_power
    _recent: deque[tuple[float, float, float]] = field(default_factory=deque)

    def total_w(self, bank: HeaterBank, changed: str = "", amperes: float = 0.0) -> float:
        """Sum over all heaters, W, with one of them as it would be."""
        return math.fsum(
            self.power(c, amperes if c == changed else bank.current(c)) for c in bank.channels if c != SPARE
        )

    def admit(self, bank: HeaterBank, channel: str, amperes: float) -> None:
        """Raises Refused with what the chip would take and what it may; less heat is never refused."""
        if channel == SPARE or not amperes > bank.current(channel):
            return
        would = self.total_w(bank, channel, amperes)
        if would > self.budget_w:
            raise Refused(
                f"heater {channel}: {1e3 * amperes:.1f} mA would make {would:.3f} W on the chip; its budget is "
                f"{self.budget_w:g} W; nothing was written"
            )

    def wrote(self, bank: HeaterBank) -> None:
        """Remember what the sources give now."""
        amperes = math.fsum(bank.current(c) for c in bank.channels if c != SPARE)
        self._recent.append((self.clock(), amperes, self.total_w(bank)))

    def recent(self, bank: HeaterBank) -> tuple[float, float]:
        """(A, W): the most that was written within the time that the rail's monitor averages over."""
        self.wrote(bank)
        now = self.clock()
        # The last one before the window holds at its begin.
        while len(self._recent) > 1 and now - self._recent[1][0] > RECENT_S:
            self._recent.popleft()
        return max(a for _, a, _ in self._recent), max(w for _, _, w in self._recent)


class _Guard:
    """Passes on what it does not check."""

    def __init__(self, device: Any) -> None:
        self._device = device

    @property
    def bare(self) -> Any:
        """The device itself, for the self-test of the hardware that stands behind this check."""
        return self._device

    def __getattr__(self, name: str) -> Any:
        return getattr(self._device, name)


class GuardedHeaters(_Guard):
    """Role HeaterBank within the budget."""

    def __init__(self, device: HeaterBank, budget: HeaterBudget) -> None:
        super().__init__(device)
        self._budget = budget

    async def set_current(self, channel: str, amperes: float) -> None:
        """As the device's; raises Refused (nothing written) beyond the chip's budget."""
        self._budget.admit(self._device, channel, amperes)
        await self._device.set_current(channel, amperes)
        self._budget.wrote(self._device)


class GuardedBiases(_Guard):
    """Role VoltageBank: the diode's shutter opens only while no detector is biased."""

    def __init__(self, device: VoltageBank, detectors: DetectorBank, platform: DigitalIO) -> None:
        super().__init__(device)
        self._detectors, self._platform = detectors, platform

    async def set_voltage(self, channel: str, volts: float) -> None:
        """As the device's; raises Refused (nothing written) for a diode shutter that would blind the detectors."""
        if channel == DIODE_SHUTTER and volts >= SHUTTER_CLOSED_V:
            if (largest := largest_bias(self._detectors)) >= UNBIASED_A:
                raise Refused(
                    f"{DIODE_SHUTTER} may open only with detectors unbiased: {1e6 * largest:.1f} uA is set, below "
                    f"{1e6 * UNBIASED_A:g} uA is needed; nothing was written"
                )
            if UNBIASED_LINE in self._platform.lines and not await self._platform.read(UNBIASED_LINE):
                raise Refused(
                    f"{DIODE_SHUTTER} may open only with detectors unbiased: no bias is set, but their line "
                    f"{UNBIASED_LINE} is low; nothing was written"
                )
        await self._device.set_voltage(channel, volts)


class GuardedDetectors(_Guard):
    """Role DetectorBank: no bias while the diode's shutter is open."""

    def __init__(self, device: DetectorBank, biases: VoltageBank) -> None:
        super().__init__(device)
        self._biases = biases

    async def set_bias(self, bias_a: Sequence[float]) -> None:
        """As the device's; raises Refused (nothing written) while light of the diode could fall on the detectors."""
        largest, volts = max(bias_a, default=0.0), self._biases.voltage(DIODE_SHUTTER)
        if largest >= UNBIASED_A and volts >= SHUTTER_CLOSED_V:
            raise Refused(
                f"detectors stay without bias: {DIODE_SHUTTER} is at {volts:.2f} V, below {SHUTTER_CLOSED_V:g} V is "
                f"needed for {1e6 * largest:.1f} uA; nothing was written"
            )
        await self._device.set_bias(bias_a)


def largest_bias(detectors: DetectorBank) -> float:
    """The largest bias that was written, A; 0 for a bank that does not tell."""
    bias = getattr(detectors, "bias", None)
    return max((abs(a) for a in bias()), default=0.0) if bias is not None else 0.0


def guard(module: Module, budget: HeaterBudget) -> None:
    """Puts the guards that a module's devices need in front of them; before anybody has taken a device."""
    devices: dict[str, Any] = module.devices
    if "heaters" in devices:
        devices["heaters"] = GuardedHeaters(module.heaters, budget)
    if "detectors" in devices and DIODE_SHUTTER in module.biases.channels:
        biases, detectors = module.biases, module.detectors
        devices["biases"] = GuardedBiases(biases, detectors, module.platform)
        devices["detectors"] = GuardedDetectors(detectors, biases)
