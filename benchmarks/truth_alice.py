"""True values of the transmitter's records; `benchmarks.truth` says by which conventions."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from benchmarks.moment import Moment, Values, near, to_db
from calibration.names import INTENSITIES, STATES
from sim.individuals import ALICE_DIODES, CARVED_PULSE_PS, voa_db
from sim.physics.alice import FILTER_FSR_HZ, Alice
from sim.physics.optics import balanced, carver_off, from_db, photons_of
from sim.physics.source import BIN_S

CARVER, STATE, DECOY = range(3)
SIGNAL_Z = np.array([0.5, 0, 0.5, 0, 0, 0, 0, 0, 0])
DECOY_Z = np.array([0, 0.5, 0, 0.5, 0, 0, 0, 0, 0])


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
