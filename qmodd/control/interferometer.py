"""Filter and input coupler of the transmitter while keys are made: small corrections, by light that is there anyway."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from calibration.context import CalibrationContext
from qmodd.control.diodes import Diodes
from qmodd.control.facts import Fact, LoopFault, Railed
from qmodd.control.reference import DriftFilter, log_ratio

# Walk of a balanced coupler (reference pair A7: 0.05 degrees in a minute), twice that; alignment; smallest correction.
SPLIT_DRIFT, SPLIT_START, SPLIT_STEP = math.radians(0.013), math.radians(0.1), math.radians(0.1)


def peak_error(plus: float, minus: float, centre: float, dither_rad: float) -> float:
    """Phase (rad) from the peak of T = (1 + cos d)/2, from readings at d and to both sides.

    Raises ValueError where the curvature says that this is no peak.
    """
    curvature = 2.0 * centre - plus - minus
    if curvature <= 0.0:
        raise ValueError("no peak at the set point: the light does not fall to both sides")
    return math.atan2((minus - plus) * (1.0 - math.cos(dither_rad)) / math.sin(dither_rad), curvature)


@dataclass
class FilterPeakLoop:
    """Holds the filter at its peak: PA0 over PA6 tells without touching anything when light is lost (d^2/4 of it), and
    only then A0 is dithered for three readings of a few ms, which moves the die by less than 0.1 mK.

    Raises LoopFault when the heater has moved by more than `limit_rad` from its record, or when PA0 is dark.
    """

    context: CalibrationContext
    active: Callable[[], bool]
    lost: float = 0.004
    dither_rad: float = 0.15
    limit_rad: float = 1.0
    samples: int = 64
    loss: float = field(default=0.0, init=False)
    error_rad: float = field(default=0.0, init=False)
    corrections: int = field(default=0, init=False)
    diodes: Diodes = field(init=False)
    _best: float = field(default=0.0, init=False)
    _version: int = field(default=0, init=False)
    _low: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.diodes = Diodes(self.context, ("pa0", "pa6"))

    def facts(self) -> tuple[Fact, ...]:
        return self.diodes.facts

    async def step(self, now_s: float) -> None:
        record = self.context.store.active("filter_peak")
        if not self.active() or record is None:
            self._best, self._low = 0.0, 0
            self.diodes.restart()
            return
        if record.version != self._version:
            self._version, self._best = record.version, 0.0
        seen = await self.diodes.read(now_s, self.samples)
        if seen is None:
            return
        if seen["pa6"] <= 0.0 or seen["pa0"] <= 1e-3 * seen["pa6"]:
            raise LoopFault(f"no light behind the filter: pa0 {seen['pa0']:.2g} A, pa6 {seen['pa6']:.2g} A")
        ratio = seen["pa0"] / seen["pa6"]
        if self._best == 0.0:
            self._best = ratio
        self.loss = 1.0 - ratio / self._best
        self._low = self._low + 1 if self.loss > self.lost else 0
        if self._low >= 3:
            await self._correct(record.value["p_pi_w"], record.value["power_w"])
            self._best, self._low = 0.0, 0

    async def _correct(self, p_pi_w: float, calibrated_w: float) -> None:
        drive = self.context.drive
        at = drive.power("filter")
        span = min(self.dither_rad * p_pi_w / math.pi, at)
        plus, centre, minus = [await self._read(at + k * span) for k in (1.0, 0.0, -1.0)]
        try:
            self.error_rad = peak_error(plus, minus, centre, span * math.pi / p_pi_w)
        except ValueError as e:
            await drive.set_power("filter", at)
            raise LoopFault(f"filter: {e}") from e
        wanted = at - self.error_rad * p_pi_w / math.pi
        if abs(wanted - calibrated_w) * math.pi / p_pi_w > self.limit_rad:
            await drive.set_power("filter", at)
            raise Railed(
                "filter",
                f"filter: its peak has moved {1e3 * (wanted - calibrated_w):+.2f} mW from its calibration; "
                f"{1e3 * self.limit_rad * p_pi_w / math.pi:.2f} mW is the limit",
            )
        await drive.set_power("filter", max(wanted, 0.0))
        self.corrections += 1

    async def _read(self, watts: float) -> float:
        await self.context.drive.set_power("filter", watts)
        await self.context.settle()
        seen = await self.context.photocurrents("pa0", "pa6", samples=self.samples)
        return seen["pa0"] / seen["pa6"]


def split_slope_per_w(value: Mapping[str, float]) -> float:
    """d ln(E/L)/dP of the input coupler at its set point, 1/W, from its identified fringe: E goes with cos^2(x/2) and L
    with sin^2(x/2), so that d ln(E/L)/dx = -2/sin x."""
    x = value["phi0_rad"] + math.pi * value["power_w"] / value["p_pi_w"]
    return -2.0 / math.sin(x) * math.pi / value["p_pi_w"]


@dataclass
class SplitTrim:
    """Holds the input coupler A1 by the receiver's public counts: n(early)/n(late) = 1 - 2 d (reference pair A5).

    Public counts can be shaped from outside. What that buys here is bounded by the calibration: the coupler never
    leaves it by more than `limit_rad`, within which early and late pulses are equal to 2 limit_rad, and it tells
    nothing: which slots are early is not in the ratio, a loss of early light that is not the source's shows as an
    asymmetry that the receiver has to bear anyway, and both states of X keep equal brightness whatever the split.
    At the limit the trim stops and says so. `DriftFilter` tells the error from what the receiver adds to the ratio.
    """

    log_slope_per_w: float
    p_pi_w: float
    power_w: float
    write: Callable[[float], Awaitable[None]]
    limit_rad: float = 0.035
    watts: float = field(init=False)
    filter: DriftFilter = field(init=False)
    railed: Railed | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.watts = self.power_w
        # The ratio goes with 2 d: everything here is in units of the ratio.
        self.filter = DriftFilter(2.0 * SPLIT_DRIFT, 2.0 * SPLIT_START)

    @property
    def error(self) -> float:
        """Relative error of n(early)/n(late), as far as the counts tell it."""
        return self.filter.error_rad

    def facts(self) -> tuple[Fact, ...]:
        return () if self.railed is None else (self.railed,)

    async def add(self, early: int, late: int, seconds: float) -> None:
        """Counts of some seconds."""
        if early <= 0 or late <= 0:
            return
        self.filter.read(*log_ratio(early, late), seconds)
        error = self.filter.error_rad
        if abs(error) < max(self.filter.sigma_rad, 2.0 * SPLIT_STEP):
            return
        reach = self.limit_rad * self.p_pi_w / math.pi
        wanted = self.watts - error / self.log_slope_per_w
        watts = min(max(wanted, self.power_w - reach), self.power_w + reach)
        self.railed = None
        if watts != wanted:
            self.railed = Railed(
                "split", f"input coupler at the end of its trim, {1e3 * (watts - self.power_w):+.2f} mW: calibrate it"
            )
        if watts != self.watts:
            self.filter.moved(self.log_slope_per_w * (watts - self.watts))
            self.watts = watts
            await self.write(watts)
