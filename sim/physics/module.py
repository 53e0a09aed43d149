"""What both emulated modules have: heaters, TEC plant, photodiodes, and the faults that can befall them."""

from __future__ import annotations

from collections.abc import Callable
from zlib import crc32

import numpy as np
import numpy.typing as npt

from sim.ageing import aged_sink
from sim.faults import FaultSchedule
from sim.individuals import CHANNEL_HZ, HEATERS, PLANCK, Ballast, Heaters, Monitors, stream
from sim.physics.defects import Paths, Photodiodes
from sim.physics.drifts import Drifts
from sim.physics.heaters import CALIBRATION_C, CHANNELS, HeaterBank, HeaterDefects
from sim.physics.thermal import Stage, TecWiring, ThermalPlant
from sim.ports import TecPort
from sim.scenario import Modules

Floats = npt.NDArray[np.float64]

PHOTON_J = PLANCK * CHANNEL_HZ
WALK_RAD_PER_ROOT_S = np.deg2rad(np.array([0.05, 0.05, 0.3, 0.05])) / np.sqrt(60.0)
DARK_DOUBLES_K = 10.0
RAILED_A = 0.033
STALLED_FAN = 4.0
WEAK_PELTIER = 0.4
THERMISTOR_OFFSET_K, THERMISTOR_NOISE_K = 3.0, 0.1


class Module:
    """Common part of `AlicePort` and `BobPort`. Heater channel 2 is the AMZI's phase on both sides.

    `plant` is what stands behind `tec`.
    """

    def __init__(
        self,
        stage: Stage,
        name: str,
        serial: str,
        heaters: Heaters,
        monitors: Monitors,
        tec: ThermalPlant,
        drifts: Drifts,
        now: Callable[[], float],
        phase_scale: float,
        build: Modules = Modules(),
        ballast: Ballast | None = None,
    ) -> None:
        """ballast: what sits on the fifth heater channel where `build` has one."""
        self.name = name
        self.serial = serial
        self.tec: TecPort = tec
        self.plant = tec
        self.monitors = monitors
        self._stage = stage
        self._now = now
        self._drifts = drifts
        self._bank = HeaterBank(heaters, ballast if build.ballast else None)
        self._bank.born_aged(build.age_h * 3600.0)
        self._diodes = Photodiodes(name, stream(crc32(serial.encode()), f"{name} photodiodes"))
        self.paths = Paths(name)
        self.sink_factor = aged_sink(build.age_h, crc32(serial.encode()), name)
        # A stream of its own, so that the other drifts of a seed are the same with and without it.
        self._wander = Drifts(stream(crc32(serial.encode()), f"{name} die"), drifts.dt)
        self._wanders = build.die_noise_k > 0.0
        self._wander.ou("die", build.die_noise_k, build.die_noise_s)
        self._walk = np.zeros(HEATERS)
        self._phases = np.zeros(HEATERS)
        self._phases_key: tuple[float, float, int] | None = None
        self._phase_scale = phase_scale
        self.foreign_w = 0.0
        drifts.walk(f"{name} phases", 1.0, HEATERS)

    def set_heater_current(self, channel: int, amperes: float) -> None:
        """Raises ValueError for a channel that the part does not have."""
        self._stage.before_change()
        self._bank.set_current(channel, amperes, self._now())
        self.plant.set_heat(self._bank.heat())

    def set_heater_rail(self, on: bool) -> None:
        self._stage.before_change()
        self._bank.set_rail(on, self._now())
        self.plant.set_heat(self._bank.heat())

    def heater_voltage(self, channel: int) -> float:
        self._stage.advance()
        return self._bank.voltage(channel)

    def heater_open(self, channel: int) -> bool:
        self._stage.advance()
        return self._bank.is_open(channel)

    def heater_rail(self) -> tuple[float, float]:
        self._stage.advance()
        return self._bank.rail()

    def submount_c(self) -> float:
        self._stage.advance()
        return self.plant.submount_c

    def inlet_c(self) -> float:
        self._stage.advance()
        return self._stage.ambient_c

    @property
    def die_c(self) -> float:
        """What the phases feel: the plant's die, and its wander where the scenario has one (truth)."""
        return self.plant.die_c + self._wander["die"]

    @property
    def heaters(self) -> HeaterBank:
        """The heaters themselves (truth)."""
        return self._bank

    def phases(self) -> Floats:
        """Phase of every element now, rad, shape (4,) (truth; does not move the world)."""
        key = (self._now(), self.die_c, self._bank.changes)
        if key != self._phases_key:
            self._phases = self._bank.phases(key[0], key[1], self._walk)
            self._phases_key = key
        return self._phases

    def settling_until(self) -> float:
        """World time from which the heaters' phases stand still."""
        return self._bank.settled_at()

    def step_drifts(self, t: float, heater_scale: float) -> None:
        """After a step of the world's drifts, at time t (s)."""
        self._phases_key = None
        if self._wanders:
            self._wander.step()
        self._walk = self._phase_scale * WALK_RAD_PER_ROOT_S * self._drifts.row(f"{self.name} phases")
        self._bank.age(t, heater_scale)

    def apply_faults(self, faults: FaultSchedule, t: float) -> None:
        heaters = [f"{self.name}.heater.{i}" for i in range(CHANNELS)]
        broken = np.array([bool(faults.active("open", h, t)) for h in heaters])
        shorted = np.array([bool(faults.active("short", h, t)) for h in heaters])
        railed = [faults.active("railed", h, t) for h in heaters]
        stuck = np.array([np.nan if f is None else f.number(RAILED_A) for f in railed])
        self._bank.set_faults(broken, shorted, self._now(), stuck)
        self._bank.set_defects(HeaterDefects.of(faults, self.name, t), self._now())
        self._diodes.apply_faults(faults, t)
        self.paths.apply_faults(faults, t)
        self.plant.set_heat(self._bank.heat())
        self.plant.set_wiring(self._wiring(faults, t))
        bright = faults.active("bright", f"{self.name}.input", t)
        self.foreign_w = bright.number(1e-6) if bright else 0.0

    def currents(self, watts: Floats) -> Floats:
        """Photocurrents, A, for powers in front of the taps, W, shape (8,) by ADC channel; dark currents included."""
        warmer = 2.0 ** ((self.plant.die_c - CALIBRATION_C) / DARK_DOUBLES_K)
        return self._diodes.seen(watts * self.monitors.tap * self.monitors.responsivity, self.monitors.dark * warmer)

    def _wiring(self, faults: FaultSchedule, t: float) -> TecWiring:
        fan = faults.active("fan", f"{self.name}.tec", t)
        weak = faults.active("weak", f"{self.name}.peltier", t)
        offset, noisy = (faults.active(kind, f"{self.name}.thermistor", t) for kind in ("offset", "noisy"))
        return TecWiring(
            reversed=bool(faults.active("reversed", f"{self.name}.tec", t)),
            sink_factor=self.sink_factor * (fan.number(STALLED_FAN) if fan else 1.0),
            pumping=weak.number(WEAK_PELTIER) if weak else 1.0,
            parted=bool(faults.active("open", f"{self.name}.peltier", t)),
            offset_k=offset.number(THERMISTOR_OFFSET_K) if offset else 0.0,
            bare=bool(faults.active("open", f"{self.name}.thermistor", t)),
            noise_k=noisy.number(THERMISTOR_NOISE_K) if noisy else 0.0,
        )
