"""One module of the emulator now, and the record that is asked about: what the truths of both sides share."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from calibration.names import HEATERS, PHOTODIODES
from sim.individuals import ALICE_DIODES, BOB_DIODES
from sim.physics.module import Module
from sim.physics.thermal import (
    CONTROL_TICKS,
    DIE_J_PER_K,
    DIE_K_PER_W,
    DIE_LEAK,
    SEEBECK_V_PER_K,
    SENSOR_LAG_S,
    SUBMOUNT_J_PER_K,
    SUBMOUNT_LEAK,
    TEC_W_PER_K,
    TICK_S,
    ZERO_C,
)
from sim.world import World

Values = dict[str, float]
Believe = Callable[[str, float], float]

DIE_RISE_K_PER_W = 1.0 / (1.0 / DIE_K_PER_W + DIE_LEAK)


@dataclass
class Moment:
    """One module now, and the record that is asked about."""

    world: World
    side: str
    value: Values
    believe: Believe

    @property
    def module(self) -> Module:
        return self.world.alice if self.side == "alice" else self.world.bob

    def channel(self, name: str) -> int:
        return len(HEATERS[self.side]) if name == "ballast" else HEATERS[self.side].index(name)

    def watts(self, name: str) -> float:
        """True power of a heater now."""
        return float(self.module.heaters.powers(self.world.now())[self.channel(name)])

    def p_pi(self, name: str, settled: bool = False) -> float:
        """True watts for pi; settled: with the die's own warming."""
        h, i = self.module.individual.heaters, self.channel(name)  # type: ignore[attr-defined]
        per_watt = math.pi / h.p_pi[i] + (h.die_rad_per_k[i] * DIE_RISE_K_PER_W if settled else 0.0)
        return float(math.pi / per_watt)

    def phase(self, name: str) -> float:
        return float(self.module.phases()[self.channel(name)])

    def phi0(self, name: str, offset: float = 0.0, settled: bool = False, key: str = "phi0_rad") -> float:
        """Phase without the heater's own part, on the turn that the record is on."""
        bare = self.phase(name) + offset - math.pi * self.watts(name) / self.p_pi(name, settled)
        return near(bare, self.value.get(key, 0.0), 2.0 * math.pi)

    def root(self, name: str, key: str, targets: tuple[float, ...], settled: bool = False) -> float:
        """Believed power at which the element's phase is one of the targets, nearest to the record's."""
        p_pi, now = self.p_pi(name, settled), self.watts(name)
        told = self.value.get(key, now)
        found = [near(now + (t - self.phase(name)) / math.pi * p_pi, told, 2.0 * p_pi) for t in targets]
        return self.believe(name, min(found, key=lambda p: abs(p - told)))

    def resistances(self) -> Values:
        out: Values = {}
        for name in (*HEATERS[self.side], "ballast"):
            i = self.channel(name)
            out[f"{name}_r0_ohm"] = self.module.heaters.cold_ohm(i)
            out[f"{name}_rho_per_w"] = self.module.heaters.rho(i)
        return out

    def zeros(self) -> Values:
        """Dark currents, as the photodiodes give them now."""
        dark = self.module.currents(np.zeros(8))
        channels = ALICE_DIODES if self.side == "alice" else BOB_DIODES
        return {f"{name}_dark_a": dark[c] for c, name in channels.items() if name in PHOTODIODES[self.side]}

    def tec_plant(self) -> Values:
        """Slope without current, leak at the present one; delay_s is dead time and lag together: the sensor's lag, half
        an interval of the controller for its reading and half of one for its output."""
        capacity = SUBMOUNT_J_PER_K + DIE_J_PER_K
        plant = self.module.plant
        leak = SEEBECK_V_PER_K * plant.current_a + TEC_W_PER_K + SUBMOUNT_LEAK + DIE_LEAK
        return {
            "slope_k_per_a_s": SEEBECK_V_PER_K * (plant.target_c + ZERO_C) / capacity,
            "leak_per_s": leak / capacity,
            "delay_s": SENSOR_LAG_S + CONTROL_TICKS * TICK_S,
        }

    def crosstalk(self) -> Values:
        """theta_<seen at>_<heated>: share of the heated one's own pi that the other sees; die at constant temperature.
        common_<name>_rad_per_w: by way of the die's temperature, for a watt anywhere."""
        h = self.module.individual.heaters  # type: ignore[attr-defined]
        out: Values = {}
        for i, seen in enumerate(HEATERS[self.side]):
            out[f"common_{seen}_rad_per_w"] = h.die_rad_per_k[i] * DIE_RISE_K_PER_W
            for j, heated in enumerate(HEATERS[self.side]):
                out[f"theta_{seen}_{heated}"] = h.theta[i, j]
        return out


def near(x: float, to: float, period: float) -> float:
    """x moved by whole periods to the place nearest to `to`."""
    return x + period * round((to - x) / period)


def to_db(transmission: float) -> float:
    """Loss, dB."""
    return -10.0 * math.log10(transmission)
