"""What a calibration may use: the roles of one module, its settings, its records, and the peer's light."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol, TypeVar

import numpy as np

from calibration.factory import FactoryRecord
from calibration.fit import Resistance
from calibration.raw import RawStore
from calibration.record import Record
from calibration.store import RecordStore
from calibration.tec_experiment import Identified
from drivers.roles import (
    AnalogInputs,
    DetectorBank,
    HeaterBank,
    Laser,
    LightMode,
    Rail,
    SymbolSource,
    TagSource,
    TemperatureController,
    TemperatureSensor,
    VoltageBank,
)

T = TypeVar("T")


class CalibrationRefused(Exception):
    """A calibration that could not be made: which one, and which part, reading and limit are to blame."""

    def __init__(self, procedure: str, reason: str) -> None:
        super().__init__(f"{procedure}: {reason}")
        self.procedure = procedure
        self.reason = reason


class LightRefused(Exception):
    """The transmitter did not give the light that was asked for; the message is its reason."""


class Clock(Protocol):
    def monotonic(self) -> float: ...
    def utc(self) -> datetime: ...


class LightService(Protocol):
    """The transmitter's light as the receiver may ask for it over the service channel."""

    async def set(self, mode: LightMode, state: int = 0, intensity: int = 0, photons_scale: float = 1.0) -> None:
        """Returns when the light is on; `photons_scale` multiplies the mean photon number of normal service.

        Raises LightRefused with the transmitter's reason.
        """
        ...


@dataclass(frozen=True)
class Settings:
    """Wanted working point and the limits of the reference module (reference pair A2, A3, A6, A7)."""

    mu_signal: float = 0.54
    decoy_ratio: float = 1 / 3
    p_x: float = 0.25
    p_decoy: float = 0.5
    laser_frequency_hz: float = 193.4145e12
    laser_power_dbm: float = 13.0
    basis_split: float = 0.26
    symbol_period_ps: float = 8000.0
    bin_ps: float = 800.0
    half_gate_ps: float = 200.0
    gate: tuple[int, int] = (0, 0)
    heater_max_power_w: float = 0.110
    tec_current_limit_a: float = 2.0
    heater_p_pi_w: tuple[float, float] = (0.026, 0.056)
    heater_resistance_ohm: tuple[float, float] = (60.0, 130.0)
    heater_monitor_divider: float = 4.0
    rail_tolerance: float = 0.05
    # The supply monitor averages 16 conversions of 3.2 ms: one window that began before a change, and one after it.
    rail_settle_s: float = 0.11
    settle_s: float = 0.003
    die_settle_s: float = 0.25
    modulator_v_pi: tuple[float, float] = (2.8, 5.4)
    modulator_sweep_v: float = 5.2
    alice_phase_share: float = 0.35
    detector_bias_a: tuple[float, float] = (10e-6, 25e-6)
    detector_probe_a: float = 15e-6
    detector_latched_v: float = 0.2
    dark_rate_max: float = 2000.0
    target_rate: float = 0.8e6
    # Dead time and recovery of a detector together, and its standard uncertainty, where they have not been measured.
    dead_s: float = 20e-9
    dead_sigma_s: float = 2.5e-9
    shutter_closed_v: float = 0.0
    shutter_open_v: float = 5.0
    clock_offset_max: float = 5e-6
    temperature_window_k: float = 0.5
    samples: int = 4


@dataclass(frozen=True)
class Progress:
    """How far a procedure is: fraction 0 to 1."""

    procedure: str
    fraction: float
    message: str = ""


def _ignore(_: Progress) -> None:
    return None


@dataclass
class CalibrationContext:
    """Roles of one module, by what they do; those that a module does not have are None."""

    side: Literal["alice", "bob"]
    heaters: HeaterBank
    biases: VoltageBank
    adc: AnalogInputs
    rail: Rail
    submount: TemperatureSensor
    tec: TemperatureController
    factory: FactoryRecord
    clock: Clock
    store: RecordStore
    settings: Settings = Settings()
    laser: Laser | None = None
    source: SymbolSource | None = None
    tags: TagSource | None = None
    detectors: DetectorBank | None = None
    light: LightService | None = None
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    progress: Callable[[Progress], None] = _ignore
    operator: str = "automatic"
    firmware_sha256: str = ""
    raw: RawStore = field(default_factory=RawStore)
    # Keys are being made: a check may only read, and the light is random symbols.
    keying: bool = False
    # Identifies the thermal plant while a loop regulates it; None: there is no such loop beside the calibration.
    identify_tec: Callable[[], Awaitable[Identified]] | None = None
    drive: HeaterDrive = field(init=False)

    def __post_init__(self) -> None:
        self.drive = HeaterDrive(self)

    def record(self, name: str) -> Record:
        """The active record. Raises CalibrationRefused when there is none."""
        found = self.store.active(name)
        if found is None:
            raise CalibrationRefused(name, "not calibrated yet")
        return found

    def need_source(self) -> SymbolSource:
        return self._need(self.source, "symbol source")

    def need_laser(self) -> Laser:
        return self._need(self.laser, "laser")

    def need_tags(self) -> TagSource:
        return self._need(self.tags, "time tagger")

    def need_detectors(self) -> DetectorBank:
        return self._need(self.detectors, "detectors")

    def need_light(self) -> LightService:
        return self._need(self.light, "light of the transmitter")

    def _need(self, part: T | None, what: str) -> T:
        if part is None:
            raise CalibrationRefused(self.side, f"this module has no {what}")
        return part

    async def temperatures(self) -> dict[str, float]:
        """Degrees Celsius of the submount's sensor, and of chip and heat sink as the TEC controller reads them."""
        tec = await self.tec.read()
        return {"submount": await self.submount.read_celsius(), "object": tec.object_c, "sink": tec.sink_c}

    async def settle(self) -> None:
        """Long enough for a heater, a bias and the photodiode amplifiers, not for the die."""
        await self.sleep(self.settings.settle_s)

    async def photocurrents(self, *names: str, samples: int | None = None) -> dict[str, float]:
        """Photocurrents in A, dark currents taken off, all diodes in the same conversions.

        Raises CalibrationRefused when an amplifier is at its upper rail.
        """
        volts = await self.adc.read_volts(samples or self.settings.samples)
        dark = self.store.active("photodiode_zero")
        out = {}
        for name in names:
            if volts[name] > 1.195:
                raise CalibrationRefused(name, f"photodiode amplifier at its rail ({volts[name]:.3f} V)")
            zero = dark.value.get(f"{name}_dark_a", 0.0) if dark else 0.0
            out[name] = self.factory.photodiode(name).current(volts[name]) - zero
        return out


class HeaterDrive:
    """Sets heater power, not current: the sources drive current and R depends on P (reference control B1)."""

    def __init__(self, context: CalibrationContext) -> None:
        self._context = context

    def resistance(self, channel: str) -> Resistance:
        """R(P) from the active heater record. Raises CalibrationRefused when the heater is not calibrated."""
        value = self._context.record("heater_iv").value
        try:
            r0, rho = value[f"{channel}_r0_ohm"], value[f"{channel}_rho_per_w"]
        except KeyError:
            raise CalibrationRefused("heater_iv", f"heater {channel!r} is not in the record") from None
        return Resistance(r0, rho, np.zeros((2, 2)), 0.0)

    def max_power(self, channel: str) -> float:
        """W: the lower of the heater's rating and what the current source can drive."""
        heaters = self._context.heaters
        return min(
            self._context.settings.heater_max_power_w, self.resistance(channel).power(0.999 * heaters.max_current_a)
        )

    def power(self, channel: str) -> float:
        """W at the current last written."""
        return self.resistance(channel).power(self._context.heaters.current(channel))

    async def set_power(self, channel: str, watts: float) -> None:
        """Raises drivers.errors.OutOfRange beyond the current limit and ValueError for a negative power."""
        if not watts >= 0.0 or math.isinf(watts):
            raise ValueError(f"heater {channel!r}: power {watts} W must not be negative")
        await self._context.heaters.set_current(channel, self.resistance(channel).current(watts))

    def total(self) -> float:
        """Sum of the powers of all calibrated heaters, W (for feed-forward to the TEC)."""
        value = self._context.record("heater_iv").value
        names = [n.removesuffix("_r0_ohm") for n in value if n.endswith("_r0_ohm")]
        return math.fsum(self.power(n) for n in names)
