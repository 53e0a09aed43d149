"""A small world behind the electronics: holds what was set, shows what a test puts in."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sim.clock import ManualClock


class FakeTec:
    def __init__(self) -> None:
        self.enabled = False
        self.target_c = 25.0
        self.kp_a_per_k = self.ti_s = self.current_limit_a = 0.0
        self.polarity = 1
        self.static_a: float | None = None
        self.object_c, self.sink_c, self.current_a, self.voltage_v = 24.0, 27.0, 0.5, 1.5


class FakeSource:
    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.period_s, self.bin_s = 8e-9, 0.8e-9
        self.pilot = (0, 0.0)
        self.rf: dict[str, float] = {}
        self.randomiser = False
        self.run, self.runs, self.started = 0, 0, 0.0
        self.probabilities = (0, 0)
        self.plan: list[tuple[int, str, int, int]] = []

    def set_rf(self, which: str, volts: float) -> None:
        self.rf[which] = volts

    def set_randomiser(self, on: bool) -> None:
        self.randomiser = on

    def start_run(self) -> int:
        self.runs += 1
        self.run, self.started = self.runs, self.clock.now()
        return self.run

    def stop_run(self) -> None:
        self.run = 0
        self.plan.clear()

    def run_now(self) -> tuple[int, int]:
        return (self.run, round((self.clock.now() - self.started) / self.period_s)) if self.run else (0, 0)

    def set_probabilities(self, t_x: int, t_decoy: int) -> None:
        self.probabilities = (t_x, t_decoy)

    def schedule(self, slot: int, mode: str, state: int = 0, intensity: int = 0) -> None:
        self.plan.append((slot, mode, state, intensity))

    def mode_at(self, slot: int) -> str:
        begun = [p for p in self.plan if p[0] <= slot]
        return begun[-1][1] if begun else "OFF"

    def symbols(self, slots: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        return (slots * 5 % 7).astype(np.uint8)

    def modes(self, slots: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        return np.array([self.mode_at(int(s)) == "KEY" for s in slots], dtype=np.bool_)


class FakeTagger:
    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.running = False
        self.started = 0.0
        self.gate = (0, 0)
        self.clicks: list[tuple[int, int]] = []

    def start(self) -> None:
        self.running, self.started = True, self.clock.now()

    def stop(self) -> None:
        self.running = False

    def now_ps(self) -> int:
        return round((self.clock.now() - self.started) * 1e12)

    def set_gate(self, open_ps: int, period_ps: int) -> None:
        self.gate = (open_ps, period_ps)

    def collect(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8], int]:
        clicks, self.clicks = sorted(self.clicks), []
        times = np.array([t for t, _ in clicks], dtype=np.int64)
        return times, np.array([c for _, c in clicks], dtype=np.uint8), self.now_ps()


class FakeModule:
    """Both modules in one: enough of AlicePort and BobPort."""

    def __init__(self, name: str, clock: ManualClock) -> None:
        self.name, self.serial, self.clock = name, "0001", clock
        self.tec = FakeTec()
        self.kelvin = 2.5
        self.source, self.tagger = FakeSource(clock), FakeTagger(clock)
        self.heaters = [0.0] * 5
        self.rail = False
        self.rail_reading = (4.0, 0.080)
        self.biases: dict[int, float] = {}
        self.currents = np.full(8, 1e-7)
        self.submount = 30.0
        self.laser_set = (False, 0.0, 0.0)
        self.laser_line = False
        self.detector_bias = [0.0] * 3
        self.rates = np.array([1000.0, 2000.0, 3000.0])

    def set_heater_current(self, channel: int, amperes: float) -> None:
        self.heaters[channel] = amperes

    def heater_voltage(self, channel: int) -> float:
        return self.heaters[channel] * 90.0

    def heater_open(self, channel: int) -> bool:
        return channel == 4

    def set_heater_rail(self, on: bool) -> None:
        self.rail = on

    def heater_rail(self) -> tuple[float, float]:
        return self.rail_reading

    def set_bias(self, channel: int, volts: float) -> None:
        self.biases[channel] = volts

    def photocurrents(self) -> npt.NDArray[np.float64]:
        return self.currents

    def submount_c(self) -> float:
        return self.submount

    def inlet_c(self) -> float:
        return 25.0

    @property
    def detectors_unbiased(self) -> bool:
        return max(self.detector_bias) < 1e-6

    def cryostat_k(self) -> float:
        return self.kelvin

    def set_laser(self, on: bool, frequency_hz: float, power_dbm: float) -> None:
        self.laser_set = (on, frequency_hz, power_dbm)

    def laser(self) -> tuple[bool, float, float]:
        on, frequency, power = self.laser_set
        return on and self.laser_line, frequency, power

    def set_laser_enable(self, on: bool) -> None:
        self.laser_line = on

    def set_detector_bias(self, channel: int, amperes: float) -> None:
        self.detector_bias[channel] = amperes

    def detector_voltage(self, channel: int) -> float:
        return 0.25 if self.detector_bias[channel] > 25e-6 else 0.0

    def detector_rates(self, period_s: float) -> npt.NDArray[np.float64]:
        return self.rates
