"""The transmitter: calibrates by itself, then serves light and leads the keying."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from calibration.context import CalibrationContext
from calibration.graph import Graph
from calibration.procedures import alice_graph
from drivers.errors import Refused
from drivers.roles import LightMode
from qmodd.app.operator import Operator
from qmodd.control.loop import Scheduler
from qmodd.control.power import CarverNullLoop, LaserPowerLoop, MeanPhotonLoop, StateBiasTrim
from qmodd.keys.counts import BatchReport
from qmodd.lifecycle import Activity, Operational
from qmodd.module import Module


@dataclass
class AliceOperator(Operator):
    """`_lit` is what the receiver asked for last; `_trim` is the receiver's help with the state modulator's bias."""

    _context: CalibrationContext | None = None
    _trim: StateBiasTrim | None = None
    _batches: asyncio.Queue[BatchReport] = field(default_factory=lambda: asyncio.Queue(64))
    mean_photon: MeanPhotonLoop | None = None
    laser_power: LaserPowerLoop | None = None
    carver: CarverNullLoop | None = None

    def graph(self) -> Graph:
        return alice_graph()

    def context(self, module: Module) -> CalibrationContext:
        context = self.wiring.calibration_context(module, self.progress)
        context.laser, context.source = module.laser, module.source
        self._context = context
        return context

    def add_loops(self, scheduler: Scheduler, module: Module, context: CalibrationContext) -> None:
        self.add_tec_loop(scheduler, module)
        period = self.wiring.config.control.slow_period_s
        source = self.wiring.config.source
        self.laser_power = LaserPowerLoop(context, lambda: self.in_service)
        self.mean_photon = MeanPhotonLoop(context, self._keying, lambda: (source.p_x, source.p_decoy))
        self.carver = CarverNullLoop(context, self._keying)
        self.wiring.add_loop(scheduler, "laser power", period, self.laser_power.step)
        self.wiring.add_loop(scheduler, "mean photon number", period, self.mean_photon.step)
        self.wiring.add_loop(scheduler, "carver null", 10.0 * period, self.carver.step)
        self.wiring.add_loop(scheduler, "state bias", period, self._trim_state)

    def _keying(self) -> bool:
        return self.in_service and self.wiring.engine.light_is_keying

    async def serve(self, module: Module, context: CalibrationContext) -> None:
        life, engine = self.wiring.life, self.wiring.engine
        record = context.record("state_bias")
        self._trim = StateBiasTrim(
            self.wiring.state_slope(record), module.biases.voltage("state"), self._write_state(module)
        )
        life.set_operational(Operational.ENABLED, "calibrated; all loops check in")
        life.set_activity(Activity.READY, "light can be asked for; waiting for the receiver")
        await self.wiring.key_while_allowed(engine)

    def _write_state(self, module: Module):  # type: ignore[no-untyped-def]
        async def write(volts: float) -> None:
            await module.biases.set_voltage("state", volts)

        return write

    async def _trim_state(self, now_s: float) -> None:
        while not self._batches.empty():
            batch = self._batches.get_nowait()
            if self._trim is not None and self._keying():
                await self._trim.add(sum(batch.n_x0), sum(batch.n_x1))

    def on_batch(self, batch: BatchReport) -> None:
        if self._batches.full():
            self._batches.get_nowait()
        self._batches.put_nowait(batch)

    async def light(self, mode: LightMode, state: int, intensity: int, scale: float) -> None:
        """For the engine: the receiver asks for calibration light.

        Raises Refused with the reason when this module is not ready, or keys are being made.
        """
        context = self._context
        if not self.in_service or context is None or self._module is None:
            raise Refused(f"{self.wiring.config.module.serial} is {self.wiring.life.activity}: {self.wiring.life.why('activity')}")
        if self._keying():
            raise Refused("keys are being made; calibration light would be in their slots")
        await self.wiring.set_light(context, mode, state, intensity, scale)
