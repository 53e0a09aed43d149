"""The transmitter: calibrates by itself, then serves light and leads the keying."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from calibration.context import CalibrationContext, CalibrationRefused
from calibration.fit import FitRefused
from calibration.graph import Graph, bring_up
from calibration.procedures import alice_graph
from calibration.record import Record
from drivers.errors import Refused
from drivers.roles import LightMode, Pilot
from qmodd.app.failures import NotReady
from qmodd.app.operator import Operator
from qmodd.app.patterning import Patterns
from qmodd.control.alignment import Alignment, align
from qmodd.control.facts import Fact, LoopFault, Railed
from qmodd.control.interferometer import FilterPeakLoop, SplitTrim, split_slope_per_w
from qmodd.control.loop import Scheduler
from qmodd.control.modulators import CarverNullLoop, DecoyLock, DecoyMonitor
from qmodd.control.power import LaserPowerLoop, LaserWavelengthLoop, MeanPhotonLoop
from qmodd.control.probe import DecoyLaw, SourceProbe, StateLaw
from qmodd.keys.counts import BatchReport
from qmodd.keys.settings import Phase, PlanFacts
from qmodd.lifecycle import Activity, Operational
from qmodd.module import Module

# How far the mean intensities may be from their calibration while their loops hold them, relative, on top of the
# calibration's own uncertainty. It is paid for in key: the bound is taken over the whole interval.
# Measured on the emulator over 15 to 20 minutes of three pairs that looked at their states every 150 s only: the ratio
# strayed by 0.65 % rms and 1.6 % at most.
HELD = {"signal": 0.005, "decoy": 0.02}
# The source looks at its own states every so many slow periods: 0.4 s each time in which no key is made.
PROBE_PERIODS = 30.0
# Batches this old may still be on their way when a bias is corrected.
OLD_S = 1.5
Step = Callable[[float], Awaitable[None]]


@dataclass
class AliceOperator(Operator):
    """`decoy` and `probe` go by the module's own photodiodes; `split` follows what the receiver tells of its public
    counts, within its calibration; `decoys_seen` can only stop the service."""

    _context: CalibrationContext | None = None
    _aligned: Alignment | None = None
    _old_until_s: float = -math.inf
    _pilot: Pilot | None = None
    probe: SourceProbe | None = None
    split: SplitTrim | None = None
    decoy: DecoyLock | None = None
    decoys_seen: DecoyMonitor | None = None
    _batches: asyncio.Queue[BatchReport] = field(default_factory=lambda: asyncio.Queue(64))
    mean_photon: MeanPhotonLoop | None = None
    laser_power: LaserPowerLoop | None = None
    laser_wavelength: LaserWavelengthLoop | None = None
    filter: FilterPeakLoop | None = None
    carver: CarverNullLoop | None = None
    patterns: Patterns = field(default_factory=Patterns)
    # (P(X), P(decoy)) as the symbol source really uses them.
    probabilities: tuple[float, float] = (0.25, 0.5)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.wiring.module_swapped.append(self._forget_patterns)

    def _forget_patterns(self) -> None:
        """Sums of another module's light."""
        self.patterns.tally = None

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
        self.add_tec_loop(scheduler, module, context)
        period, add = self.wiring.config.control.slow_period_s, self.wiring.add_loop
        self.laser_power = power = LaserPowerLoop(context, lambda: self.in_service)
        self.laser_wavelength = LaserWavelengthLoop(context, lambda: self.in_service)
        self.filter = peak = FilterPeakLoop(context, lambda: self.in_service)
        self.mean_photon = mean = MeanPhotonLoop(context, self._keying, lambda: self.probabilities, lambda: self._pilot)
        self.carver = CarverNullLoop(context, self._keying)
        hold, tune = self._one_at_a_time(power.step, self.laser_wavelength.step)
        add(scheduler, "laser power", period, hold, power.facts, ["laser.power"])
        add(scheduler, "laser wavelength", 2.0 * period, tune, outputs=["laser.fine"])
        add(scheduler, "filter peak", 5.0 * period, peak.step, peak.facts, ["heater.filter"])
        add(scheduler, "mean photon number", period, mean.step, mean.facts, ["bias.voa"])
        add(scheduler, "decoy bias", period, self._hold_decoy, self._decoy_facts, ["bias.decoy"])
        add(scheduler, "carver null", 2.0 * period, self.carver.step, outputs=["bias.carver"])
        add(scheduler, "source probe", PROBE_PERIODS * period, self._look_at_states, outputs=["bias.state"])
        add(scheduler, "split", period, self._follow_counts, self._count_facts, ["heater.split"])

        async def patterning(_now_s: float) -> None:
            if self._keying() and not self.walking.locked():
                await self.patterns.store(context, self.wiring.events)

        add(scheduler, "patterning", 5.0 * period, patterning)

    def _in_run(self) -> bool:
        return self.in_service and self.wiring.engine.status.phase is Phase.KEYING

    def _keying(self) -> bool:
        """The light is that of keys: not while the source looks at its own states."""
        return self._in_run() and not (self.probe is not None and self.probe.probing)

    def _decoy_facts(self) -> Sequence[Fact]:
        return self.decoy.facts() if self.decoy else ()

    def _count_facts(self) -> Sequence[Fact]:
        return self.split.facts() if self.split else ()

    async def serve(self, module: Module, context: CalibrationContext) -> None:
        life = self.wiring.life
        await self.resume(module, context, frozenset())
        life.set_operational(Operational.ENABLED, "calibrated; all loops check in")
        life.set_activity(Activity.READY, "light can be asked for; waiting for the receiver")
        await self.wiring.key_while_allowed()

    async def resume(self, module: Module, context: CalibrationContext, redone: frozenset[str]) -> None:
        """Dark, with the wanted probabilities; modulators are aligned anew before the next keys."""
        wanted = self.wiring.config.source
        await module.source.set_mode(LightMode.OFF)
        self.probabilities = await module.source.set_probabilities(wanted.p_x, wanted.p_decoy)
        self._pilot = await module.source.pilot()
        self._aligned = self.decoy = self.decoys_seen = self.probe = self.split = None

    def _make_trims(self, module: Module, context: CalibrationContext, found: Alignment) -> None:
        p_x, p_decoy = self.probabilities
        decoy, split = context.record("decoy").value, context.record("amzi_split").value
        expected = found.expected(p_x, p_decoy, self._pilot)
        self.decoy = DecoyLock(
            context,
            self._keying,
            expected,
            self._decoy_weight(found, expected),
            decoy["ratio_slope_per_v"],
            found.decoy_v,
            self._write(module, "decoy"),
        )
        self.decoys_seen = DecoyMonitor(decoy["ratio"], self._z_share)
        slope = context.record("state_trim").value["null_slope_per_v"]
        if self.carver is not None:
            self.carver.begin(found.carver_v)
        self.probe = SourceProbe(
            context,
            self._in_run,
            StateLaw(slope, found.state_v),
            DecoyLaw(decoy["ratio"], found.background),
            self.decoy,
            self._write(module, "state"),
        )
        self.split = SplitTrim(
            split_slope_per_w(split), split["p_pi_w"], context.drive.power("split"), self._write_split(context)
        )

    def _decoy_weight(self, found: Alignment, expected: float) -> float:
        """The decoy's share of PA3's mean in KEY mode: without what leaks between the windows, pilot included."""
        p_x, p_decoy = self.probabilities
        key = 1.0 - (1.0 / self._pilot.every if self._pilot else 0.0)
        i = found.currents
        mean = (1.0 - p_x) * 0.5 * (i["i_z0_decoy_a"] + i["i_z1_decoy_a"])
        mean += p_x * 0.5 * (i["i_x0_decoy_a"] + i["i_x1_decoy_a"])
        leak = found.background * 0.5 * (i["i_z0_signal_a"] + i["i_z1_signal_a"])
        return key * p_decoy * (mean - leak) / found.pa0_a / expected

    async def _align(self, context: CalibrationContext) -> None:
        """Modulator bias creeps with the logarithm of time: to its set points again by the source's own light, once the
        receiver, too, is ready, so that the loops start from what holds. Where a bias is out of reach, its calibration
        is redone. Raises Refused with the reason of a calibration that failed."""
        if self._aligned is not None or self._module is None:
            return
        async with self.walking:
            why = ""
            try:
                try:
                    found = await align(context)
                except Railed as e:
                    why = str(e)
                    await bring_up(self.graph(), context, ["mean_photon"], ["state_trim"])
                    found = await align(context)
            except (CalibrationRefused, FitRefused, LoopFault) as e:
                raise Refused(f"no keys before the modulators are aligned: {e}") from e
        self._make_trims(self._module, context, found)
        self._aligned = found
        errors = {"state_error": found.state_error, "decoy_error": found.decoy_error}
        self.wiring.events.record("source.aligned", {"why": why, **errors})
        self.wiring.life.set_activity(Activity.READY, "modulators aligned; keys next")

    def _write(self, module: Module, channel: str) -> Callable[[float], Awaitable[None]]:
        async def write(volts: float) -> None:
            await module.biases.set_voltage(channel, volts)

        return write

    def _write_split(self, context: CalibrationContext) -> Callable[[float], Awaitable[None]]:
        async def write(watts: float) -> None:
            await context.drive.set_power("split", watts)

        return write

    @staticmethod
    def _one_at_a_time(*steps: Step) -> list[Step]:
        """A tunable laser refuses a second setting while the first is pending."""
        lock = asyncio.Lock()

        def locked(step: Step) -> Step:
            async def run(now_s: float) -> None:
                async with lock:
                    await step(now_s)

            return run

        return [locked(step) for step in steps]

    async def _hold_decoy(self, now_s: float) -> None:
        if self.decoy is not None:
            await self.decoy.step(now_s)

    async def _look_at_states(self, now_s: float) -> None:
        if self.probe is not None:
            await self.probe.step(now_s)

    def _z_share(self, intensity: int) -> float:
        """Probability that a slot is sent in Z with this intensity; the receiver's choice drops out of the ratio."""
        p_x, p_decoy = self.probabilities
        return (1.0 - p_x) * (p_decoy if intensity else 1.0 - p_decoy)

    async def _follow_counts(self, now_s: float) -> None:
        """All that came since the last step counts as one reading; what was sent before the last correction, as none:
        acting on it again would make the loop swing."""
        live, z, bins, slots = 0, [0, 0], [0, 0], 0
        while not self._batches.empty():
            batch = self._batches.get_nowait()
            live += batch.live_slots
            slots += batch.end_slot - batch.first_slot
            z = [a + b for a, b in zip(z, batch.n_z, strict=True)]
            bins = [bins[0] + batch.z_early, bins[1] + batch.z_late]
        split, seen = self.split, self.decoys_seen
        if now_s < self._old_until_s or split is None or seen is None or not self._keying():
            return
        before, seconds = split.watts, slots * 1e-12 * self.wiring.config.pair.symbol_period_ps
        seen.add(live, *z)
        await split.add(bins[0], bins[1], seconds)
        if split.watts != before:
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
        await self._align(context)
        record = context.record("mean_photon")
        await context.biases.set_voltage("voa", self._voa_volts(context, record))
        v = record.value
        return PlanFacts(
            mu=tuple(
                (v[f"mu_{name}_low"] * (1.0 - hold), v[f"mu_{name}_high"] * (1.0 + hold)) for name, hold in HELD.items()
            ),
            p_mu=(1.0 - self.probabilities[1], self.probabilities[1]),
            p_x=self.probabilities[0],
            calibration=f"mean_photon {record.version} of {self.wiring.bay.serial}",
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
