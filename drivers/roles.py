"""What the daemon asks of a device. A driver satisfies the roles of its part; nothing above knows a part's name.

Channels and lines are addressed by the names that the configuration gives them. Every method that touches a bus is a
coroutine and raises a `drivers.errors.DriverError`. Values are SI unless the name says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from drivers.quantity import Quantity


@dataclass(frozen=True)
class Identity:
    """What a device says it is. `address` is its address string in the configuration, e.g. i2c:1:0x48."""

    driver: str
    address: str
    model: str
    serial: str = ""
    firmware: str = ""


@dataclass
class BusCounters:
    """Counters of one bus since it was opened; latency is that of successful transactions."""

    transactions: int = 0
    retries: int = 0
    errors: int = 0
    resyncs: int = 0
    latency_s_last: float = 0.0
    latency_s_max: float = 0.0
    latency_s_sum: float = 0.0


@runtime_checkable
class Device(Protocol):
    """Common to all drivers. `open` checks identity and brings every output to its safe value."""

    name: str

    async def open(self) -> Identity: ...
    async def make_safe(self) -> None: ...
    async def close(self) -> None: ...


@runtime_checkable
class Outputs(Protocol):
    """A device that tells limits and last value of its outputs: only such outputs can be leased and swept."""

    def output(self, channel: str, /) -> Quantity:
        """By channel name, or by what it sets: `power`, `target`."""
        ...


@runtime_checkable
class Probed(Protocol):
    """A device that can prove its way to the controller: for counting errors of its bus."""

    async def known_answer(self) -> bool:
        """One harmless transaction whose answer is known: whether it came back right. Raises as any other."""
        ...


@runtime_checkable
class Checked(Protocol):
    """A device with registers that hold what was written, or should."""

    async def check_registers(self) -> list[str]:
        """What does not: registers that are not as the driver set them, and test patterns in registers without effect
        that did not come back. In words, [] when all is well; everything is as before afterwards."""
        ...


class HeaterBank(Protocol):
    """Current sources for heaters (LTC2672). Channel names from the configuration."""

    channels: tuple[str, ...]
    max_current_a: float

    async def set_current(self, channel: str, amperes: float) -> None: ...
    def current(self, channel: str) -> float:
        """Last value written, A."""
        ...

    async def open_circuits(self) -> frozenset[str]:
        """Channels whose open-circuit flag is set now."""
        ...

    async def monitor(self, channel: str | None) -> None:
        """Route the output voltage of a channel to the analogue monitor pin (None: off)."""
        ...


class VoltageBank(Protocol):
    """Bias voltages (LTC2668): modulator bias, attenuator, shutter."""

    channels: tuple[str, ...]

    async def set_voltage(self, channel: str, volts: float) -> None: ...
    def voltage(self, channel: str) -> float:
        """Last value written, V."""
        ...

    def limits(self, channel: str) -> tuple[float, float]:
        """(low, high) in V."""
        ...


@dataclass(frozen=True)
class RailReading:
    bus_v: float
    current_a: float
    power_w: float
    die_temperature_c: float


class Rail(Protocol):
    """Supply monitor (INA228)."""

    async def read(self) -> RailReading: ...


class AnalogInputs(Protocol):
    """Simultaneous ADC (ADS131M08): photodiode amplifiers and the heater voltage monitor."""

    channels: tuple[str, ...]

    async def read_volts(self, samples: int = 1) -> dict[str, float]:
        """Mean of `samples` conversions per channel, V at the ADC pin."""
        ...


class TemperatureSensor(Protocol):
    async def read_celsius(self) -> float: ...


class DigitalIO(Protocol):
    """Named lines of a port expander (PCA9535)."""

    lines: tuple[str, ...]

    async def write(self, line: str, level: bool) -> None: ...
    async def read(self, line: str) -> bool: ...


class TecState(IntEnum):
    """MeCom parameter 104 and 1200 condensed."""

    OFF = 0
    NOT_STABLE = 1
    STABLE = 2
    ERROR = 3


@dataclass(frozen=True)
class TecReading:
    object_c: float
    sink_c: float
    target_c: float
    ramp_target_c: float
    current_a: float
    voltage_v: float
    state: TecState
    error: int = 0


class TemperatureController(Protocol):
    async def read(self) -> TecReading: ...
    async def set_target(self, celsius: float) -> None: ...
    async def set_gains(self, kp_a_per_k: float, ti_s: float, td_s: float = 0.0) -> None: ...
    async def set_current_limit(self, amperes: float) -> None: ...
    async def enable(self, on: bool) -> None: ...
    async def drive_current(self, amperes: float | None) -> None:
        """A fixed output current instead of regulation, for identifying the plant; None regulates again.

        Positive current cools. Raises OutOfRange beyond the current limit (nothing written).
        """
        ...


@dataclass(frozen=True)
class LaserReading:
    emitting: bool
    frequency_hz: float
    power_dbm: float
    status: int
    alarms: tuple[str, ...] = ()


class Laser(Protocol):
    async def read(self) -> LaserReading: ...
    async def set_frequency(self, hz: float) -> None: ...
    async def set_power(self, dbm: float) -> None: ...
    async def set_fine_hz(self, hz: float) -> None:
        """Fine tuning about the channel while emitting (ITLA FTF, 1 MHz steps). Raises OutOfRange."""
        ...

    async def enable(self, on: bool) -> None:
        """Returns when the laser has settled (its pending bit is clear) or raises."""
        ...


class DetectorBank(Protocol):
    """SNSPD controller. Channels in the order DZ, DX0, DX1."""

    channels: tuple[str, ...]

    async def set_bias(self, bias_a: Sequence[float]) -> None: ...
    async def read_bias_voltage(self) -> tuple[float, ...]: ...
    async def read_rates(self, period_s: float) -> npt.NDArray[np.float64]:
        """Counts per second per channel over one fresh measurement period; shape (n,)."""
        ...


class LightMode(IntEnum):
    """What the symbol source sends (pair.md B1)."""

    OFF = 0
    CW = 1
    NULL = 2
    FIX = 3
    SYNC = 4
    KEY = 5


@dataclass(frozen=True)
class Pilot:
    """Bright slots that never become key: every slot whose index is a multiple of `every`, `gain` times as bright as a
    signal. Early and late differ by +90 degrees in even multiples and by -90 degrees in odd ones, so that the two
    outputs of a receiver in phase see them alike and their difference goes with the sine of the error."""

    every: int
    gain: float


class SymbolSource(Protocol):
    """Alice's symbol source. States: 0 Z0, 1 Z1, 2 X0, 3 X1; intensity: 0 signal, 1 decoy."""

    period_ps: float
    bin_ps: float

    async def set_probabilities(self, p_x: float, p_decoy: float) -> tuple[float, float]:
        """Returns what the device really uses (multiples of 1/65536). Refused while KEY runs."""
        ...

    async def set_rf(
        self, *, carver_v: float | None = None, state_v: float | None = None, decoy_v: float | None = None
    ) -> None: ...
    async def set_randomiser(self, on: bool) -> float:
        """Returns the measured rms drive of the phase randomiser, rad."""
        ...

    async def run(self) -> int:
        """Start a new run at slot 0; returns the run id."""
        ...

    async def stop(self) -> None: ...
    async def now(self) -> tuple[int, int]:
        """(run id, slot now)."""
        ...

    async def set_mode(self, mode: LightMode, state: int = 0, intensity: int = 0, at_slot: int | None = None) -> None:
        """Immediately, or at a slot at least 0.2 s ahead."""
        ...

    async def read_symbols(self, slots: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """Nibbles for the listed slots (ascending), each answered once: bit0 basis (1 X), bit1 value, bit2 decoy,
        bit3 not valid. Shape as `slots`."""
        ...

    async def free(self, before_slot: int) -> None:
        """Erase every symbol before this slot."""
        ...

    async def pilot(self) -> Pilot | None:
        """The pilot that this source sends in KEY mode; None when it has none."""
        ...

    async def questionable(self) -> int:
        """STAT:QUES bits: 0 reference unlocked, 1 random-number health, 2 drive out of range."""
        ...


@dataclass(frozen=True)
class TagBlock:
    """One read of the time tagger. `t` int64 ps of the tagger's clock since RUN, sorted; `channel` uint8 (0 DZ, 1 DX0,
    2 DX1). Every click with from_ps <= t < to_ps is in here unless `gap` is set (overflow, lost block, bad checksum),
    in which case the intervals in `lost_ps` hold no usable data. `gate_ppm`: the strobe's open share (1e6: always)."""

    t: npt.NDArray[np.int64]
    channel: npt.NDArray[np.uint8]
    from_ps: int
    to_ps: int
    sequence: int
    gap: bool
    lost_ps: tuple[tuple[int, int], ...] = ()
    reference_unlocked: bool = False
    gate_ppm: int = 1_000_000
    more: bool = False


class TagSource(Protocol):
    """Bob's time tagger."""

    async def run(self) -> None:
        """Start streaming; the tag clock restarts at 0."""
        ...

    async def stop(self) -> None: ...
    async def now_ps(self) -> int: ...
    async def read(self) -> TagBlock:
        """Everything since the previous read."""
        ...

    async def set_gate(self, open_ps: int, period_ps: int) -> None:
        """Strobe; (0, 0) is always open."""
        ...

    async def counts(self) -> npt.NDArray[np.int64]:
        """Total clicks per channel since RUN (they go on in an overflow); shape (3,)."""
        ...


class FruStore(Protocol):
    async def read(self) -> Mapping[str, str]: ...
