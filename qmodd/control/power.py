"""Laser power and wavelength, and the mean photon number, while keys are made."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from calibration.context import CalibrationContext
from calibration.names import INTENSITIES, STATES
from calibration.record import Record
from drivers.errors import OutOfRange
from drivers.roles import LaserReading, Pilot
from qmodd.control.diodes import Diodes
from qmodd.control.facts import Fact, LoopFault, Railed


def expected_average(
    record: Record, p_x: float, p_decoy: float, pilot: Pilot | None = None, background: float = 0.0
) -> float:
    """PA3's current (A) in KEY mode by a mean_photon record; see `class_average`."""
    return class_average(record.value, p_x, p_decoy, pilot, background)


def class_average(
    currents: Mapping[str, float], p_x: float, p_decoy: float, pilot: Pilot | None = None, background: float = 0.0
) -> float:
    """Mean over the classes of KEY mode, `i_<state>_<intensity>_a` by name, and over the pilot's slots.

    `background` is the share of a signal's reading that flows between the slots' windows (record decoy): a pilot is
    brighter in its own light only.
    """
    total = 0.0
    for s, state in enumerate(STATES):
        basis = p_x if s >= 2 else 1.0 - p_x
        for k, intensity in enumerate(INTENSITIES):
            total += 0.5 * basis * (p_decoy if k else 1.0 - p_decoy) * currents[f"i_{state}_{intensity}_a"]
    if pilot is None:
        return total
    signal = 0.5 * (currents["i_z0_signal_a"] + currents["i_z1_signal_a"])
    bright = signal * (background + pilot.gain * (1.0 - background))
    return total + (bright - total) / pilot.every


def trim_step(measured: float, expected: float, trim_db: float, gain: float, limit_db: float) -> tuple[float, bool]:
    """Next trim of an attenuator (dB) so that measured light gives the expected mean, and whether it railed."""
    wanted_db = 10.0 * math.log10(measured / expected)
    moved = trim_db + gain * (wanted_db - trim_db)
    return min(max(moved, -limit_db), limit_db), abs(wanted_db) > limit_db


@dataclass
class MeanPhotonLoop:
    """Holds the mean photon number against laser and modulator drift: PA3 in KEY mode, trim on the attenuator.

    `keying` tells whether the light is what PA3's expected average stands for. Raises LoopFault when the trim would
    have to leave its range: then the intensity intervals of the record no longer hold.
    """

    context: CalibrationContext
    keying: Callable[[], bool]
    probabilities: Callable[[], tuple[float, float]]
    pilot: Callable[[], Pilot | None] = lambda: None
    gain: float = 0.3
    limit_db: float = 1.0
    trim_db: float = field(default=0.0, init=False)
    relative_error: float = field(default=0.0, init=False)
    diodes: Diodes = field(init=False)

    def __post_init__(self) -> None:
        self.diodes = Diodes(self.context, ("pa3",))

    def facts(self) -> tuple[Fact, ...]:
        return self.diodes.facts

    async def step(self, now_s: float) -> None:
        record = self.context.store.active("mean_photon")
        table = self.context.factory.voa
        if not self.keying() or record is None or table is None:
            self.diodes.restart()
            return
        reading = await self.diodes.read(now_s, 16)
        if reading is None:
            return
        seen = reading["pa3"]
        decoy = self.context.store.active("decoy")
        background = decoy.value.get("background", 0.0) if decoy else 0.0
        expected = expected_average(record, *self.probabilities(), self.pilot(), background)
        if seen <= 0.01 * expected:
            raise LoopFault(
                f"pa3 sees {seen:.2g} A in KEY mode, {expected:.2g} A is expected: laser, filter or modulators"
            )
        self.trim_db, beyond = trim_step(seen, expected, self.trim_db, self.gain, self.limit_db)
        self.relative_error = seen / expected * 10.0 ** (-self.trim_db / 10.0) - 1.0
        if beyond:
            raise Railed(
                "attenuator",
                f"mean photon number cannot be held: pa3 {10 * math.log10(seen / expected):+.2f} dB off; "
                f"{self.limit_db:.1f} dB is the range",
            )
        try:
            volts = table.voltage(record.value["voa_db"] + self.trim_db)
        except ValueError as e:
            raise Railed("attenuator", f"mean photon number cannot be held: {e}") from e
        await self.context.biases.set_voltage("voa", volts)


def emitting(reading: LaserReading) -> LaserReading:
    """Raises LoopFault when the laser is dark."""
    if not reading.emitting:
        alarms = ", ".join(reading.alarms) or f"status 0x{reading.status:04X}"
        raise LoopFault(
            f"the laser does not emit: {reading.power_dbm:.2f} dBm read back; that it emits is the limit ({alarms})"
        )
    return reading


@dataclass
class LaserPowerLoop:
    """Holds the laser's power at the tap before everything else (PA6), within a small range about the configured power.

    Raises LoopFault when it is dark or the range is used up.
    """

    context: CalibrationContext
    active: Callable[[], bool]
    gain: float = 0.3
    range_db: float = 0.5
    step_db: float = 0.02
    trim_db: float = field(default=0.0, init=False)
    diodes: Diodes = field(init=False)
    _reference_a: float | None = field(default=None, init=False)
    _written_db: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self.diodes = Diodes(self.context, ("pa6",))

    def facts(self) -> tuple[Fact, ...]:
        return self.diodes.facts

    async def step(self, now_s: float) -> None:
        if not self.active():
            self._reference_a = None
            self.diodes.restart()
            return
        laser = self.context.need_laser()
        emitting(await laser.read())
        reading = await self.diodes.read(now_s, 16)
        if reading is None:
            return
        seen = reading["pa6"]
        if self._reference_a is None:
            self._reference_a = seen
        if seen <= 0.1 * self._reference_a:
            raise LoopFault(
                f"tap pa6 sees {seen:.2g} A instead of {self._reference_a:.2g} A although the laser says on; a tenth "
                "is the limit"
            )
        off_db = 10.0 * math.log10(seen / self._reference_a)
        self.trim_db -= self.gain * off_db
        if abs(self.trim_db) > self.range_db:
            raise Railed(
                "laser power",
                f"laser power cannot be held: {self.trim_db:+.2f} dB of correction, {self.range_db} dB is the range",
            )
        # The laser knows 0.01 dB steps; smaller corrections wait until they add up.
        if abs(self.trim_db - self._written_db) >= self.step_db:
            await laser.set_power(self.context.settings.laser_power_dbm + self.trim_db)
            self._written_db = self.trim_db


@dataclass
class LaserWavelengthLoop:
    """Holds the laser's frequency by its own wavelength reader and fine tuning (reference pair A5: 1.8 mdeg/MHz at the
    interferometers' mismatch of 5 ps).

    Small steps, each at most `step_hz`: the receiver's phase lock follows 0.1 degrees without noticing. A reader that
    moves less than `dead_hz` is left alone: it tells whole megahertz. Raises LoopFault at the end of the range.
    """

    context: CalibrationContext
    active: Callable[[], bool]
    gain: float = 0.5
    dead_hz: float = 2e6
    step_hz: float = 50e6
    range_hz: float = 3e9
    error_hz: float = field(default=0.0, init=False)
    fine_hz: float = field(default=0.0, init=False)
    _began: bool = field(default=False, init=False)

    async def step(self, now_s: float) -> None:
        if not self.active():
            # A new session sets the channel anew, and with it the fine tuning to nothing.
            self._began = False
            return
        if not self._began:
            self._began, self.fine_hz = True, 0.0
        laser, wanted = self.context.need_laser(), self.context.settings.laser_frequency_hz
        self.error_hz = emitting(await laser.read()).frequency_hz - wanted
        if abs(self.error_hz) <= self.dead_hz:
            return
        move = min(max(-self.gain * self.error_hz, -self.step_hz), self.step_hz)
        # Whole megahertz, and never none: the smallest step takes the smallest error away.
        move = math.copysign(max(1e6, round(abs(move) / 1e6) * 1e6), move)
        if abs(self.fine_hz + move) > self.range_hz:
            raise Railed(
                "laser fine tuning",
                f"laser frequency cannot be held: {self.error_hz / 1e6:+.0f} MHz off at {self.fine_hz / 1e6:+.0f} MHz "
                f"of fine tuning; {self.range_hz / 1e6:.0f} MHz is the range",
            )
        try:
            await laser.set_fine_hz(self.fine_hz + move)
        except OutOfRange as e:
            raise Railed("laser fine tuning", f"laser frequency cannot be held: {e}") from e
        self.fine_hz += move
