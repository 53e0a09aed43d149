"""What a calibration record ought to say: the true value of each of its parameters at this moment.

Only benchmarks and tests may compare a record with this: nothing that stands in for hardware reads it. Values are named
as the records name them; a name without a truth (a setting, a reading of the moment) is left out; a
name that is no record's (`delay_s` of `tec_plant`) is the truth of a sum of values. Conventions:

- `p_pi_w` is in true watts, the other heaters and the die's temperature held; for `arm_phase` the die follows.
- `phi0_rad` is the present phase less the heater's own part, in the sense that the procedure's equation gives it.
- Powers of set points (`power_w`, `bar_w`, ...) are in the watts that the records' R(P) believes in, the other heaters
  as they are: the power to ask for. Of several, the one nearest to the record's.
- Voltages of nulls and peaks have the creep and the wander of the moment in them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from calibration.names import DETECTORS, HEATERS, INTENSITIES, PHOTODIODES, STATES
from calibration.record import Record
from sim.individuals import ALICE_DIODES, BOB_DIODES, CARVED_PULSE_PS, voa_db
from sim.physics.alice import FILTER_FSR_HZ, Alice
from sim.physics.bob import Bob
from sim.physics.detectors import MIDPOINT, WIDTH, observed_rate, relative_efficiency
from sim.physics.module import Module
from sim.physics.optics import balanced, carver_off, from_db, photons_of, table
from sim.physics.source import BIN_S
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

Floats = npt.NDArray[np.float64]
Values = dict[str, float]
Believe = Callable[[str, float], float]

DIE_RISE_K_PER_W = 1.0 / (1.0 / DIE_K_PER_W + DIE_LEAK)
CARVER, STATE, DECOY = range(3)
SIGNAL_Z = np.array([0.5, 0, 0.5, 0, 0, 0, 0, 0, 0])
DECOY_Z = np.array([0, 0.5, 0, 0.5, 0, 0, 0, 0, 0])


def truth_of(world: World, side: str, record: Record, believe: Believe = lambda _, watts: watts) -> Values:
    """True values of a record's names, by name. believe: watts that the drive must be told for true watts."""
    world.advance()
    finders: dict[str, Callable[[Any], Values]] = ALICE if side == "alice" else BOB
    if record.name not in finders:
        return {}
    module: Any = AliceMoment if side == "alice" else BobMoment
    found = finders[record.name](module(world, side, dict(record.value), believe))
    return {name: float(value) for name, value in found.items()}


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


# ---------------------------------------------------------------- transmitter


@dataclass
class AliceMoment(Moment):
    @property
    def alice(self) -> Alice:
        return self.world.alice

    def current(self, channel: int, watts: float) -> float:
        """Photocurrent without dark, A, for watts in front of the tap."""
        return float(watts * self.alice.monitors.tap[channel] * self.alice.monitors.responsivity[channel])

    def modulator(self, index: int) -> Any:
        i = self.alice.individual
        return (i.carver, i.state, i.decoy)[index]

    def bias(self, index: int, key: str, target: float = 0.0) -> float:
        """Voltage at which a modulator's phase is the target now, nearest to the record's."""
        v_pi = self.modulator(index).v_pi
        volts = self.alice.bias_volts()[index] + (target - self.alice.biases()[index]) / math.pi * v_pi
        return near(volts, self.value.get(key, volts), 2.0 * v_pi)

    def off(self, index: int) -> float:
        """Present bias error, rad, -pi to pi."""
        return math.remainder(float(self.alice.biases()[index]), 2.0 * math.pi)

    def ratio(self, **changes: float) -> float:
        """Mean photons of decoy over those of signal in Z, with changed optics."""
        photons = photons_of(replace(self.alice.optics(0.0), **changes))[:9]
        return float(DECOY_Z @ photons / (SIGNAL_Z @ photons))

    def filter_peak(self) -> Values:
        detuning = self._filter_detuning()
        top = self.alice.filtered_watts() * 2.0 / (1.0 + math.cos(self.phase("filter") + detuning))
        return {
            "offset_a": self.current(0, 0.5 * top),
            "visibility": 1.0,
            "phi0_rad": self.phi0("filter", detuning),
            "p_pi_w": self.p_pi("filter"),
            "power_w": self.root("filter", "power_w", (-detuning,)),
        }

    def _filter_detuning(self) -> float:
        return 2.0 * math.pi * self.alice.detuning_hz() / FILTER_FSR_HZ

    def laser(self) -> Values:
        _, hz, dbm = self.alice.laser()
        return {"frequency_hz": hz, "power_dbm": dbm}

    def carver_bias(self) -> Values:
        m = self.modulator(CARVER)
        return {
            "v_pi_v": m.v_pi,
            "null_v": self.bias(CARVER, "null_v"),
            "peak_v": self.bias(CARVER, "peak_v", math.pi),
            "rf_v": m.v_rf * (1.0 - self.off(CARVER) / math.pi),
            "extinction": m.xi**2,
        }

    def amzi_phase(self) -> Values:
        turn = 2.0 * math.pi * self.alice.detuning_hz() * BIN_S + self.alice.extra_phase + math.pi
        short, long = self.alice.arms()
        return {
            "offset_a": self.current(1, self.alice.amzi_watts() * 0.5 * (short + long)),
            "visibility": 2.0 * self.alice.individual.fringe * math.sqrt(short * long) / (short + long),
            "phi0_rad": self.phi0("phase", turn),
            "p_pi_w": self.p_pi("phase"),
        }

    def state_bias(self) -> Values:
        m = self.modulator(STATE)
        return {
            "v_pi_v": m.v_pi,
            "null_v": self.bias(STATE, "null_v"),
            "rf_v": m.v_rf * (1.0 - self.off(STATE) / math.pi),
            "extinction": m.xi**2,
        }

    def shutter(self) -> Values:
        floor = self.alice.individual.shutter_floor
        mean = self.alice.present_watts() * (1.0 - self.alice.monitors.tap[3])
        bare = self.phase("shutter") - math.pi * self.watts("shutter") / self.p_pi("shutter")
        return {
            "offset_a": self.current(4, mean * 0.5 * (1.0 + floor)),
            "visibility": (1.0 - floor) / (1.0 + floor),
            "phi0_rad": self.phi0("shutter", math.pi),
            "p_pi_w": self.p_pi("shutter"),
            "bar_w": self.root("shutter", "bar_w", (0.0,)),
            "cross_w": self.root("shutter", "cross_w", (math.pi,)),
            "unpowered_transmission": floor + (1.0 - floor) * math.cos(bare / 2.0) ** 2,
        }

    def amzi_split(self) -> Values:
        even = balanced(from_db(self.alice.individual.long_db))
        return {
            "phi0_rad": self.phi0("split"),
            "p_pi_w": self.p_pi("split"),
            "power_w": self.root("split", "power_w", (even, -even)),
        }

    def state_trim(self) -> Values:
        m = self.modulator(STATE)
        return {
            "null_v": self.bias(STATE, "null_v"),
            "rf_v": m.v_rf,
            "null_slope_per_v": self._x_ratio_slope() * math.pi / m.v_pi,
        }

    def _x_ratio_slope(self) -> float:
        """d(Q(X0)/Q(X1))/d(bias phase) at the null."""
        step = 1e-3
        seen = []
        for d in (-step, step):
            photons = photons_of(replace(self.alice.optics(0.0), d_s=d))[:9]
            seen.append(photons[4] / photons[6])
        return float((seen[1] - seen[0]) / (2.0 * step))

    def decoy(self) -> Values:
        m = self.modulator(DECOY)
        optics = self.alice.optics(0.0)
        wanted, step = self.value.get("wanted_ratio", math.nan), 1e-3
        slope = (math.log(self.ratio(d_d=step)) - math.log(self.ratio(d_d=-step))) / (2.0 * step)
        # From the drive that is there: two secant steps end at the wanted ratio.
        theta = optics.theta_d
        for _ in range(4):
            gain = (self.ratio(theta_d=theta + step) - self.ratio(theta_d=theta - step)) / (2.0 * step)
            theta -= (self.ratio(theta_d=theta) - wanted) / gain
        return {
            "v_pi_v": m.v_pi,
            "peak_v": self.bias(DECOY, "peak_v"),
            "rf_v": m.v_rf * theta / math.pi,
            "ratio": self.ratio(),
            "ratio_slope_per_v": slope * math.pi / m.v_pi,
            "background": self.alice.between_watts() / self.alice.pulsed_watts(SIGNAL_Z),
            "extinction": m.xi**2,
        }

    def mean_photon(self) -> Values:
        photons = photons_of(self.alice.optics(0.0))[:9]
        out: Values = {"voa_db": self.alice.voa_loss_db(), "decoy_ratio": self.ratio()}
        out["mu_signal"], out["mu_decoy"] = float(SIGNAL_Z @ photons), float(DECOY_Z @ photons)
        for s, state in enumerate(STATES):
            for k, intensity in enumerate(INTENSITIES):
                weights = np.zeros(9)
                weights[2 * s + k] = 1.0
                out[f"mu_{state}_{intensity}"] = float(photons[2 * s + k])
                out[f"i_{state}_{intensity}_a"] = self.current(3, self.alice.pulsed_watts(weights))
        return out

    def set_powers(self) -> Values:
        """Crosstalk, and the powers that bring all phases to their set points together."""
        even = balanced(from_db(self.alice.individual.long_db))
        return self.crosstalk() | {
            "filter_w": self.root("filter", "filter_w", (-self._filter_detuning(),)),
            "split_w": self.root("split", "split_w", (even, -even)),
            "bar_w": self.root("shutter", "bar_w", (0.0,)),
            "cross_w": self.root("shutter", "cross_w", (math.pi,)),
        }

    def path_loss(self) -> Values:
        """From tap to tap, in a bright Z0 where light is pulsed."""
        a, m = self.alice, self.modulator(CARVER)
        duty = CARVED_PULSE_PS / a.pattern.period_ps
        c = float(a.biases()[CARVER])
        on = math.sin((math.pi * a.pattern.rf["carver"] / m.v_rf + c) / 2.0) ** 2
        pulsed = on * duty + (1.0 - duty) * carver_off(c, m.xi**2)
        z0 = np.eye(9)[0]
        return {
            "filter_db": to_db(a.filtered_watts() / a.raw_watts()),
            "interferometer_db": to_db(a.amzi_watts() * pulsed * 0.5 * sum(a.arms()) / duty / a.filtered_watts()),
            "modulators_db": to_db(a.pulsed_watts(z0) / duty / a.filtered_watts()),
            "shutter_db": 0.0,
        }

    def voa(self) -> Values:
        """Attenuation at every voltage of a table, dB: names are db_<millivolts>."""
        now = self.alice.voa_loss_db() - voa_db(self.alice.individual.voa, self.alice.voa_volts())
        points = [n for n in self.value if n.startswith("db_")]
        return {n: voa_db(self.alice.individual.voa, float(n[3:]) / 1000.0) + now for n in points}

    def log_tia(self) -> Values:
        m = self.alice.monitors
        out: Values = {}
        for channel, name in ALICE_DIODES.items():
            out[f"{name}_slope_v_per_decade"] = m.tia_vy_v[channel]
            out[f"{name}_intercept_a"] = m.tia_iz_a[channel]
        return out


# ---------------------------------------------------------------- receiver


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
            out |= {f"{n}_dead_s": i.dead_ps[q] * 1e-12, f"{n}_recovery_s": i.recovery_ps[q] * 1e-12}
        return out

    def basis_split(self) -> Values:
        leak = from_db(self.bob.individual.basis_db)
        share = self.value.get("wanted_share", 0.26)
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
        even, turn = balanced(from_db(self.bob.individual.long_db)), math.acos(1.0 - 2.0 * 0.26)
        return {
            "basis_w": self.root("basis", "basis_w", (turn, -turn)),
            "split_w": self.root("split", "split_w", (even, -even)),
            "combine_w": self.root("combine", "combine_w", (math.pi / 2, -math.pi / 2)),
        }


ALICE: dict[str, Callable[[Any], Values]] = {
    "photodiode_zero": Moment.zeros,
    "heater_iv": Moment.resistances,
    "crosstalk": AliceMoment.set_powers,
    "laser": AliceMoment.laser,
    "filter_peak": AliceMoment.filter_peak,
    "carver_bias": AliceMoment.carver_bias,
    "amzi_phase": AliceMoment.amzi_phase,
    "state_bias": AliceMoment.state_bias,
    "shutter": AliceMoment.shutter,
    "amzi_split": AliceMoment.amzi_split,
    "state_trim": AliceMoment.state_trim,
    "decoy": AliceMoment.decoy,
    "mean_photon": AliceMoment.mean_photon,
    "voa": AliceMoment.voa,
    "path_loss": AliceMoment.path_loss,
    "tec_plant": Moment.tec_plant,
    "log_tia": AliceMoment.log_tia,
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
    "tec_plant": Moment.tec_plant,
}
