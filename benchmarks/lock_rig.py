"""A pair for the phase lock alone, in simulated time: the emulator's modules with their real heater, supply monitor and
TEC drivers, the daemon's phase loop under its scheduler, and X counts straight from the optics.

Everything but the interferometers is at a fixed working point, a degree off everywhere; records are what a calibration
within its accuracy leaves. Counts are Poisson about the law of reference pair A4. The truth is
read to judge, and by nothing that is judged.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from benchmarks.lock_optics import NOTHING, RESIDUAL, SLOTS_HZ, Means, fringe, heater_iv, means, qber_x, working_point
from benchmarks.rig import Pair, pair, scenario
from calibration.context import CalibrationContext
from calibration.record import Record
from drivers.errors import DriverError
from qmodd.app.phase import times
from qmodd.control.feed_forward import Tuning
from qmodd.control.ledger import LockLedger
from qmodd.control.loop import Loop, Scheduler
from qmodd.control.phase_estimate import PhaseCounts, PilotTally
from qmodd.control.phase_heater import PhaseHeater
from qmodd.control.phase_loop import PhaseLoop, Surroundings
from qmodd.control.phase_types import PhaseLockConfig
from qmodd.control.thermal import TecLoop, ThermalConfig
from sim.individuals import HEATERS
from sim.loop import SimulatedLoop
from sim.physics.light import Light, light_of
from sim.truth import Truth

T = TypeVar("T")
Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

NAMES = ("basis", "split", "phase", "combine")
PHASE = 2
BATCH_S, SUBSTEPS = 0.1, 4
# From the end of a batch: tags are there at once; the exchange with the far module takes two ways and sifting.
PILOT_AGE_S, COUNTS_AGE_S = 0.03, 0.15
TEC_PERIOD_S = 0.5
# Accuracy that the records are drawn with (share; rad for xi), as asked of the calibration.
P_PI_SIGMA, XI_SIGMA, VISIBILITY_SIGMA, RATIO_SIGMA, CROSSTALK_SIGMA = 0.003, 0.002, 0.003, 0.003, 0.001
BASE_W = {"basis": 0.020, "split": 0.030, "phase": 0.045, "combine": 0.025}


@dataclass(frozen=True)
class LockScenario:
    """drift_rad_per_min, walk_rad_per_root_min: of the fibre; die_k: extra wander of each die, K rms in 30 s; rate_hz:
    matched X counts a second, None: what the loss gives; pilot_every: 0: none. drifts: those of reference pair A7."""

    seed: int = 1
    loss_db: float = 10.0
    drift_rad_per_min: float = 0.0
    walk_rad_per_root_min: float = 0.0
    die_k: float = 0.0
    rate_hz: float | None = None
    pilot_every: int = 0
    pilot_gain_db: float = 10.0
    ballast: bool = False
    period_s: float = 0.25
    batch_s: float = BATCH_S
    crosstalk: bool = True


@dataclass
class Plant:
    """What the fibre and the detectors do, to be changed while it runs; deaf: the tagger's stream stands still."""

    jump_rad: float = 0.0
    deaf: bool = False
    light: float = 1.0
    swapped: bool = False
    silent: int | None = None
    walk_rad: float = 0.0


@dataclass
class Seen:
    """The truth beside the report, one row a substep of a batch: time s, error rad, locked, flagged, QBER_X over its
    floor."""

    t: list[float] = field(default_factory=list)
    error: list[float] = field(default_factory=list)
    locked: list[bool] = field(default_factory=list)
    flagged: list[bool] = field(default_factory=list)
    excess: list[float] = field(default_factory=list)

    def keep_out(self, begin: float) -> None:
        """The batch since then was kept out by its pilot, s."""
        for i in range(int(np.searchsorted(self.t, begin)), len(self.t)):
            self.flagged[i] = True

    def after(self, t: float) -> Floats:
        """(n, 3) of error, flagged, excess from a time on."""
        begin = int(np.searchsorted(self.t, t))
        return np.column_stack([self.error[begin:], self.flagged[begin:], self.excess[begin:]]).astype(float)


@dataclass
class Flags:
    """Stands for the key engine; `done`: reason, begin and end of what was kept out, s."""

    now: Callable[[], float]
    active: dict[str, float] = field(default_factory=dict)
    done: list[tuple[str, float, float]] = field(default_factory=list)

    def flag_interval(self, reason: str, since_s: float = 0.0) -> None:
        self.active.setdefault(reason, self.now() - since_s)

    def clear_flag(self, reason: str) -> None:
        self.done.append((reason, self.active.pop(reason), self.now()))


class LockRig:
    """One pair with its phase loop; `plant` may be disturbed, `seen` tells what was true."""

    def __init__(self, made: Pair, chosen: LockScenario) -> None:
        self.pair, self.scenario = made, chosen
        self.world, self.clock = made.world, made.clock
        self.plant, self.seen, self.flags = Plant(), Seen(), Flags(self.clock.monotonic)
        self._rng = np.random.Generator(np.random.Philox([chosen.seed, 77]))
        alice, self._bob = working_point(made.world)
        gain = 10.0 ** (chosen.pilot_gain_db / 10.0) if chosen.pilot_every else 0.0
        self._alice = replace(alice, pilot_gain=gain)
        self._rest: Floats | None = None
        self._scale = 1.0
        self.context: CalibrationContext = made.bob.context
        self.tec = self._tec(made.bob.context)
        self.alice_tec = self._tec(made.alice.context)

    # ------------------------------------------------------------ set up

    @staticmethod
    def _tec(context: CalibrationContext) -> TecLoop:
        return TecLoop(
            context.tec,
            ThermalConfig(target_c=30.0),
            context.clock,  # type: ignore[arg-type]
            lambda: _total(context),
            tuning=Tuning(1.9, 4.4, 2.0),
        )

    async def prepare(self) -> None:
        """Records, heaters at their working points, loops; the lock has not begun."""
        for context, side in ((self.pair.alice.context, self.world.alice), (self.context, self.world.bob)):
            context.store.append(heater_iv(context, side))
        alice = self.pair.alice.context
        for name, watts in zip(alice.heaters.channels[:HEATERS], (0.02, 0.03, 0.04, 0.03), strict=True):
            await alice.drive.set_power(name, watts)
        for name, watts in BASE_W.items():
            await self.context.drive.set_power(name, watts)
        if self.scenario.ballast:
            await self.context.drive.set_power("ballast", 0.065)
        await asyncio.sleep(0.5)
        self._rest = self.world.bob.phases().copy()
        # The fibre's delay makes the phase of the beginning; the lock starts some way off.
        self.plant.walk_rad = 0.0
        light = self.light()
        self.plant.walk_rad = Truth._phase(light)[0] * -1.0
        if self.scenario.rate_hz is not None:
            self._scale = self.scenario.rate_hz / float(self.means(self.light()).x.sum())
        self.context.store.append(self._arm_phase())
        if self.scenario.crosstalk:
            self.context.store.append(self._crosstalk())
        self.heater = PhaseHeater.of(self.context, self.context.record("arm_phase").value["p_pi_w"])
        self.loop = PhaseLoop(
            self.config(),
            self.heater,
            LockLedger(None, str),
            self.clock.monotonic,
            flags=self.flags,
            around=Surroundings(temperature=self._temperature, feed_forward=self.tec.feed_forward),
        )
        await self.loop.begin()

    def config(self) -> PhaseLockConfig:
        """As the daemon's, with the limits of its shipped configuration."""
        s = self.scenario
        dwell_s, fresh_s = times(s.period_s, s.batch_s)
        return PhaseLockConfig.of(
            self.context.record("arm_phase"),
            self.heater.low_rad,
            self.heater.high_rad,
            period_s=s.period_s,
            pilot=s.pilot_every > 0,
            dwell_s=dwell_s,
            fresh_s=fresh_s,
        )

    def _arm_phase(self) -> Record:
        h, light = self.world.bob.individual.heaters, self.light()
        direct = math.pi * h.theta[PHASE, PHASE] / h.p_pi[PHASE]
        settled = math.pi / (direct + h.die_rad_per_k[PHASE] * self._die_k_per_w())
        xi, visibility = fringe(light)
        g = self._rng
        value = {
            "p_pi_w": settled * (1 + P_PI_SIGMA * g.normal()),
            "xi_rad": xi + XI_SIGMA * g.normal(),
            "visibility": visibility * (1 + VISIBILITY_SIGMA * g.normal()),
            "efficiency_ratio": self._bob.eff_x0 / self._bob.eff_x1 * (1 + RATIO_SIGMA * g.normal()),
            "power_w": BASE_W["phase"],
            "phi0_rad": 0.0,
        }
        return self._record("arm_phase", value)

    def _crosstalk(self) -> Record:
        h, value, g = self.world.bob.individual.heaters, {}, self._rng
        for i, seen in enumerate(NAMES):
            value[f"p_pi_{seen}_w"] = float(h.p_pi[i]) * (1 + P_PI_SIGMA * g.normal())
            value[f"common_{seen}_rad_per_w"] = float(h.die_rad_per_k[i]) * self._die_k_per_w()
            for j, heated in enumerate(NAMES):
                noise = 0.0 if i == j else CROSSTALK_SIGMA * g.normal()
                value[f"theta_{seen}_{heated}"] = float(h.theta[i, j]) + noise
        return self._record("crosstalk", value)

    def _record(self, name: str, value: dict[str, float]) -> Record:
        now = self.clock.utc()
        return Record(name=name, value=value, created=now, valid_until=now + timedelta(days=30))

    @staticmethod
    def _die_k_per_w() -> float:
        """Die against submount (reference pair A6, 3)."""
        return 0.9985

    def _temperature(self) -> str:
        r = self.tec.reading
        if r is None or abs(r.object_c - 30.0) > 0.1:
            return "temperature not within 0.1 K of its set point"
        return ""

    # ------------------------------------------------------------ light and counts

    def light(self) -> Light:
        """The optics of now: phases of both modules and of the fibre, and what the heaters' crosstalk does to the
        receiver's couplers."""
        self.world.advance()
        alice, bob = self.world.alice, self.world.bob
        phases = bob.phases()
        rest = phases if self._rest is None else self._rest
        fibre = self.plant.walk_rad + self.plant.jump_rad
        a = replace(self._alice, phi=float(alice.phases()[PHASE]) + fibre)
        split = math.radians(RESIDUAL[1])
        b = replace(
            self._bob,
            phi=float(phases[PHASE]),
            d_split=split + float(phases[1] - rest[1]),
            d_combine=-split + float(phases[3] - rest[3]),
        )
        loss = self.scenario.loss_db + (300.0 if self.plant.light == 0.0 else -10.0 * math.log10(self.plant.light))
        return light_of(a, b, loss, 0.0, 0.0, bob.bank.dark_rates(0.0), 1e12 / SLOTS_HZ * 1e-12)

    def means(self, light: Light) -> Means:
        """Counts a second in this light."""
        s = self.scenario
        return means(light, s.pilot_every, self._scale)

    async def _batches(self) -> None:
        """Counts of a batch after the other, each on its way for as long as the real ones. What is kept out of the key
        is not counted either; a batch of which a part was kept out is left aside, as by the daemon."""
        batch_s = self.scenario.batch_s
        async with asyncio.TaskGroup() as group:
            while True:
                total = NOTHING
                kept_out = False
                for _ in range(SUBSTEPS):
                    await asyncio.sleep(batch_s / SUBSTEPS)
                    self._drift(batch_s / SUBSTEPS)
                    light = self.light()
                    self._look(light)
                    kept_out |= bool(self.flags.active)
                    total = total + self.means(light).times(1.0 / SUBSTEPS)
                if kept_out:
                    continue
                drawn = (self._counted(total.x), self._counted(total.pilot), self._counted(total.satellites.T).T)
                group.create_task(self._deliver(*drawn, self.clock.monotonic()))

    def _counted(self, means: Floats) -> Counts:
        n = self._rng.poisson(means * self.scenario.batch_s)
        if self.plant.swapped:
            n = n[:, ::-1].copy()
        if self.plant.silent is not None:
            n[:, self.plant.silent] = 0
        return n

    async def _deliver(self, x: Counts, pilot: Counts, rest: Counts, end_s: float) -> None:
        await asyncio.sleep(PILOT_AGE_S)
        if self.plant.deaf:
            return
        if self.scenario.pilot_every:
            p = [int(v) for v in pilot.ravel()]
            if self.loop.take_pilot(PilotTally(self.scenario.batch_s, p[0], p[1], p[2], p[3]), end_s):
                self.seen.keep_out(end_s - self.scenario.batch_s)
                return
        await asyncio.sleep(COUNTS_AGE_S - PILOT_AGE_S)
        matched = (int(x[0].sum()), int(x[0, 0]), int(x[1].sum()), int(x[1, 1]))
        a, b, c, d = (int(n) for n in rest.ravel())
        counts = PhaseCounts(self.scenario.batch_s, *matched, (a, b, c, d))
        self.loop.take_batch(counts, end_s)

    def _drift(self, seconds: float) -> None:
        s = self.scenario
        kick = s.walk_rad_per_root_min * math.sqrt(seconds / 60.0)
        self.plant.walk_rad += s.drift_rad_per_min * seconds / 60.0 + (kick * self._rng.normal() if kick else 0.0)

    def _look(self, light: Light) -> None:
        error, floor = Truth._phase(light)
        seen = self.seen
        seen.t.append(self.clock.monotonic())
        seen.error.append(error)
        seen.locked.append(self.loop.report().locked)
        seen.flagged.append(bool(self.flags.active))
        seen.excess.append(qber_x(light) - floor)

    # ------------------------------------------------------------ running

    async def run(self, script: Callable[[LockRig], Awaitable[T]]) -> T:
        """The loops beside `script`, whose result is returned."""
        scheduler = Scheduler(self.clock, asyncio.sleep, _given_up)
        scheduler.add(Loop("temperature", TEC_PERIOD_S, _patient(self.tec.step)))
        scheduler.add(Loop("temperature of the far module", TEC_PERIOD_S, _patient(self.alice_tec.step)))
        scheduler.add(Loop("interferometer phase", self.scenario.period_s, self.loop.step))
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(scheduler.run()), group.create_task(self._batches())]
            result = await script(self)
            for task in tasks:
                task.cancel()
        return result

    async def until_locked(self, within_s: float = 60.0) -> float:
        """Seconds until locked; `within_s` when it was not."""
        begin = self.clock.monotonic()
        while not self.loop.report().locked and self.clock.monotonic() - begin < within_s:
            await asyncio.sleep(0.05)
        return self.clock.monotonic() - begin


def rig_scenario(chosen: LockScenario) -> Any:
    """The emulator's scenario of a lock scenario."""
    return scenario(
        chosen.seed,
        chosen.loss_db,
        modules={"ballast": chosen.ballast, "die_noise_k": chosen.die_k, "die_noise_s": 30.0},
    )


@asynccontextmanager
async def lock_rig(loop: SimulatedLoop, chosen: LockScenario) -> AsyncIterator[LockRig]:
    """Both modules at temperature, records in force, the lock about to begin."""
    async with pair(loop, rig_scenario(chosen)) as made:
        rig = LockRig(made, chosen)
        await rig.prepare()
        yield rig


def _total(context: CalibrationContext) -> float | None:
    return context.drive.total() if context.store.active("heater_iv") else None


def _patient(step: Callable[[float], Any]) -> Callable[[float], Any]:
    """A bus that fails for a while is the scheduler's matter in the daemon; here the loop simply goes on."""

    async def patient(now_s: float) -> None:
        try:
            await step(now_s)
        except DriverError:
            return

    return patient


async def _given_up(loop: str, why: str) -> None:
    raise RuntimeError(f"loop {loop}: {why}")
