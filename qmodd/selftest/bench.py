"""What a check works with: the module's roles, its records and factory data, time, and a place for curves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from calibration.context import CalibrationContext, Clock
from calibration.plot import Figure
from qmodd.module import Module
from qmodd.randomness import Randomness, SystemRandomness
from qmodd.selftest.model import Finding


def _quiet(_name: str, _fraction: float, _message: str) -> None:
    return None


@dataclass
class Host:
    """The controller itself. `disk`: free and all bytes of the file system of the state directory; `clock`: whether UTC
    is disciplined, and why not."""

    state_dir: Path
    disk: Callable[[Path], tuple[int, int]]
    clock_synchronised: Callable[[], tuple[bool, str]] = lambda: (True, "")


@dataclass(frozen=True)
class Production:
    """How long and over what the production level runs. burn_in_h: hours at burn_in_w in every heater, W; read
    burn_in_points times, evenly in the logarithm of time."""

    temperatures_c: tuple[float, ...] = (25.0, 30.0, 35.0)
    settle_s: float = 180.0
    burn_in_h: float = 24.0
    burn_in_w: float = 0.05
    burn_in_points: int = 16


@dataclass
class Bench:
    """A module that is open, with its watchdog toggling, its rails on and its temperature loop running.

    Checks leave every output as they found it. `figures` takes curves for the page, `notes` what a later check needs
    of an earlier one, by names that the earlier check's module defines.
    """

    module: Module
    context: CalibrationContext
    clock: Clock
    host: Host
    rng: np.random.Generator
    progress: Callable[[str, float, str], None] = _quiet
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    randomness: Randomness = field(default_factory=SystemRandomness)
    # Of the photonic module, by its EEPROM; "" where that is not known.
    serial: str = ""
    production: Production = Production()
    # Moves the target of the temperature loop, C; None where no loop runs.
    aim: Callable[[float], None] | None = None
    figures: dict[str, Figure] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
    # Of this run so far; kept by the runner.
    findings: list[Finding] = field(default_factory=list)

    @property
    def side(self) -> str:
        return self.module.config.module.role

    def has(self, role: str) -> bool:
        """Whether a device plays this role; optional roles may be missing."""
        return role in self.module.devices

    def part(self, role: str) -> str:
        """Name of the device that plays a role, as findings name parts."""
        return self.module.devices[role].name

    def bus(self, role: str) -> str:
        """Name of the part that a device's bus is, e.g. "bus i2c:1"; devices on one bus fail together when it does."""
        address = self.module.config.by_role(role).address
        kind, _, rest = address.partition(":")
        if kind == "i2c":
            return f"bus i2c:{rest.partition(':')[0]}"
        if kind == "spi":
            return f"bus spi:{rest.partition('.')[0]}"
        return f"bus of {self.part(role)}"
