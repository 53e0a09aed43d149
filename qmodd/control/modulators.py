"""Bias of the transmitter's modulators while keys are made: carver by dither, decoy by the module's own photodiodes.

And a watch on what the receiver sees of the decoys. The state modulator is `probe`'s.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import numpy as np

from calibration.context import CalibrationContext
from calibration.dither import BiasPhase, bias_phase, harmonics, waveform
from calibration.fit import FitRefused
from calibration.noise import reading_noise
from qmodd.control.diodes import Diodes
from qmodd.control.facts import Fact, LoopFault, Railed

CARVER_DITHER = 0.03


async def carver_error(context: CalibrationContext, volts: float, v_pi: float, samples: int) -> BiasPhase:
    """C's phase from its null, rad, by one period of dither on PA1; the bias is back at `volts` afterwards.

    Eight readings, first and second harmonic (reference control B5): their ratio gives the phase whatever the power.
    Raises LoopFault where there is no null or no light.
    """
    wave, y = waveform(), []
    for w in wave:
        await context.biases.set_voltage("carver", volts + float(w) * CARVER_DITHER * v_pi)
        await context.settle()
        y.append((await context.photocurrents("pa1", samples=samples))["pa1"])
    await context.biases.set_voltage("carver", volts)
    seen = np.array(y)
    try:
        h = harmonics(seen, reading_noise(context).sigma("pa1", seen, samples), len(wave))
        found = bias_phase(h, math.pi * CARVER_DITHER)
    except FitRefused as e:
        raise LoopFault(f"carver: {e}") from e
    if found.kind != "null":
        raise LoopFault("carver: no null at the bias: the light does not rise to both sides")
    return found


@dataclass
class CarverNullLoop:
    """Holds C at its null by a small dither on PA1, which sees it in the light of keys (reference pair A2).

    A dither takes about 40 ms and leaks 0.2 % of QBER_X for that time only; with the null well held only every `rests`
    step takes one. C's leak passes the decoy modulator like any light, so an error of 3 degrees would also make the
    decoy lock see 0.3 % more mean power.
    """

    context: CalibrationContext
    active: Callable[[], bool]
    gain: float = 0.7
    limit_rad: float = 1.0
    samples: int = 8
    well_rad: float = math.radians(0.7)
    rests: int = 3
    error_rad: float = field(default=0.0, init=False)
    sigma_rad: float = field(default=0.0, init=False)
    _volts: float = field(default=0.0, init=False)
    _version: int = field(default=0, init=False)
    # As good as never dithered: the first step does.
    _rested: int = field(default=1_000, init=False)

    def begin(self, volts: float) -> None:
        """Where the null was found last; the loop goes on from there."""
        record = self.context.record("carver_bias")
        self._version, self._volts, self._rested = record.version, volts, 0

    async def step(self, now_s: float) -> None:
        record = self.context.store.active("carver_bias")
        if not self.active() or record is None:
            return
        v_pi, null = record.value["v_pi_v"], record.value["null_v"]
        if record.version != self._version:
            self.begin(null)
            self._rested = self.rests
        self._rested += 1
        if abs(self.error_rad) < self.well_rad and self._rested < self.rests:
            return
        self._rested = 0
        # What was found stays the place to start from over a pause: the null has drifted there.
        found = await carver_error(self.context, self._volts, v_pi, self.samples)
        self.error_rad, self.sigma_rad = found.rad, found.sigma
        self._volts -= self.gain * self.error_rad * v_pi / math.pi
        await self.context.biases.set_voltage("carver", self._volts)
        if abs(self._volts - null) * math.pi / v_pi > self.limit_rad:
            raise Railed(
                "carver",
                f"carver: the null has moved {self._volts - null:+.2f} V from its calibration; "
                f"{self.limit_rad * v_pi / math.pi:.2f} V is the limit",
            )


@dataclass
class DecoyLock:
    """Holds D at its peak by the mean power behind the modulators over that before them, PA3/PA0, in KEY mode.

    Nobody outside reaches these photodiodes; public gains, which an eavesdropper shapes by choosing what to let pass,
    move nothing here. The decoy's T = cos^2((theta_d + d)/2) goes with D's bias in first order, the signal's only in
    second: of a change of the mean, `weight` (the decoy's share of it) is a change of the ratio.
    `expected` is PA3/PA0 from the calibration: what eight classes read in FIX mode give in the mixture of KEY mode.

    What else moves the mean: the state bias (X0 alone grows with sin d_S: p_X/2 of it), the input coupler and the
    carver. `probed` takes that out: the ratio itself, as the source's probe has just measured it, corrects `expected`.
    Raises LoopFault when the ratio cannot be held.
    """

    context: CalibrationContext
    keying: Callable[[], bool]
    expected: float
    weight: float
    slope_per_v: float
    peak_v: float
    write: Callable[[float], Awaitable[None]]
    gain: float = 0.3
    samples: int = 64
    limit_v: float = 0.6
    ratio_limit: float = 0.03
    volts: float = field(init=False)
    error: float = field(default=0.0, init=False)
    mean_error: float = field(default=0.0, init=False)
    diodes: Diodes = field(init=False)
    _bad: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if not 0.0 < self.weight < 1.0 or self.slope_per_v == 0.0 or self.expected <= 0.0:
            raise ValueError(f"decoy lock: weight {self.weight}, slope {self.slope_per_v}, expected {self.expected}")
        self.volts = self.peak_v
        self.diodes = Diodes(self.context, ("pa3", "pa0"))

    def facts(self) -> tuple[Fact, ...]:
        return self.diodes.facts

    def probed(self, ratio_error: float, gain: float = 0.7) -> None:
        """The relative error of the ratio, measured class by class: from now on the mean stands for that."""
        wrong = gain * (self.mean_error - ratio_error)
        self.expected *= 1.0 + self.weight * wrong
        self.mean_error -= wrong

    async def step(self, now_s: float) -> None:
        if not self.keying():
            self.diodes.restart()
            return
        seen = await self.diodes.read(now_s, self.samples)
        if seen is None:
            return
        if seen["pa0"] <= 0.0 or seen["pa3"] <= 0.0:
            raise LoopFault(
                f"decoy modulator: pa3 {seen['pa3']:.2g} A, pa0 {seen['pa0']:.2g} A: no light to hold it by"
            )
        self.error = (seen["pa3"] / seen["pa0"] / self.expected - 1.0) / self.weight
        self.mean_error += 0.2 * (self.error - self.mean_error)
        self._bad = self._bad + 1 if abs(self.error) > self.ratio_limit else 0
        volts = self.volts - self.gain * self.error / self.slope_per_v
        if self._bad > 5 or abs(volts - self.peak_v) > self.limit_v:
            raise Railed(
                "decoy",
                f"decoy modulator: ratio of the intensities {100 * self.error:+.1f} % from its calibration at "
                f"{volts - self.peak_v:+.2f} V of correction; the limits are {100 * self.ratio_limit:.0f} % and "
                f"{self.limit_v} V",
            )
        self.volts = volts
        await self.write(volts)


@dataclass
class DecoyMonitor:
    """Watches the receiver's public Z gains of both intensities; it moves nothing and can only stop the service.

    For each intensity the gain is 1 - exp(-eta mu), so mu2/mu1 = ln(1 - Q2)/ln(1 - Q1) whatever the link; at 10 dB the
    acceptance rule leaves 0.3 % in it (reference pair A5). Against honest drift it confirms the lock; an eavesdropper
    who treats signals and decoys unlike shows here, and in the key's length.
    """

    ratio: float
    share: Callable[[int], float]
    sigma_max: float = 0.006
    ratio_limit: float = 0.04
    error: float = field(default=0.0, init=False)
    _live: int = field(default=0, init=False)
    _n: list[int] = field(default_factory=lambda: [0, 0], init=False)
    _bad: int = field(default=0, init=False)

    def add(self, live_slots: int, n_signal: int, n_decoy: int) -> None:
        """Counts of one batch; `share(k)` is the probability that a live slot is sent in Z with intensity k.

        Judges when enough have come together. Raises LoopFault when the ratio is off six times in a row.
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
        if self._bad > 5:
            raise LoopFault(
                f"the receiver sees the ratio of the intensities {100 * self.error:+.1f} % from its calibration; "
                f"{100 * self.ratio_limit:.0f} % is the limit: modulators, or somebody on the fibre"
            )
