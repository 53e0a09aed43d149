"""The emulator's thermal plant as a temperature controller in counted time: the physics without the serial line."""

from __future__ import annotations

from datetime import datetime

import numpy as np

from drivers.errors import OutOfRange
from drivers.roles import TecReading, TecState
from sim.physics.thermal import CURRENT, MEASURED, SINK, SUBMOUNT, TICK_S, TecWiring, ThermalPlant
from tests.calibration.fakes import FakeTime


class Stage:
    def advance(self) -> None: ...
    def before_change(self) -> None: ...


class PlantTec:
    """Role TemperatureController over `ThermalPlant`; time passes in `sleep`, of which the plant takes part."""

    def __init__(
        self, start_c: float = 25.0, *, reversed_leads: bool = False, seed: int = 1, sink_c: float = 25.0
    ) -> None:
        self.time = FakeTime()
        self.plant = ThermalPlant(Stage(), start_c, np.random.Generator(np.random.Philox(seed)))
        self.plant.state[SINK] = sink_c
        self.plant.set_wiring(TecWiring(reversed=reversed_leads))
        self.plant.set_heat(0.120)
        self.ambient_c = 25.0
        self.ticks = 0
        self.dead_output = False
        self.frozen: TecReading | None = None
        self.target = 25.0
        self.submount: list[float] = []

    def monotonic(self) -> float:
        return self.time.now

    def utc(self) -> datetime:
        return self.time.utc()

    def utc_synchronised(self) -> bool:
        return True

    async def sleep(self, seconds: float) -> None:
        self.time.now += seconds
        while (self.ticks + 1) * TICK_S <= self.time.now + 1e-9:
            # The controller's own ramp, 1 K/s, driven or not.
            gap = self.target - self.plant.target_c
            self.plant.target_c += min(max(gap, -TICK_S), TICK_S)
            self.plant.run(self.ticks, 1, self.ambient_c)
            self.ticks += 1
            self.submount.append(float(self.plant.state[SUBMOUNT]))

    async def read(self) -> TecReading:
        if self.frozen is not None:
            return self.frozen
        p = self.plant
        near = abs(p.state[MEASURED] - self.target) < 0.01
        state = TecState.OFF if not p.enabled else TecState.STABLE if near else TecState.NOT_STABLE
        await self.sleep(0.02)
        return TecReading(
            float(p.state[MEASURED]), p.sink_c, self.target, p.target_c, float(p.state[CURRENT]), p.voltage_v, state
        )

    async def set_target(self, celsius: float) -> None:
        self.target = celsius

    async def set_gains(self, kp_a_per_k: float, ti_s: float, td_s: float = 0.0) -> None:
        self.plant.kp_a_per_k, self.plant.ti_s = kp_a_per_k, ti_s

    async def set_current_limit(self, amperes: float) -> None:
        self.plant.current_limit_a = amperes

    async def enable(self, on: bool) -> None:
        if on and not self.plant.enabled:
            self.plant.target_c = float(self.plant.state[MEASURED])
        self.plant.enabled = on and not self.dead_output

    async def drive_current(self, amperes: float | None) -> None:
        if amperes is not None and abs(amperes) > self.plant.current_limit_a:
            raise OutOfRange(f"{amperes} A")
        self.plant.static_a = amperes
