"""The transmitter: calibrates by itself, then serves light and leads the keying."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from calibration.context import CalibrationContext, CalibrationRefused
from calibration.fit import FitRefused
from calibration.graph import Graph, bring_up
from calibration.procedures import alice_graph
from calibration.record import Record
from drivers.errors import Refused
from drivers.roles import LightMode
from qmodd.app.failures import NotReady
from qmodd.app.operator import Operator
from qmodd.control.loop import Scheduler
from qmodd.control.power import (
    CarverNullLoop,
    DecoyBiasTrim,
    LaserPowerLoop,
    MeanPhotonLoop,
    SourceMonitor,
    StateBiasTrim,
)
from qmodd.keys.counts import BatchReport
from qmodd.keys.settings import Phase, PlanFacts
from qmodd.lifecycle import Activity, Operational
from qmodd.module import Module

# How far the intensities may be from their calibration while their loops hold them, relative, on top of the
# calibration's own uncertainty. It is paid for in key: the bound is taken over the whole interval.
# The decoy's part is what the source monitor lets pass: its own limit, and what its margin could hide.
MONITOR_HELD = 0.02
HELD = {"signal": 0.005, "decoy": 0.033}
# Batches this old may still be on their way when a bias is corrected.
OLD_S = 1.5


@dataclass
class AliceOperator(Operator):
    """`_trim` and `decoy` hold modulator biases by what the receiver tells of its public counts."""

    _context: CalibrationContext | None = None
    _refreshed: bool = False
    _old_until_s: float = -math.inf
    _trim: StateBiasTrim | None = None
    decoy: DecoyBiasTrim | None = None
    monitor: SourceMonitor | None = None
    _batches: asyncio.Queue[BatchReport] = field(default_factory=lambda: asyncio.Queue(64))
    mean_photon: MeanPhotonLoop | None = None
    laser_power: LaserPowerLoop | None = None
    carver: CarverNullLoop | None = None
    # (P(X), P(decoy)) as the symbol source really uses them.
    probabilities: tuple[float, float] = (0.25, 0.5)

    def graph(self) -> Graph:
        return alice_graph()

    def check_parts(self, module: Module) -> None:
        """The symbol source runs at its own period; the receiver and the photon scale rely on the configured one."""
        wanted, found = self.wiring.config.pair.symbol_period_ps, module.source.period_ps
        if found != wanted:
            raise NotReady(f"the symbol source has slots of {found:g} ps; pair.symbol_period_ps is {wanted:g}")

    def context(self, module: Module) -> CalibrationContext:
        context = self.wiring.calibration_context(module, self.progress)
        context.laser, context.source = module.laser, module.source
        self._context = context
        return context

    def add_loops(self, scheduler: Scheduler, module: Module, context: CalibrationContext) -> None:
        self.add_tec_loop(scheduler, module)
        period = self.wiring.config.control.slow_period_s
        self.laser_power = LaserPowerLoop(context, lambda: self.in_service)
        self.mean_photon = MeanPhotonLoop(context, self._keying, lambda: self.probabilities)
        self.carver = CarverNullLoop(context, self._keying)
        self.wiring.add_loop(scheduler, "laser power", period, self.laser_power.step)
        self.wiring.add_loop(scheduler, "mean photon number", period, self.mean_photon.step)
        self.wiring.add_loop(scheduler, "source monitor", period, self._watch_source)
        self.wiring.add_loop(scheduler, "carver null", 10.0 * period, self.carver.step)
        self.wiring.add_loop(scheduler, "state and decoy bias", period, self._trim_biases)

    def _keying(self) -> bool:
        return self.in_service and self.wiring.engine.status.phase is Phase.KEYING

    async def serve(self, module: Module, context: CalibrationContext) -> None:
        life, wanted = self.wiring.life, self.wiring.config.source
        await module.source.set_mode(LightMode.OFF)
        self.probabilities = await module.source.set_probabilities(wanted.p_x, wanted.p_decoy)
        self._refreshed = False
        self._make_trims(module, context)
        life.set_operational(Operational.ENABLED, "calibrated; all loops check in")
        life.set_activity(Activity.READY, "light can be asked for; waiting for the receiver")
        await self.wiring.key_while_allowed()

    def _make_trims(self, module: Module, context: CalibrationContext) -> None:
        p_decoy = self.probabilities[1]
        share = p_decoy * context.record("decoy").value["ratio"]
        self.monitor = SourceMonitor(context, self._keying, share / (1.0 - p_decoy + share), MONITOR_HELD)
        slope = context.record("state_trim").value["null_slope_per_v"]
        self._trim = StateBiasTrim(slope, module.biases.voltage("state"), self._write(module, "state"))
        decoy = context.record("decoy").value
        self.decoy = DecoyBiasTrim(
            decoy["ratio_slope_per_v"],
            module.biases.voltage("decoy"),
            decoy["ratio"],
            self._z_share,
            self._write(module, "decoy"),
        )

    async def _refresh(self, context: CalibrationContext) -> None:
        """Modulator bias creeps with the logarithm of time: trim it again once the receiver, too, is ready, so that the
        loops start from set points that hold. Raises Refused with the reason of a calibration that failed."""
        if self._refreshed or self._module is None:
            return
        try:
            await bring_up(self.graph(), context, ["mean_photon"], ["state_trim"])
        except (CalibrationRefused, FitRefused) as e:
            raise Refused(f"no keys before the modulators are trimmed: {e}") from e
        self._make_trims(self._module, context)
        self._refreshed = True
        self.wiring.life.set_activity(Activity.READY, "modulators trimmed; keys next")

    def _write(self, module: Module, channel: str) -> Callable[[float], Awaitable[None]]:
        async def write(volts: float) -> None:
            await module.biases.set_voltage(channel, volts)

        return write

    async def _watch_source(self, now_s: float) -> None:
        if self.monitor is not None and self._refreshed:
            await self.monitor.step(now_s)

    def _z_share(self, intensity: int) -> float:
        """Probability that a slot is sent in Z with this intensity; the receiver's choice drops out of the ratio."""
        p_x, p_decoy = self.probabilities
        return (1.0 - p_x) * (p_decoy if intensity else 1.0 - p_decoy)

    async def _trim_biases(self, now_s: float) -> None:
        """All that came since the last step counts as one reading; what was sent before the last correction, as none:
        acting on it again would make the loop swing."""
        live, z, x = 0, [0, 0], [0, 0]
        while not self._batches.empty():
            batch = self._batches.get_nowait()
            live += batch.live_slots
            z = [a + b for a, b in zip(z, batch.n_z, strict=True)]
            x = [x[0] + sum(batch.n_x0), x[1] + sum(batch.n_x1)]
        if now_s < self._old_until_s or self._trim is None or self.decoy is None or not self._keying():
            return
        before = (self._trim.volts, self.decoy.volts)
        await self._trim.add(*x)
        await self.decoy.add(live, *z)
        if (self._trim.volts, self.decoy.volts) != before:
            self._old_until_s = now_s + OLD_S + 2.0 * self.wiring.config.keys.batch_s

    def on_batch(self, batch: BatchReport) -> None:
        if self._batches.full():
            self._batches.get_nowait()
        self._batches.put_nowait(batch)

    async def plan_facts(self) -> PlanFacts:
        """For the engine: what is fixed before a block. Raises Refused when this module is not in service.

        Puts the attenuator back to its working point: the receiver may have asked for more light before.
        """
        context = self._in_service()
        await self._refresh(context)
        record = context.record("mean_photon")
        await context.biases.set_voltage("voa", self._voa_volts(context, record))
        v = record.value
        return PlanFacts(
            mu=tuple(
                (v[f"mu_{name}_low"] * (1.0 - hold), v[f"mu_{name}_high"] * (1.0 + hold)) for name, hold in HELD.items()
            ),
            p_mu=(1.0 - self.probabilities[1], self.probabilities[1]),
            p_x=self.probabilities[0],
            calibration=f"mean_photon {record.version}",
        )

    async def light(self, mode: LightMode, state: int, intensity: int, scale: float) -> None:
        """For the engine: the receiver asks for calibration light, `scale` times the working mean photon number.

        Raises Refused with the reason when this module is not in service or the attenuator cannot do it.
        """
        context = self._in_service()
        await self._set_scale(context, scale)
        source = context.need_source()
        if (await source.now())[0] == 0:
            await source.run()
        await source.set_mode(mode, state, intensity)

    def _in_service(self) -> CalibrationContext:
        if not self.in_service or self._context is None:
            raise Refused(f"the transmitter is {self.wiring.life.activity}: {self.wiring.life.why('activity')}")
        return self._context

    def _voa_volts(self, context: CalibrationContext, record: Record, scale: float = 1.0) -> float:
        table = context.factory.voa
        if table is None:
            raise Refused("the factory record has no attenuator table")
        trim_db = self.mean_photon.trim_db if self.mean_photon else 0.0
        db = record.value["voa_db"] + trim_db - 10.0 * math.log10(scale)
        try:
            return table.voltage(db)
        except ValueError as e:
            raise Refused(f"light of {scale:g} times the working intensity: {e}") from e

    async def _set_scale(self, context: CalibrationContext, scale: float) -> None:
        """A scale of 0 is as dark as the attenuator gets."""
        record = context.record("mean_photon")
        table = context.factory.voa
        volts = table.volts[-1] if scale <= 0.0 and table else self._voa_volts(context, record, scale)
        await context.biases.set_voltage("voa", volts)
