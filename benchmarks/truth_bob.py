"""True values of the receiver's records; `benchmarks.truth` says by which conventions."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.moment import Moment, Values, near, to_db
from calibration.factory import FactoryRecord
from calibration.names import DETECTORS
from sim.individuals import factory_record, voa_db
from sim.physics.bob import Bob
from sim.physics.detectors import MIDPOINT, WIDTH, observed_rate, relative_efficiency
from sim.physics.optics import balanced, from_db, table

Floats = npt.NDArray[np.float64]
SHARE = 0.26
X0_SIGNAL = 4


@dataclass
class BobMoment(Moment):
    @property
    def bob(self) -> Bob:
        return self.world.bob

    def efficiency_ratio(self) -> float:
        b = self.world.light().bob
        return b.eff_x0 / b.eff_x1

    def detector_bias(self) -> Values:
        bank, light = self.bob.bank, self.world.light()
        darks = bank.dark_rates(self.bob.warmer_k)
        switch = bank.switching(self.bob.warmer_k)
        cells = np.array([light.lam[0, :2].sum(), light.lam[0, 2:5].sum(), light.lam[0, 5:8].sum()])
        share = np.array([relative_efficiency(bank.bias[q], switch[q], bank.widening[q]) for q in range(3)])
        shutter = self.bob.open_gain()
        i = self.bob.individual
        top = cells / light.period_s * self.value.get("scale", 1.0) / share * shutter
        seen = observed_rate(top, i.dead_ps * 1e-12, i.recovery_ps * 1e-12)
        out: Values = {}
        for q, name in enumerate(DETECTORS):
            out[f"{name}_top_hz"] = seen[q]
            out[f"{name}_centre_a"] = MIDPOINT * switch[q]
            out[f"{name}_width_a"] = WIDTH * switch[q] * bank.widening[q]
            out[f"{name}_dark_hz"] = darks[q]
        return out

    def detector_delay(self) -> Values:
        delay = self.bob.individual.delay_ps
        out = {f"delay_{n}_ps": float(delay[q] - delay[0]) for q, n in enumerate(DETECTORS)}
        return {**out, "clock_offset": self.bob.clicks.clock.y}

    def dead_time(self) -> Values:
        i = self.bob.individual
        out: Values = {}
        for q, n in enumerate(DETECTORS):
            dead, recovery = i.dead_ps[q] * 1e-12, i.recovery_ps[q] * 1e-12
            out |= {f"{n}_dead_s": dead, f"{n}_recovery_s": recovery, f"{n}_tau_s": dead + recovery}
        return out

    def x_light(self) -> tuple[float, float]:
        """Means a slot of X0 in Z and in X, efficiency included."""
        lam = self.world.light().lam[X0_SIGNAL]
        return float(lam[:2].sum()), float(lam[2:].sum())

    def efficiency_balance(self) -> Values:
        z, x = self.x_light()
        return {"efficiency_ratio": self.efficiency_ratio(), "x_over_z": x / z}

    def frame_sync(self) -> Values:
        return {"clock_offset": self.bob.clicks.clock.y}

    def path_loss(self) -> Values:
        """From the transmitter's output to the clicks, each arm's share of the basis splitter apart."""
        (z, x), light = self.x_light(), self.world.light()
        kappa, long = light.bob.kappa, from_db(self.bob.individual.long_db)
        through = 1.0 - math.sin(self.phase("split") / 2.0) ** 2 * (1.0 - long)
        return {
            "link_db": to_db(z * self.bob.open_gain() / float(light.photons[X0_SIGNAL]) / (1.0 - kappa)),
            "x_over_z_db": to_db(x / z * (1.0 - kappa) / kappa / through),
            "long_over_short_db": self.bob.individual.long_db,
            "fibre_db": self.world.fibre.loss_db,
        }

    def attenuator_check(self) -> Values:
        """The true step of the transmitter's attenuator between two settings less the table's."""
        alice = self.world.alice
        table_of = FactoryRecord.from_mapping(factory_record(alice.individual, self.world.scenario.seed)).voa
        if table_of is None:
            return {}
        base = table_of.attenuation(alice.voa_volts()) - 10.0 * math.log10(self.value.get("scale", 1.0))

        def true_db(table_db: float) -> float:
            return voa_db(alice.individual.voa, table_of.voltage(table_db))

        steps = {n.removesuffix("_db"): v for n, v in self.value.items() if n.endswith("_db") and "deviation" not in n}
        return {f"{n}_deviation_db": true_db(base) - true_db(base - step) - step for n, step in steps.items()}

    def basis_split(self) -> Values:
        leak = from_db(self.bob.individual.basis_db)
        share = self.value.get("wanted_share", SHARE)
        turn = math.acos(1.0 - 2.0 * share)
        return {
            "visibility": 1.0 - 2.0 * leak,
            "phi0_rad": self.phi0("basis"),
            "p_pi_w": self.p_pi("basis"),
            "power_w": self.root("basis", "power_w", (turn, -turn)),
        }

    def arm_split(self) -> Values:
        even = balanced(from_db(self.bob.individual.long_db))
        return {
            "phi0_rad": self.phi0("split"),
            "p_pi_w": self.p_pi("split"),
            "power_w": self.root("split", "power_w", (even, -even)),
            "efficiency_ratio": self.efficiency_ratio(),
            "long_transmission": from_db(self.bob.individual.long_db),
        }

    def combiner(self) -> Values:
        return {
            "phi0_rad": self.phi0("combine"),
            "p_pi_w": self.p_pi("combine"),
            "power_w": self.root("combine", "power_w", (math.pi / 2, -math.pi / 2)),
            "efficiency_ratio": self.efficiency_ratio(),
            "visibility": 1.0,
        }

    def waves(self) -> tuple[npt.NDArray[np.complex128], Floats]:
        """(waves, means) of the middle bins against the receiver's phase, shape (2 states, 2 detectors).

        A count is mean + Re(wave exp(i t)) with t the receiver's phase less its present one.
        """
        light = self.world.light()
        turns = 2.0 * math.pi * np.arange(3) / 3.0
        seen = np.array([table(light.alice, replace(light.bob, phi=light.bob.phi + t), light.loss_db) for t in turns])
        middle = seen[:, 4:8:2][:, :, [3, 6]]
        waves = np.einsum("tsd,t->sd", middle, np.exp(-1j * turns)) * 2.0 / 3.0
        return waves, middle.mean(axis=0)

    def arm_phase(self) -> Values:
        waves, means = self.waves()
        # DX0 sees cos(t - xi) for X0 and cos(t + pi + xi) for X1; DX1 the opposite.
        x0, x1 = (float(np.angle(w[0] / means[s, 0] - w[1] / means[s, 1])) for s, w in enumerate(waves))
        xi = near((x1 - x0 - math.pi) / 2.0, 0.0, math.pi)
        now = x0 + xi
        p_pi, power = self.p_pi("phase", settled=True), self.watts("phase")
        told = self.value.get("power_w", power)
        best = near(power + (math.pi - now) / math.pi * p_pi, told, 2.0 * p_pi)
        return {
            "visibility": float(np.mean(np.abs(waves) / means)),
            "phi0_rad": near(now - math.pi * power / p_pi, self.value.get("phi0_rad", 0.0), 2.0 * math.pi),
            "p_pi_w": p_pi,
            "xi_rad": xi,
            "efficiency_ratio": self.efficiency_ratio(),
            "power_w": self.believe("phase", best),
        }

    def set_powers(self) -> Values:
        """Crosstalk, and the powers that bring the three splitters to their set points together."""
        return self.crosstalk() | self.crosstalk_trim()

    def crosstalk_trim(self) -> Values:
        even, turn = balanced(from_db(self.bob.individual.long_db)), math.acos(1.0 - 2.0 * SHARE)
        return {
            "basis_w": self.root("basis", "basis_w", (turn, -turn)),
            "split_w": self.root("split", "split_w", (even, -even)),
            "combine_w": self.root("combine", "combine_w", (math.pi / 2, -math.pi / 2)),
        }


BOB: dict[str, Callable[[Any], Values]] = {
    "photodiode_zero": Moment.zeros,
    "heater_iv": Moment.resistances,
    "crosstalk": BobMoment.set_powers,
    "detector_bias": BobMoment.detector_bias,
    "detector_delay": BobMoment.detector_delay,
    "dead_time": BobMoment.dead_time,
    "basis_split": BobMoment.basis_split,
    "arm_split": BobMoment.arm_split,
    "combiner": BobMoment.combiner,
    "arm_phase": BobMoment.arm_phase,
    "crosstalk_trim": BobMoment.crosstalk_trim,
    "efficiency_balance": BobMoment.efficiency_balance,
    "frame_sync": BobMoment.frame_sync,
    "attenuator_check": BobMoment.attenuator_check,
    "path_loss": BobMoment.path_loss,
    "tec_plant": Moment.tec_plant,
}
