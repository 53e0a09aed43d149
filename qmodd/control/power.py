"""Laser power, mean photon number and modulator bias while keys are made."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from calibration.context import CalibrationContext
from calibration.names import INTENSITIES, STATES
from calibration.record import Record
from qmodd.control.loop import LoopFault


def expected_average(record: Record, p_x: float, p_decoy: float) -> float:
    """PA3's current (A) in KEY mode: the mean over the classes of a mean_photon record."""
    total = 0.0
    for s, state in enumerate(STATES):
        basis = p_x if s >= 2 else 1.0 - p_x
        for k, intensity in enumerate(INTENSITIES):
            total += 0.5 * basis * (p_decoy if k else 1.0 - p_decoy) * record.value[f"i_{state}_{intensity}_a"]
    return total


def trim_step(measured: float, expected: float, trim_db: float, gain: float, limit_db: float) -> tuple[float, bool]:
    """Next trim of an attenuator (dB) so that measured light gives the expected mean, and whether it railed."""
    wanted_db = 10.0 * math.log10(measured / expected)
    moved = trim_db + gain * (wanted_db - trim_db)
    return min(max(moved, -limit_db), limit_db), abs(wanted_db) > limit_db


def bias_error(plus: float, minus: float, centre: float, dither_rad: float) -> float:
    """Phase (rad) from a modulator's null, from readings at the bias and a dither to both sides (reference control B5).

    I(d) = B + A (1 - cos d)/2: the difference goes with sin d, the curvature with cos d; both with A, which drops out.
    Raises ValueError where the curvature says that this is no minimum.
    """
    curvature = plus + minus - 2.0 * centre
    if curvature <= 0.0:
        raise ValueError("no minimum at the bias: the light does not rise to both sides")
    return math.atan2((plus - minus) * (1.0 - math.cos(dither_rad)) / math.sin(dither_rad), curvature)


@dataclass
class MeanPhotonLoop:
    """Holds the mean photon number against laser and modulator drift: PA3 in KEY mode, trim on the attenuator.

    `keying` tells whether the light is what PA3's expected average stands for. Raises LoopFault when the trim would
    have to leave its range: then the intensity intervals of the record no longer hold.
    """

    context: CalibrationContext
    keying: Callable[[], bool]
    probabilities: Callable[[], tuple[float, float]]
    gain: float = 0.3
    limit_db: float = 1.0
    trim_db: float = field(default=0.0, init=False)
    relative_error: float = field(default=0.0, init=False)

    async def step(self, now_s: float) -> None:
        record = self.context.store.active("mean_photon")
        table = self.context.factory.voa
        if not self.keying() or record is None or table is None:
            return
        seen = (await self.context.photocurrents("pa3", samples=16))["pa3"]
        expected = expected_average(record, *self.probabilities())
        if seen <= 0.01 * expected:
            raise LoopFault(
                f"pa3 sees {seen:.2g} A in KEY mode, {expected:.2g} A is expected: laser, filter or modulators"
            )
        self.trim_db, beyond = trim_step(seen, expected, self.trim_db, self.gain, self.limit_db)
        self.relative_error = seen / expected * 10.0 ** (-self.trim_db / 10.0) - 1.0
        if beyond:
            raise LoopFault(
                f"mean photon number cannot be held: pa3 {10 * math.log10(seen / expected):+.2f} dB off; "
                f"{self.limit_db:.1f} dB is the range"
            )
        try:
            volts = table.voltage(record.value["voa_db"] + self.trim_db)
        except ValueError as e:
            raise LoopFault(f"mean photon number cannot be held: {e}") from e
        await self.context.biases.set_voltage("voa", volts)


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
    _reference_a: float | None = field(default=None, init=False)
    _written_db: float = field(default=0.0, init=False)

    async def step(self, now_s: float) -> None:
        if not self.active():
            self._reference_a = None
            return
        laser = self.context.need_laser()
        reading = await laser.read()
        if not reading.emitting:
            alarms = ", ".join(reading.alarms) or f"status 0x{reading.status:04X}"
            raise LoopFault(f"the laser does not emit ({alarms})")
        seen = (await self.context.photocurrents("pa6", samples=16))["pa6"]
        if self._reference_a is None:
            self._reference_a = seen
        if seen <= 0.1 * self._reference_a:
            raise LoopFault(
                f"tap pa6 sees {seen:.2g} A instead of {self._reference_a:.2g} A although the laser says on"
            )
        off_db = 10.0 * math.log10(seen / self._reference_a)
        self.trim_db -= self.gain * off_db
        if abs(self.trim_db) > self.range_db:
            raise LoopFault(
                f"laser power cannot be held: {self.trim_db:+.2f} dB of correction, {self.range_db} dB is the range"
            )
        # The laser knows 0.01 dB steps; smaller corrections wait until they add up.
        if abs(self.trim_db - self._written_db) >= self.step_db:
            await laser.set_power(self.context.settings.laser_power_dbm + self.trim_db)
            self._written_db = self.trim_db


@dataclass
class CarverNullLoop:
    """Holds C at its null by a small dither on PA1, which sees it in the light of keys (reference pair A2).

    Three readings take about 10 ms; the dither of 3 % V_pi leaks 0.4 % of QBER_X for that time only.
    """

    context: CalibrationContext
    active: Callable[[], bool]
    gain: float = 0.4
    dither: float = 0.03
    limit_rad: float = 1.0
    error_rad: float = field(default=0.0, init=False)
    _volts: float = field(default=0.0, init=False)
    _version: int = field(default=0, init=False)

    async def step(self, now_s: float) -> None:
        record = self.context.store.active("carver_bias")
        if not self.active() or record is None:
            return
        v_pi, null = record.value["v_pi_v"], record.value["null_v"]
        if record.version != self._version:
            self._version, self._volts = record.version, null
        # What was found stays the place to start from over a pause: the null has drifted there.
        volts = self._volts
        plus, centre, minus = [await self._read(volts + k * self.dither * v_pi) for k in (1.0, 0.0, -1.0)]
        try:
            self.error_rad = bias_error(plus, minus, centre, math.pi * self.dither)
        except ValueError as e:
            await self.context.biases.set_voltage("carver", volts)
            raise LoopFault(f"carver: {e}") from e
        volts -= self.gain * self.error_rad * v_pi / math.pi
        await self.context.biases.set_voltage("carver", volts)
        self._volts = volts
        if abs(volts - null) * math.pi / v_pi > self.limit_rad:
            raise LoopFault(
                f"carver: the null has moved {volts - null:+.2f} V from its calibration; "
                f"{self.limit_rad * v_pi / math.pi:.2f} V is the limit"
            )

    async def _read(self, volts: float) -> float:
        await self.context.biases.set_voltage("carver", volts)
        await self.context.settle()
        return (await self.context.photocurrents("pa1", samples=16))["pa1"]


@dataclass
class StateBiasTrim:
    """Holds S at its null by the public counts of both X states: Q(X0)/Q(X1) = 1 + sin d (reference pair A5).

    X0 and X1 leave by different detectors, whose efficiencies differ: the ratio right after a calibration is the
    reference, and only its change is an error. Pure but for the one write.
    """

    slope_per_v: float
    null_v: float
    write: Callable[[float], Awaitable[None]]
    gain: float = 0.5
    sigma_max: float = 0.025
    limit_v: float = 0.6
    volts: float = field(init=False)
    error: float = field(default=0.0, init=False)
    _reference: float | None = field(default=None, init=False)
    _n0: int = field(default=0, init=False)
    _n1: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.volts = self.null_v

    async def add(self, n_x0: int, n_x1: int) -> None:
        """Counts of one batch. Acts when enough have come together. Raises LoopFault at the end of its range."""
        self._n0 += n_x0
        self._n1 += n_x1
        if not self._n0 or not self._n1 or math.sqrt(1 / self._n0 + 1 / self._n1) > self.sigma_max:
            return
        ratio = math.log(self._n0 / self._n1)
        self._n0 = self._n1 = 0
        if self._reference is None:
            self._reference = ratio
            return
        self.error = ratio - self._reference
        self.volts -= self.gain * self.error / self.slope_per_v
        if abs(self.volts - self.null_v) > self.limit_v:
            raise LoopFault(
                f"state modulator: bias moved {self.volts - self.null_v:+.2f} V, {self.limit_v} V is the limit"
            )
        await self.write(self.volts)


@dataclass
class DecoyBiasTrim:
    """Holds D at its peak by the receiver's public Z gains of both intensities (reference pair A5: mu2/mu1).

    For each intensity the gain is 1 - exp(-eta mu), so mu2/mu1 = ln(1 - Q2)/ln(1 - Q1) whatever the link; at 10 dB the
    acceptance rule leaves 0.3 % in it. The intensities of the record hold only while the ratio does: it is held, and a
    ratio that cannot be held ends the service.
    """

    slope_per_v: float
    peak_v: float
    ratio: float
    share: Callable[[int], float]
    write: Callable[[float], Awaitable[None]]
    gain: float = 0.7
    sigma_max: float = 0.006
    limit_v: float = 0.6
    ratio_limit: float = 0.03
    volts: float = field(init=False)
    error: float = field(default=0.0, init=False)
    _live: int = field(default=0, init=False)
    _n: list[int] = field(default_factory=lambda: [0, 0], init=False)
    _bad: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.volts = self.peak_v

    async def add(self, live_slots: int, n_signal: int, n_decoy: int) -> None:
        """Counts of one batch; `share(k)` is the probability that a live slot is sent in Z with intensity k.

        Acts when enough have come together. Raises LoopFault when the ratio cannot be held.
        """
        self._live += live_slots
        self._n[0] += n_signal
        self._n[1] += n_decoy
        if not all(self._n) or math.sqrt(1 / self._n[0] + 1 / self._n[1]) > self.sigma_max:
            return
        q = [min(n / (self._live * self.share(k)), 0.999) for k, n in enumerate(self._n)]
        self._live, self._n = 0, [0, 0]
        self.error = math.log(math.log1p(-q[1]) / math.log1p(-q[0]) / self.ratio)
        self._bad = self._bad + 1 if abs(self.error) > self.ratio_limit else 0
        self.volts -= self.gain * self.error / self.slope_per_v
        if self._bad > 5 or abs(self.volts - self.peak_v) > self.limit_v:
            raise LoopFault(
                f"decoy modulator: ratio of the intensities {100 * self.error:+.1f} % from its calibration at "
                f"{self.volts - self.peak_v:+.2f} V of correction; the limits are {100 * self.ratio_limit:.0f} % and "
                f"{self.limit_v} V"
            )
        await self.write(self.volts)


@dataclass
class SourceMonitor:
    """Watches the mean power in KEY mode with the module's own photodiodes, which nobody outside reaches: PA3 over PA0.

    The decoy's bias follows public gains, which an eavesdropper can change; what she could do to the intensities with
    that shows here. `weight` is the decoy's share of the mean power, `held` how far the decoy intensity may be off (the
    key length is minimised over that, too), `margin` what the other modulators may do to the mean.
    Raises LoopFault when it is more.
    """

    context: CalibrationContext
    keying: Callable[[], bool]
    weight: float
    held: float
    margin: float = 0.003
    change: float = field(default=0.0, init=False)
    _reference: float | None = field(default=None, init=False)
    _bad: int = field(default=0, init=False)

    async def step(self, now_s: float) -> None:
        if not self.keying():
            return
        seen = await self.context.photocurrents("pa3", "pa0", samples=32)
        ratio = seen["pa3"] / seen["pa0"]
        if self._reference is None:
            self._reference = ratio
        self.change = ratio / self._reference - 1.0
        limit = self.weight * self.held + self.margin
        self._bad = self._bad + 1 if abs(self.change) > limit else 0
        if self._bad >= 3:
            raise LoopFault(
                f"mean power after the modulators is {100 * self.change:+.2f} % from where it was trimmed; "
                f"{100 * limit:.2f} % is what the intensities' intervals hold"
            )
