"""The coupled world of one pair: two modules, the fibre between them, one clock.

Everything follows `clock.now()`: any call of a port first brings the world there, however far, in steps of 10 ms (heat)
and 0.2 s (slow drifts). The same scenario and the same calls at the same times give the same world.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from sim.ageing import aged_alice, aged_bob
from sim.clock import SimClock
from sim.individuals import BobIndividual, draw_alice, draw_ballast, draw_bob, draw_patterning, stream
from sim.physics.alice import Alice
from sim.physics.bob import Bob
from sim.physics.detectors import Bank, jitter_table, observed_rate
from sim.physics.drifts import Drifts
from sim.physics.fibre import Fibre
from sim.physics.light import Light, light_of
from sim.physics.rates import RateMeter
from sim.physics.source import BIN_S, Source
from sim.physics.tagger import BobClock, Receiver, Tagger
from sim.physics.thermal import TICK_S, ThermalPlant
from sim.scenario import Scenario

Floats = npt.NDArray[np.float64]

DRIFT_TICKS = 20
DRIFT_S = DRIFT_TICKS * TICK_S
DAY_S = 86400.0
POLARISATION_RAD_PER_ROOT_S = 0.02
FIBRE_DB_PER_ROOT_S = 0.02 / math.sqrt(3600.0)


class World:
    """`alice` and `bob` are the ports that electronics see. Start: everything off, at ambient temperature.

    Not thread-safe: one caller at a time.
    """

    def __init__(self, scenario: Scenario, clock: SimClock) -> None:
        self.scenario = scenario
        self.faults = scenario.faults()
        self._clock = clock
        self._moment = clock.now()
        self._tick = math.floor(self._moment / TICK_S + 1e-6)
        self._sliced = self._tick
        self._light: Light | None = None
        self._light_settled = -math.inf
        self._next_edge = -math.inf
        seed = scenario.seed
        self._drifts = Drifts(stream(seed, "drifts"), DRIFT_S)
        # From a stream of its own: with and without a walk a seed has the same other drifts.
        self._fibre_phase = Drifts(stream(seed, "fibre phase"), DRIFT_S)
        self._fibre_phase.walk("walk", scenario.link.phase_walk_rad_per_root_min / math.sqrt(60.0))
        self._last_walk = np.zeros(3)
        self.fibre = Fibre(scenario.link)
        self.ambient_c = scenario.ambient.mean_c
        pilot = (scenario.link.pilot_every, scenario.link.pilot_gain_db)
        patterning = draw_patterning(seed, scenario.modules.patterning)
        source = Source(self, self.now, scenario.symbol_period_ps, seed, pilot, patterning)
        self.alice = self._make_alice(source, seed)
        self.bob = self._make_bob(source, seed)
        self._register_drifts()
        self._scripted = len(self.faults)
        self._apply_faults(self._moment)

    def now(self) -> float:
        """World time, s, that the world has been brought to."""
        return self._moment

    def advance(self) -> None:
        """Bring the world to clock.now()."""
        if len(self.faults) != self._scripted:
            self._follow_script()
        now = self._clock.now()
        target = math.floor(now / TICK_S + 1e-6)
        while self._tick < target:
            self._step(target)
        self._moment = max(now, self._moment)

    def before_change(self) -> None:
        """Bring the world to clock.now() and close what was computed for the state that is about to change."""
        self.advance()
        self._close(self._moment)
        self._light = None

    def make(self, side: str, seed: int) -> Alice | Bob:
        """Another individual in the place of a module: everything off, at ambient temperature. The pattern of symbols,
        the fibre and what drifts in that place go on."""
        self.before_change()
        self._drifts.running = True
        source = self.alice.pattern
        make = self._make_alice if side == "alice" else self._make_bob
        fresh: Alice | Bob = make(source, seed, self.ambient_c)
        self.place(fresh)
        return fresh

    def place(self, module: Alice | Bob) -> None:
        """Put in a module that was made before."""
        self.before_change()
        if isinstance(module, Alice):
            self.alice = module
        else:
            self.bob = module
            self._clock_offset = self._clock_offset_of(module.individual)
        self._apply_faults(self._moment)

    def pump(self, max_seconds: float) -> float:
        """Draw waiting clicks of at most about max_seconds; for a server's idle moments. Returns the seconds drawn."""
        self.advance()
        return self.bob.clicks.pump(max_seconds)

    def light(self) -> Light:
        """Optics of the present, computed when something has changed."""
        now = self._moment
        if self._light is None or self._light_settled > now:
            self._light = self._compute_light()
            self._light_settled = max(self.alice.settling_until(), self.bob.settling_until())
            self.bob.bank.note_rates(self._light.rates(self.alice.pattern.stretch_now()), now)
        return self._light

    def _follow_script(self) -> None:
        """Faults were added to the script; what they strike is as it was until now."""
        self._scripted = len(self.faults)
        self._close(self._moment)
        self._apply_faults(self._moment)

    def _step(self, target: int) -> None:
        """To the next moment at which more than heat changes, or to the target."""
        slice_end = self._sliced + self._slice_ticks()
        stop = min(target, (self._tick // DRIFT_TICKS + 1) * DRIFT_TICKS, max(slice_end, self._tick + 1))
        if self._next_edge < stop * TICK_S:
            stop = min(stop, max(self._tick + 1, math.ceil(self._next_edge / TICK_S)))
        for module in (self.alice, self.bob):
            module.plant.run(self._tick, stop - self._tick, self.ambient_c)
        self._tick = stop
        self._moment = t = max(self._moment, stop * TICK_S)
        self._light = None
        if stop >= slice_end or stop % DRIFT_TICKS == 0:
            self._close(t)
            self._sliced = stop
        if stop % DRIFT_TICKS == 0:
            self._step_drifts(t)
        if t >= self._next_edge:
            self._close(t)
            self._apply_faults(t)

    def _slice_ticks(self) -> int:
        """Ticks after which waiting clicks are set aside with the optics of their time."""
        clicks = self.bob.clicks
        return min(DRIFT_TICKS, max(1, round(clicks.slice_s() / TICK_S))) if clicks.running else DRIFT_TICKS

    def _close(self, t: float) -> None:
        self.bob.clicks.close()
        self.bob.meter.note(t)

    def _step_drifts(self, t: float) -> None:
        s, d = self.scenario, self._drifts
        d.step()
        self._fibre_phase.step()
        swing = s.ambient.swing_c * math.sin(2.0 * math.pi * t / DAY_S) + d["ambient"]
        self.ambient_c = s.ambient.mean_c + s.drifts.ambient * swing
        self.alice.ambient_c = self.ambient_c
        self._turn_fibre(t)
        self.alice.step_plant(DRIFT_S)
        for module in (self.alice, self.bob):
            module.step_drifts(t, s.drifts.heater)
        self.fibre.walk_db = s.drifts.fibre * d["fibre loss"]
        self.fibre.warmer_k = s.drifts.fibre * (self.ambient_c - s.ambient.mean_c)
        self.fibre.turn_polarisation(self._kick(d.row("polarisation")))
        self.bob.alignment = self.fibre.alignment
        self.bob.clicks.clock.set_offset(round(t * 1e12), self._clock_offset + d["bob clock"])
        self._light = None

    def _turn_fibre(self, t: float) -> None:
        """Phase between the modules that neither of them made: drift, walk and jumps of the fibre, rad."""
        s = self.scenario.link
        jumps = self.faults.total("jump", "fibre", t)
        self.alice.extra_phase = math.radians(s.phase_drift_deg_per_h) * t / 3600.0
        self.alice.extra_phase += self._fibre_phase["walk"] + jumps

    def _kick(self, walk: Floats) -> tuple[float, float, float]:
        """Rotation of the polarisation since the last step: the increment of its three walks."""
        u, v, w = (self.scenario.drifts.polarisation * (walk - self._last_walk)).tolist()
        self._last_walk = walk.copy()
        return u, v, w

    def _apply_faults(self, t: float) -> None:
        self._light = None
        self.alice.apply_faults(self.faults, t)
        self.bob.apply_faults(self.faults, t)
        self._turn_fibre(t)
        self.bob.clicks.swapped = bool(self.faults.active("swapped", "bob.detector", t))
        self.fibre.cut = bool(self.faults.active("cut", "fibre", t))
        bend = self.faults.active("bend", "fibre", t)
        self.fibre.bend_db = bend.number(3.0) if bend else 0.0
        walk = self.faults.active("walk", "bob.clock", t)
        pace = walk.number(3e-10) if walk else self.scenario.detection.clock_walk
        self._drifts.rescale("bob clock", self.scenario.drifts.clock * pace)
        self._next_edge = self.faults.next_edge(t)

    def _register_drifts(self) -> None:
        self._drifts.ou("ambient", self.scenario.ambient.noise_c, 600.0)
        self._drifts.walk("fibre loss", FIBRE_DB_PER_ROOT_S)
        self._drifts.walk("polarisation", POLARISATION_RAD_PER_ROOT_S, 3)
        self._drifts.walk("bob clock", self.scenario.detection.clock_walk)

    def _compute_light(self) -> Light:
        i = self.bob.individual
        alice = self.alice.optics(i.tau_mismatch_s)
        bob = self.bob.optics()
        turn = bob.phi + 2.0 * math.pi * self.alice.detuning_hz() * (BIN_S - i.tau_mismatch_s)
        darks = self.bob.bank.dark_rates(self.bob.warmer_k)
        continuous = self.alice.continuous_photons()
        period, own = self.alice.pattern.period_s, self.bob.diode_rates(bob)
        return light_of(alice, bob, self.fibre.loss_db, continuous, turn, darks, period, own)

    def _expected_rates(self) -> Floats:
        i = self.bob.individual
        rates = self.light().rates(self.alice.pattern.stretch_now())
        seen = observed_rate(rates, i.dead_ps * 1e-12, i.recovery_ps * 1e-12)
        out: Floats = np.where(self.bob.bank.latched, 0.0, seen)
        return out[[0, 2, 1]] if self.bob.clicks.swapped else out

    def _make_alice(self, source: Source, seed: int, start_c: float | None = None) -> Alice:
        s = self.scenario
        usual = s.ambient.mean_c if s.start.alice_c is None else s.start.alice_c
        start = usual if start_c is None else start_c
        tec = ThermalPlant(self, start, stream(seed, "alice thermistor"))
        return Alice(
            self,
            aged_alice(draw_alice(seed), s.modules.age_h, seed),
            source,
            tec,
            self._drifts,
            s.drifts,
            self.now,
            s.modules,
            draw_ballast(seed, "alice"),
        )

    def _make_bob(self, source: Source, seed: int, start_c: float | None = None) -> Bob:
        s = self.scenario
        i = aged_bob(draw_bob(seed), s.modules.age_h, seed)
        usual = s.ambient.mean_c if s.start.bob_c is None else s.start.bob_c
        start = usual if start_c is None else start_c
        tec = ThermalPlant(self, start, stream(seed, "bob thermistor"))
        darks = i.darks if s.detection.darks_hz is None else np.array(s.detection.darks_hz)
        bank = Bank(i.efficiency, darks, i.switch_a)
        bob = Bob(self, i, bank, tec, self._drifts, s.drifts, self.now, s.modules, draw_ballast(seed, "bob"))
        self._clock_offset = self._clock_offset_of(i)
        after = np.array([[s.detection.afterpulse] * 3, [s.detection.afterpulse_ns * 1e3] * 3])
        parameters = np.vstack([i.dead_ps, i.recovery_ps, after])
        jitter = np.array([jitter_table(fwhm) for fwhm in i.jitter_fwhm_ps])
        bob.clicks = Tagger(
            self,
            source,
            BobClock(self._clock_offset),
            Receiver(parameters, jitter, i.delay_ps, BIN_S * 1e12),
            lambda: self.light().cumulative(),
            lambda: (self.fibre.transit_ps, self.fibre.delay_ps),
            stream(seed, "clicks"),
        )
        bob.tagger = bob.clicks
        bob.meter = RateMeter(self._expected_rates, stream(seed, "rates"))
        bob.expose = self.light
        bob.arriving_w = lambda: self.alice.output_watts() * 10.0 ** (-self.fibre.loss_db / 10.0)
        return bob

    def _clock_offset_of(self, individual: BobIndividual) -> float:
        ppm = self.scenario.detection.clock_offset_ppm
        return individual.clock_offset if ppm is None else ppm * 1e-6
