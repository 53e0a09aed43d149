"""A pair at its set points, put there with knowledge that only tests have."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from sim.clock import ManualClock
from sim.individuals import Heaters
from sim.physics.module import Module
from sim.physics.optics import balanced, from_db
from sim.scenario import Scenario
from sim.truth import Truth
from sim.world import World

DECOY_RATIO = 1 / 3
KAPPA = 0.26
MU = 0.54
P_PI = 0.035


class Pair:
    """World, manual clock and truth; `advance` moves all."""

    def __init__(self, scenario: Scenario | None = None, **settings: Any) -> None:
        self.clock = ManualClock()
        self.world = World(scenario or Scenario(**settings), self.clock)
        self.truth = Truth(self.world)
        self.alice, self.bob = self.world.alice, self.world.bob
        self.source, self.tagger = self.alice.source, self.bob.tagger
        self.watts = {"alice": np.zeros(4), "bob": np.zeros(4)}
        self.bias = np.zeros(3)

    def advance(self, seconds: float) -> None:
        self.clock.t += seconds
        self.world.advance()

    def heat(self, module: Module, heaters: Heaters, channel: int, watts: float) -> None:
        watts = watts + 0.08 if watts < 0 else watts - 0.08 if watts > 0.11 else watts
        self.watts[module.name][channel] = watts
        module.set_heater_current(
            channel, math.sqrt(watts / (heaters.r0[channel] * (1 + heaters.rho[channel] * watts)))
        )

    def power_up(self, warm_s: float = 90.0) -> None:
        for module in (self.alice, self.bob):
            module.set_heater_rail(True)
            module.tec.target_c = 30.0
            module.tec.enabled = True
        for q in range(3):
            self.bob.set_detector_bias(q, 0.88 * self.bob.individual.switch_a[q])
        self.bob.set_bias(0, 5.0)
        self.alice.set_laser_enable(True)
        self.alice.set_laser(True, 193.4145e12, 13.0)
        self.advance(warm_s)

    def tune(self) -> Pair:
        self.power_up()
        a, b = self.alice.individual, self.bob.individual
        phi = 1.0
        wanted = {
            "alice": [0.0, balanced(from_db(a.long_db)), phi, 0.0],
            "bob": [2 * math.asin(math.sqrt(KAPPA)), balanced(from_db(b.long_db)), phi, math.pi / 2],
        }
        for _ in range(8):
            for module, heaters in ((self.alice, a.heaters), (self.bob, b.heaters)):
                for channel, target in enumerate(wanted[module.name]):
                    error = math.remainder(target - float(module.phases()[channel]), 2 * math.pi)
                    watts = self.watts[module.name][channel] + 0.7 * error / math.pi * P_PI
                    self.heat(module, heaters, channel, watts)
            self.advance(0.5)
        self.tune_modulators()
        self.tune_phase()
        return self

    def tune_modulators(self) -> None:
        i = self.alice.individual
        modulators = (i.carver, i.state, i.decoy)
        for channel, modulator in enumerate(modulators):
            error = math.remainder(float(self.alice.biases()[channel]), 2 * math.pi)
            self.bias[channel] -= error * modulator.v_pi / math.pi
            self.alice.set_bias(channel, self.bias[channel])
        self.source.set_rf("carver", i.carver.v_rf)
        self.source.set_rf("state", i.state.v_rf)
        self.source.set_rf("decoy", 2 * math.acos(math.sqrt(DECOY_RATIO)) / math.pi * i.decoy.v_rf)
        self.source.set_randomiser(True)
        self.source.set_probabilities(16384, 32768)
        volts = 3.5
        for _ in range(12):
            self.alice.set_bias(3, volts)
            volts += 10 * math.log10(self.truth.snapshot().mu[0] / MU) / (1 + 2.7 * volts)

    def tune_phase(self) -> None:
        for _ in range(6):
            error = math.radians(self.truth.phase_error_deg)
            self.heat(self.bob, self.bob.individual.heaters, 2, self.watts["bob"][2] + error / math.pi * P_PI)
            self.advance(0.5)
