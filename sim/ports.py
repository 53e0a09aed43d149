"""The seam inside the emulator: what electronics may do to and see of the world. `sim.world` implements these,
`sim.chips` and `sim.instruments` use them, and nothing else crosses. Every call first brings the world to clock.now().
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt


class TecPort(Protocol):
    """The TEC and its controller's inner loop (10 Hz PI in the controller's firmware, stepped with the plant)."""

    enabled: bool
    target_c: float
    kp_a_per_k: float
    ti_s: float
    current_limit_a: float
    polarity: int  # +1 as wired by the factory, -1 reversed
    static_a: float | None  # a fixed output current instead of regulation; None: regulate

    @property
    def object_c(self) -> float:
        """Thermistor reading with its lag and noise."""
        ...

    @property
    def sink_c(self) -> float: ...
    @property
    def current_a(self) -> float: ...
    @property
    def voltage_v(self) -> float: ...


class ModulePort(Protocol):
    """What both kinds of module have. Channel numbers are those of the parts (pair.md A2, A3)."""

    name: str  # "alice" or "bob"
    serial: str
    tec: TecPort

    def set_heater_current(self, channel: int, amperes: float) -> None: ...
    def heater_voltage(self, channel: int) -> float:
        """At the current source's output, V; 0 with the rail off."""
        ...

    def heater_open(self, channel: int) -> bool:
        """True where the current source drives into an open circuit (channel 4 always, when driven)."""
        ...

    def set_heater_rail(self, on: bool) -> None: ...
    def heater_rail(self) -> tuple[float, float]:
        """(V, A) drawn from the heater supply, quiescent current included."""
        ...

    def set_bias(self, channel: int, volts: float) -> None:
        """LTC2668 outputs. Alice: 0 C, 1 S, 2 D, 3 VOA. Bob: 0 shutter/VOA (0 V closed, 5 V open),
        1 drive of the self-test diode, 2 its shutter (0 V closed, 5 V open)."""
        ...

    def photocurrents(self) -> npt.NDArray[np.float64]:
        """A per ADC channel, shape (8,), dark currents included, noise not (the amplifier and ADC add it)."""
        ...

    def submount_c(self) -> float: ...
    def inlet_c(self) -> float:
        """Air that the module's fan draws in."""
        ...


class SourcePort(Protocol):
    """The optical side of Alice's symbol source. Slots are int; slot 0 begins at `start_run`."""

    period_s: float
    bin_s: float
    pilot: tuple[int, float]  # in KEY mode a bright pilot every so many slots (0: none), and its gain, dB

    def set_rf(self, which: str, volts: float) -> None:
        """which: carver, state, decoy."""
        ...

    def set_randomiser(self, on: bool) -> None: ...
    def start_run(self) -> int:
        """New run id; slot 0 now."""
        ...

    def stop_run(self) -> None: ...
    def run_now(self) -> tuple[int, int]:
        """(run id or 0, slot now)."""
        ...

    def set_probabilities(self, t_x: int, t_decoy: int) -> None:
        """In 1/65536."""
        ...

    def schedule(self, slot: int, mode: str, state: int = 0, intensity: int = 0) -> None:
        """mode OFF, CW, NULL, FIX, SYNC, KEY from this slot on (slot <= now: at once)."""
        ...

    def mode_at(self, slot: int) -> str: ...
    def symbols(self, slots: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """Nibbles bit0 basis, bit1 value, bit2 decoy. No window is enforced here: the device does that."""
        ...

    def modes(self, slots: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """True where the slot was sent in KEY mode."""
        ...


class TaggerPort(Protocol):
    """The photon side of Bob's time tagger."""

    def start(self) -> None:
        """Tag clock (Bob's own) restarts at 0."""
        ...

    def stop(self) -> None: ...
    def now_ps(self) -> int:
        """Bob's clock since start."""
        ...

    def set_gate(self, open_ps: int, period_ps: int) -> None: ...
    def collect(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8], int]:
        """(times ps int64 sorted, channels uint8, up to ps): all clicks since the last collect, jitter included."""
        ...


class AlicePort(ModulePort, Protocol):
    source: SourcePort

    def set_laser(self, on: bool, frequency_hz: float, power_dbm: float) -> None: ...
    def laser(self) -> tuple[bool, float, float]:
        """(emitting, frequency Hz, power dBm) as they are; the hardware enable line may hold it dark."""
        ...

    def set_laser_enable(self, on: bool) -> None:
        """The hardware enable line (port expander AND interlock)."""
        ...


class BobPort(ModulePort, Protocol):
    tagger: TaggerPort

    @property
    def detectors_unbiased(self) -> bool:
        """Line of the bias controller: every bias below 1 uA. The self-test diode's shutter opens only then."""
        ...

    def cryostat_k(self) -> float:
        """Temperature of the detectors, K."""
        ...

    def set_detector_bias(self, channel: int, amperes: float) -> None: ...
    def detector_voltage(self, channel: int) -> float:
        """Bias-tee voltage: near 0 superconducting, volts when latched."""
        ...

    def detector_rates(self, period_s: float) -> npt.NDArray[np.float64]:
        """Counts/s per channel as a counter would have measured over the last `period_s`; shape (3,)."""
        ...
