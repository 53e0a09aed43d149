"""The emulated transmitter: laser, photonic chip, attenuator, monitors. Implements `AlicePort` (reference pair A2)."""

from __future__ import annotations

import math
from collections.abc import Callable
from zlib import crc32

import numpy as np
import numpy.typing as npt

from sim.faults import FaultSchedule
from sim.individuals import CARVED_PULSE_PS, CHANNEL_HZ, PAD_PORT, AliceIndividual, Ballast, stream
from sim.physics.attenuator import Attenuator
from sim.physics.drifts import Drifts
from sim.physics.modulators import Modulators
from sim.physics.module import PHOTON_J, Module
from sim.physics.optics import AliceOptics, balanced, carver_off, decoy_transmission, from_db, mzm, photons_of
from sim.physics.source import BIN_S, PULSED, Source
from sim.physics.thermal import TICK_S, Stage, ThermalPlant
from sim.ports import SourcePort
from sim.scenario import Drifts as DriftScales
from sim.scenario import Modules

Floats = npt.NDArray[np.float64]

FILTER, SPLIT, PHASE, SHUTTER = range(4)
CARVER, STATE, DECOY, VOA = range(4)
FILTER_FSR_HZ = 800e9
WINDOW_PS = 400.0
INPUT_COUPLER_DB = 1.5
VOA_DB_PER_K = 0.01
DIM_DB, HOP_HZ, NOISE = 6.0, 40e9, 0.1
ROOT_DAY = math.sqrt(86400.0)


class Alice(Module):
    """Everything off and dark at the start. Light is in W inside, in photons a slot at the output.

    `pattern` is what stands behind `source`.
    """

    def __init__(
        self,
        stage: Stage,
        individual: AliceIndividual,
        source: Source,
        tec: ThermalPlant,
        drifts: Drifts,
        scales: DriftScales,
        now: Callable[[], float],
        build: Modules = Modules(),
        ballast: Ballast | None = None,
    ) -> None:
        super().__init__(
            stage,
            "alice",
            individual.serial,
            individual.heaters,
            individual.monitors,
            tec,
            drifts,
            now,
            scales.phase,
            build,
            ballast,
        )
        self.individual = individual
        self.source: SourcePort = source
        self.pattern = source
        self._scales = scales
        self._modulators = Modulators((individual.carver, individual.state, individual.decoy), scales.bias)
        self._attenuator = Attenuator(individual.voa)
        self._laser = (False, CHANNEL_HZ, 13.0)
        self._enable = False
        self._dead = False
        self._laser_change = (0.0, 0.0, 0.0)
        self.extra_phase = 0.0
        self.ambient_c = 25.0
        drifts.ou("alice bias", math.radians(2.0), 7200.0, 3)
        drifts.ou("laser frequency", 30e6, 200.0)
        drifts.ou("laser power", 0.02, 3600.0)
        drifts.walk("voa", 0.02 / ROOT_DAY)

    def set_bias(self, channel: int, volts: float) -> None:
        """LTC2668 outputs 0 to 3; the part's other outputs lead nowhere."""
        self._stage.before_change()
        if channel == VOA:
            self._attenuator.set_volts(volts, self._now())
        elif 0 <= channel < VOA:
            self._modulators.set_volts(channel, volts)

    def set_laser(self, on: bool, frequency_hz: float, power_dbm: float) -> None:
        self._stage.before_change()
        self._laser = (on, frequency_hz, power_dbm)

    def set_laser_enable(self, on: bool) -> None:
        self._stage.before_change()
        self._enable = on

    def laser(self) -> tuple[bool, float, float]:
        self._stage.advance()
        return self._emission()

    def photocurrents(self) -> Floats:
        self._stage.advance()
        return self.currents(self._monitor_watts())

    def apply_faults(self, faults: FaultSchedule, t: float) -> None:
        super().apply_faults(faults, t)
        self._modulators.apply_faults(faults, t)
        self._attenuator.apply_faults(faults, t)
        self._dead = bool(faults.active("dead", "alice.laser", t))
        dim, hop, noisy = (faults.active(kind, "alice.laser", t) for kind in ("dim", "hop", "noisy"))
        self._laser_change = (
            dim.number(DIM_DB) if dim else 0.0,
            hop.number(HOP_HZ) if hop else 0.0,
            noisy.number(NOISE) if noisy else 0.0,
        )

    def step_plant(self, dt: float) -> None:
        """Creep of the modulators over dt, s."""
        self._modulators.step(dt)

    def voa_volts(self) -> float:
        """Drive of the attenuator, V."""
        return self._attenuator.drive_v

    def voa_loss_db(self) -> float:
        """Attenuation now, dB."""
        wander = self._scales.voa * (self._drifts["voa"] + VOA_DB_PER_K * (self.ambient_c - 25.0))
        return self._attenuator.loss_db(self._now()) + wander

    def settling_until(self) -> float:
        return max(super().settling_until(), self._attenuator.settled_at())

    def detuning_hz(self) -> float:
        """Laser against the channel's centre."""
        return self._emission()[1] - CHANNEL_HZ

    def bias_volts(self) -> Floats:
        """Biases of C, S and D, V, shape (3,)."""
        return self._modulators.volts

    def biases(self) -> Floats:
        """Phases of C, S (from null) and D (from peak), rad, shape (3,)."""
        return self._modulators.phases(self.plant.die_c, self._scales.bias * self._drifts.row("alice bias"))

    def optics(self, receiver_mismatch_s: float) -> AliceOptics:
        """Control state now. receiver_mismatch_s: this AMZI's delay less the receiver's, s."""
        i = self.individual
        phase = self.phases()
        bias = self.biases()
        m, rf = self._modulators, self.pattern.rf
        long = self._long()
        turn = phase[PHASE] + self.extra_phase + 2.0 * math.pi * self.detuning_hz() * receiver_mismatch_s
        return AliceOptics(
            mu_ref=self._pulse_watts() * CARVED_PULSE_PS * 1e-12 / PHOTON_J * self._after_tap() * self._outside(),
            d_split=phase[SPLIT] - balanced(long),
            phi=turn,
            d_shutter=phase[SHUTTER],
            shutter_floor=i.shutter_floor,
            d_c=bias[CARVER],
            theta_c=m.drive(CARVER, rf["carver"]),
            d_s=bias[STATE],
            theta_s=m.drive(STATE, rf["state"]),
            d_d=bias[DECOY],
            theta_d=m.drive(DECOY, rf["decoy"]),
            leak_c=m[CARVER].xi ** 2,
            xi_s=m[STATE].xi,
            leak_d=m[DECOY].xi ** 2,
            long=long,
            windows=WINDOW_PS / CARVED_PULSE_PS,
            pilot_gain=10.0 ** (self.pattern.pilot[1] / 10.0) if self.pattern.pilot[0] else 0.0,
        )

    def continuous_photons(self) -> float:
        """Unmodulated light (source OFF or CW) at the output, photons a slot."""
        watts = self._continuous_watts() * self._after_tap() * self._shutter() * self._outside()
        return watts * self.pattern.period_s / PHOTON_J

    def output_watts(self) -> float:
        """Mean power into the fibre, W."""
        return self.present_watts() * self._after_tap() * self._shutter() * self._outside()

    def _emission(self) -> tuple[bool, float, float]:
        on, hz, dbm = self._laser
        s = self._scales.laser
        hz += self.individual.laser_offset_hz + s * self._drifts["laser frequency"]
        dbm += self.individual.laser_offset_db + s * self._drifts["laser power"]
        dim_db, hop_hz, noise = self._laser_change
        hz, dbm = hz + hop_hz, dbm - dim_db
        if noise:
            dbm += 10.0 * math.log10(max(1e-3, 1.0 + noise * self._flicker()))
        return on and self._enable and not self._dead, hz, dbm

    def _flicker(self) -> float:
        """Normal noise that changes every 10 ms, the same for all who look at the laser in between."""
        tick = math.floor(self._now() / TICK_S + 1e-6)
        return float(stream(crc32(self.serial.encode()), f"flicker {tick}").normal())

    def _long(self) -> float:
        """Transmission of the AMZI's long arm."""
        return from_db(self.individual.long_db + self.paths.db("amzi"))

    def raw_watts(self) -> float:
        """Behind the input coupler."""
        on, _, dbm = self._emission()
        if not on:
            return 0.0
        return 1e-3 * float(10.0 ** (dbm / 10.0)) * from_db(INPUT_COUPLER_DB) * self.paths.through("laser")

    def filtered_watts(self) -> float:
        d = self.phases()[FILTER] + 2.0 * math.pi * self.detuning_hz() / FILTER_FSR_HZ
        passed = self.raw_watts() * (1.0 - float(self.monitors.tap[6])) * (1.0 + math.cos(d)) / 2.0
        return passed * self.paths.through("filter")

    def amzi_watts(self) -> float:
        """Into the AMZI with the carver fully open."""
        kept = self.filtered_watts() * (1.0 - float(self.monitors.tap[0]))
        return kept * from_db(self.individual.before_amzi_db) * self.paths.through("amzi_input")

    def _pulse_watts(self) -> float:
        """Peak power of a bright bin behind D with all errors 0."""
        balanced_cross = 1.0 / (1.0 + self._long())
        return self.amzi_watts() * 0.5 * (1.0 - balanced_cross) * self._insertion()

    def _insertion(self) -> float:
        return from_db(self.individual.state_db + self.individual.decoy_db) * self.paths.through("state")

    def _after_tap(self) -> float:
        """From PA3's tap to the shutter."""
        return (1.0 - float(self.monitors.tap[3])) * self.paths.through("shutter")

    def _shutter(self) -> float:
        floor = self.individual.shutter_floor
        return floor + (1.0 - floor) * math.cos(self.phases()[SHUTTER] / 2.0) ** 2

    def _outside(self) -> float:
        """From the shutter to the fibre."""
        i = self.individual
        lost_db = i.output_db + self.paths.db("output") + self.voa_loss_db() + i.pad_db
        return from_db(lost_db) * (1.0 - float(self.monitors.tap[5]))

    def arms(self) -> tuple[float, float]:
        """Power shares of the AMZI's short and long arm."""
        cross = math.sin(self.phases()[SPLIT] / 2.0) ** 2
        return 1.0 - cross, cross * self._long()

    def _fringe(self) -> float:
        """Interference of unmodulated light in the AMZI, signed as at the output towards the modulators."""
        short, long = self.arms()
        turn = 2.0 * math.pi * self.detuning_hz() * BIN_S + self.phases()[PHASE] + self.extra_phase
        return 2.0 * self.individual.fringe * math.sqrt(short * long) * math.cos(turn)

    def _undriven(self) -> tuple[float, float, float]:
        """Transmissions of C, S and D without RF."""
        m = self._modulators
        c, s, d = self.biases()
        off = carver_off(c, m[CARVER].xi ** 2)
        return off, abs(mzm(s, m[STATE].xi)) ** 2, decoy_transmission(d, m[DECOY].xi ** 2)

    def _continuous_watts(self) -> float:
        """Behind D with nothing driven."""
        off, s, d = self._undriven()
        return self.amzi_watts() * off * 0.5 * (sum(self.arms()) + self._fringe()) * s * d * self._insertion()

    def between_watts(self) -> float:
        """Mean power behind D that leaks between the state modulator's windows."""
        off, s, d = self._undriven()
        share = 1.0 - 2.0 * WINDOW_PS / self.pattern.period_ps
        return self.amzi_watts() * off * 0.5 * sum(self.arms()) * s * d * self._insertion() * share

    def present_watts(self) -> float:
        """Mean power behind D, before the tap of PA3, in the mode that the source is in."""
        stretch = self.pattern.stretch_now()
        if stretch.mode not in PULSED:
            return self._continuous_watts()
        return self.pulsed_watts(stretch.weights())

    def pulsed_watts(self, weights: Floats) -> float:
        """Mean power behind D, before the tap of PA3, W, for a mix of classes, shape (11,) or its first ones."""
        at_output = float(weights @ photons_of(self.optics(0.0))[: len(weights)])
        through = self._after_tap() * self._shutter() * self._outside()
        return at_output * PHOTON_J / (through * self.pattern.period_s) + self.between_watts()

    def _monitor_watts(self) -> Floats:
        """In front of each tap, by ADC channel, shape (8,)."""
        watts = np.zeros(8)
        mean = self.present_watts()
        watts[0] = self.filtered_watts()
        watts[1] = self._second_output_watts()
        watts[3] = mean
        floor = self.individual.shutter_floor
        cross = floor + (1.0 - floor) * math.sin(self.phases()[SHUTTER] / 2.0) ** 2
        watts[4] = mean * self._after_tap() * cross
        watts[5] = self.foreign_w
        watts[6] = self.raw_watts()
        into_pad = from_db(self.individual.output_db + self.paths.db("output") + self.voa_loss_db())
        beside = 1.0 - from_db(self.individual.pad_db)
        watts[PAD_PORT] = mean * self._after_tap() * self._shutter() * into_pad * beside
        return watts

    def _second_output_watts(self) -> float:
        """The AMZI's other output: a fringe for unmodulated light, none for pulses."""
        off, _, _ = self._undriven()
        if self.pattern.stretch_now().mode not in PULSED:
            return self.amzi_watts() * off * 0.5 * (sum(self.arms()) - self._fringe())
        theta = self._modulators.drive(CARVER, self.pattern.rf["carver"])
        on = math.sin((theta + self.biases()[CARVER]) / 2.0) ** 2
        duty = CARVED_PULSE_PS / self.pattern.period_ps
        return self.amzi_watts() * (on * duty + (1.0 - duty) * off) * 0.5 * sum(self.arms())
