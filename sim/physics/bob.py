"""The emulated receiver: shutter, photonic chip, detectors, counters, monitor photodiodes. Implements `BobPort`."""

from __future__ import annotations

import math
from collections.abc import Callable
from zlib import crc32

import numpy as np
import numpy.typing as npt

from sim.faults import FaultSchedule
from sim.individuals import Ballast, BobIndividual, stream
from sim.physics.detectors import Bank, DetectorDefects
from sim.physics.diode import SelfTestDiode
from sim.physics.drifts import Drifts
from sim.physics.module import PHOTON_J, Module
from sim.physics.optics import BobOptics, balanced, continuous_split, from_db
from sim.physics.rates import RateMeter
from sim.physics.source import BIN_S
from sim.physics.tagger import Tagger
from sim.physics.thermal import Stage, ThermalPlant
from sim.ports import TaggerPort
from sim.scenario import Drifts as DriftScales
from sim.scenario import Modules

Floats = npt.NDArray[np.float64]

BASIS, SPLIT, PHASE, COMBINE = range(4)
SHUTTER_OPEN_V = 4.5
SHUTTER_CLOSED_DB = 60.0
TAP = 0.01
NO_PLATEAU = 8.0
WORKING_K = 2.5
UNBIASED_A = 1e-6


def shutter_db(volts: float) -> float:
    """Loss beyond that of the open shutter, dB: 0 V closed, from 4.5 V on open."""
    return SHUTTER_CLOSED_DB * max(0.0, 1.0 - max(0.0, volts) / SHUTTER_OPEN_V) ** 2


class Bob(Module):
    """Shutter closed and detectors unbiased at the start. `clicks` is what stands behind `tagger`."""

    tagger: TaggerPort
    clicks: Tagger
    meter: RateMeter

    def __init__(
        self,
        stage: Stage,
        individual: BobIndividual,
        bank: Bank,
        tec: ThermalPlant,
        drifts: Drifts,
        scales: DriftScales,
        now: Callable[[], float],
        build: Modules = Modules(),
        ballast: Ballast | None = None,
    ) -> None:
        super().__init__(
            stage,
            "bob",
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
        self.bank = bank
        self._scales = scales
        self._shutter_v = 0.0
        self._stuck_v: float | None = None
        self._jammed = np.zeros(3, np.bool_)
        self.warmer_k = 0.0
        self.alignment = 0.0
        self.diode = SelfTestDiode(individual.diode, lambda: self.detectors_unbiased, scales.laser)
        self._misread = stream(crc32(individual.serial.encode()), "bias readings")
        self.arriving_w: Callable[[], float] = float
        self.expose: Callable[[], object] = float
        drifts.ou("detectors", 0.01, 3600.0, 3)

    def set_bias(self, channel: int, volts: float) -> None:
        """LTC2668 output 0 moves the shutter, 1 drives the self-test diode, 2 its shutter; others lead nowhere."""
        self._stage.before_change()
        if channel == 0:
            self._shutter_v = volts
        elif channel == 1:
            self.diode.drive_v = volts
        elif channel == 2:
            self.diode.shutter_v = volts

    def set_detector_bias(self, channel: int, amperes: float) -> None:
        """Raises ValueError for a detector that does not exist."""
        self._known(channel)
        self._stage.before_change()
        self.bank.set_bias(channel, max(0.0, amperes), self.warmer_k)

    def detector_voltage(self, channel: int) -> float:
        self._known(channel)
        self._stage.advance()
        self.expose()
        volts, noise = self.bank.voltage(channel), float(self.bank.defects.reading_v[channel])
        return volts + noise * float(self._misread.normal()) if noise else volts

    @property
    def detectors_unbiased(self) -> bool:
        """Line of the bias controller: every bias below 1 uA."""
        return bool(np.all(self.bank.bias < UNBIASED_A))

    def cryostat_k(self) -> float:
        """Temperature of the detectors, K."""
        self._stage.advance()
        return WORKING_K + self.warmer_k

    def detector_rates(self, period_s: float) -> Floats:
        """Raises ValueError when period_s is not positive."""
        if not period_s > 0.0:
            raise ValueError(f"measurement period {period_s!r} s must be positive")
        self._stage.advance()
        return self.meter.measure(self._now(), period_s)

    def photocurrents(self) -> Floats:
        self._stage.advance()
        watts = np.zeros(8)
        entry = self.arriving_w() + self.foreign_w
        inside = entry * (1.0 - TAP) * self._common()
        kappa = self._kappa()
        watts[0] = entry
        watts[1] = inside * (1.0 - kappa) * self.paths.through("z")
        watts[[3, 4]] = inside * kappa * 0.5 * self.paths.through("x")
        own = self.diode.entry_w()
        if own:
            watts[0] += own
            watts[[1, 3, 4]] += own * (1.0 - TAP) * self._diode_shares(self._control(np.ones(3)))
        return self.currents(watts)

    def diode_rates(self, optics: BobOptics) -> Floats | None:
        """Photo-detections a second of the self-test diode's light, (3,), for control states as of `optics`; None
        while there is none."""
        own = self.diode.entry_w()
        return own / PHOTON_J * self._diode_shares(optics) if own else None

    def _diode_shares(self, b: BobOptics) -> Floats:
        """Share of the diode's light at the entry that arrives at each detector, (3,). Its polarisation is that of the
        chip, whatever that of the fibre's light is."""
        tau = BIN_S - self.individual.tau_mismatch_s
        turn = b.phi + 2.0 * math.pi * self.diode.detuning_hz(self._now()) * tau
        aligned = from_db(self.individual.common_db + self.paths.db("input") + self._shutter_db())
        out: Floats = continuous_split(b, turn) * (aligned / b.common)
        return out

    def apply_faults(self, faults: FaultSchedule, t: float) -> None:
        super().apply_faults(faults, t)
        stuck = faults.active("stuck", "bob.shutter", t)
        self._stuck_v = stuck.number(self._shutter_v) if stuck else None
        warm = faults.active("warm", "bob.cryostat", t)
        self.warmer_k = warm.number(1.0) if warm else 0.0
        self.bank.defects = DetectorDefects.of(faults, t)
        self.bank.note_warming(self.warmer_k)
        self.diode.apply_faults(faults, t)
        wide = [faults.active("plateau", f"bob.detector.{q}", t) for q in range(3)]
        self.bank.widening = np.array([f.number(NO_PLATEAU) if f else 1.0 for f in wide])
        for q in range(3):
            if faults.active("latched", f"bob.detector.{q}", t):
                # The event latches; a bias reset frees it, also while the script still names it.
                self.bank.latched[q] |= not self._jammed[q]
                self._jammed[q] = True
            else:
                self._jammed[q] = False

    def optics(self) -> BobOptics:
        """Control state now, efficiencies at the present bias included."""
        factor = 1.0 + self._scales.detectors * self._drifts.row("detectors")
        return self._control(self.bank.efficiencies(self.warmer_k, factor))

    def _control(self, eff: Floats) -> BobOptics:
        """Control state now, with detectors of these efficiencies, (3,)."""
        i = self.individual
        phase = self.phases()
        long = from_db(i.long_db + self.paths.db("amzi"))
        return BobOptics(
            kappa=math.sin(phase[BASIS] / 2.0) ** 2,
            leak_b=from_db(i.basis_db),
            common=self._common(),
            z=from_db(i.z_db + self.paths.db("z")),
            x=from_db(i.x_db + self.paths.db("x")),
            long=long,
            d_split=phase[SPLIT] - balanced(long),
            d_combine=phase[COMBINE] - math.pi / 2.0,
            phi=phase[PHASE],
            v_mode=i.v_mode,
            eff_z=float(eff[0]),
            eff_x0=float(eff[1]),
            eff_x1=float(eff[2]),
        )

    def open_gain(self) -> float:
        """How many times more light an open shutter would let in."""
        return from_db(-self._shutter_db())

    def _shutter_db(self) -> float:
        return shutter_db(self._shutter_v if self._stuck_v is None else self._stuck_v)

    def _kappa(self) -> float:
        return math.sin(self.phases()[BASIS] / 2.0) ** 2

    def _common(self) -> float:
        polarisation = self.individual.pdl_db / 2.0 * (1.0 + self.alignment)
        return from_db(self.individual.common_db + self.paths.db("input") + self._shutter_db() + polarisation)

    @staticmethod
    def _known(channel: int) -> None:
        if not 0 <= channel <= 2:
            raise ValueError(f"detector {channel} is not one of 0 to 2")
