"""What is known of the interferometer's phase, from counts that come late: filter, windows, jumps. Pure.

Each sample is taken as of when it was counted, with what the heater did then. What fits what was foretold refines it;
two windows in a row that do not are a jump, and the whole turn is read from sine and cosine at once.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from qmodd.control.kalman import Cusum, Drift, DriftFilter
from qmodd.control.phase_estimate import (
    Estimate,
    PhaseCounts,
    PilotTally,
    Sine,
    cosine,
    exchanged,
    from_dither,
    from_pilot,
    from_states,
    fuse,
    silent_output,
)
from qmodd.control.phase_types import PhaseLockConfig, Sample, wrap
from qmodd.control.phase_watch import NOTHING, Applied, LightWatch

# Innovations beyond this are not noise: standard deviations of one reading, and squared of a sine and a cosine.
GATE, GATE_2 = 6.0, 32.0
# What the model of the fringe itself may be wrong by, in its sine and in its cosine.
MODEL, MODEL_COSINE = 0.01, 0.012
# The contrast is learnt about the calibrated one, by so much a window, within these shares of it.
CONTRAST_GAIN, CONTRAST = 0.02, (0.9, 1.1)
# A phase known worse than this is read anew from the whole turn, rad.
UNCERTAIN = 0.3
# Contrast of the two quadratures below which there is no fringe to read.
LEAST_CONTRAST = 0.5
# Counts that the ratio of the two good paths is known from.
REMEMBERED_COUNTS = 200_000
# Decision between exchanged outputs and half a turn: logarithm of the likelihoods' ratio.
SURE = 10.0
# Pilot readings in a row that contradict fitting X states: the pilot's offset is not what it was.
PILOT_WRONG = 20
# Pilot readings in a row beyond what was foretold, with no X counts for as long: the pilot has to find the way alone.
PILOT_ALONE = 4


@dataclass
class Window:
    """X counts put together until they make an estimate, and sums over seconds of middle and heater."""

    counts: PhaseCounts = NOTHING
    begin_s: float = math.inf
    end_s: float = -math.inf
    middle: float = 0.0
    centre: float = 0.0

    def add(self, sample: Sample, counts: PhaseCounts, centre: float) -> None:
        self.counts = self.counts + counts
        self.begin_s, self.end_s = min(self.begin_s, sample.begin_s), max(self.end_s, sample.end_s)
        self.middle += counts.seconds * sample.middle_s
        self.centre += counts.seconds * centre

    @property
    def at(self) -> float:
        return self.middle / self.counts.seconds

    @property
    def heater(self) -> float:
        return self.centre / self.counts.seconds


class PhaseTracker:
    """`error` (rad; None: not measured since the last jump), `visibility` and when it was seen; times in s.

    `exchanged`: what was found against the detectors' cables. `squares`, `readings`: sum of the squared errors less
    their variance, and of how many, for the residual.
    """

    def __init__(self, config: PhaseLockConfig, phase_rad: float) -> None:
        self.config = config
        self.filter = DriftFilter(config.pilot_offset_rad, config.pilot_offset_sigma if config.pilot else 0.0)
        self.applied = Applied()
        self.applied.note(-math.inf, phase_rad, 0.0)
        self.error: float | None = None
        self.far = False
        self.visibility, self.visible_s = 0.0, -math.inf
        self.fresh_s = -math.inf
        self.window, self.window_s = Window(), 0.0
        self.exchanged = ""
        self.blind = ""
        self.squares, self.readings = 0.0, 0
        self._silent = ""
        self._watch = LightWatch(config.visibility_min, config.degraded_max_s)
        self._sides: dict[bool, PhaseCounts] = {}
        self._pilots: deque[tuple[Sample, PilotTally]] = deque(maxlen=50)
        self._suspect, self._pilot_suspect = 0, 0
        self._far_side = False
        self._counted_s = -math.inf
        self._cusum = {True: Cusum(), False: Cusum()}
        self._contrast = 1.0
        self._turned, self._normal = NOTHING, NOTHING
        self._ignore_until = -math.inf

    # ------------------------------------------------------------ for the lock

    def take(self, sample: Sample, searching: bool = False) -> None:
        """One more sample, in the order of time; while searching, X counts only gather in `window`."""
        if sample.counts is not None:
            self._watch.see(sample.counts)
            self._silent = silent_output(sample.counts.dx0, sample.counts.total)
        if sample.begin_s < self._ignore_until or self.unusable:
            return
        if sample.pilot is not None and min(sample.pilot.dx0, sample.pilot.dx1) > 0:
            self.fresh_s = max(self.fresh_s, sample.end_s)
            self._pilots.append((sample, sample.pilot))
            if self.filter.known and not searching:
                self._take_pilot(sample, sample.pilot)
        if sample.counts is not None and sample.counts.total:
            self.fresh_s = max(self.fresh_s, sample.end_s)
            self._counted_s = sample.end_s
            self._take_counts(sample, sample.counts, searching)

    @property
    def unusable(self) -> str:
        """Why counts of now say nothing; "" when they may be used."""
        return self.blind or self._silent or self._watch.gone

    def stale(self, now_s: float) -> str:
        """Why nothing usable has been counted lately; "" when it has."""
        if why := self.unusable:
            return why
        age = now_s - self.fresh_s
        # After a jump of its own the lock waits for counts that belong to it.
        if age <= self.config.fresh_s or now_s < self._ignore_until + self.config.fresh_s:
            return ""
        return "no counts yet" if math.isinf(age) else f"no counts for {age:.1f} s"

    def limits(self, now_s: float, share: float, margin: float) -> str:
        """Which limit is passed, "" for none; `share` of the error's, visibility with a margin."""
        c = self.config
        if why := self._suspicion():
            return why
        if self.error is None:
            return "no error measured yet"
        if abs(self.error) > share * c.error_limit:
            limit = math.degrees(share * c.error_limit)
            return f"phase error {math.degrees(self.error):+.1f} deg; {limit:.1f} deg is the limit"
        if self.visibility < c.visibility_min + margin:
            return f"visibility {self.visibility:.3f}; {c.visibility_min + margin:.3f} is the least"
        if now_s - self.visible_s > 3.0 * c.interval_max_s + c.fresh_s:
            return f"visibility last seen {now_s - self.visible_s:.0f} s ago"
        return self.unknown(now_s)

    def limited(self, config: PhaseLockConfig) -> None:
        """Other limits on the same fringe."""
        self.config = config
        self._watch.visibility_min = config.visibility_min

    def unknown(self, now_s: float) -> str:
        """The phase is not known well enough any more, having coasted; "" before it was known, too."""
        if not self.filter.known:
            return ""
        sigma = self.filter.at(now_s).sigma
        if sigma <= self.config.error_limit:
            return ""
        return f"phase known to {math.degrees(sigma):.1f} deg only"

    def jumped(self, now_s: float) -> None:
        """The heater was moved far: counts from before say nothing about after it, nor does the error before."""
        self.forget()
        self._ignore_until = now_s + self.config.settle_s
        self.error, self.far = None, False
        self._suspect = self._pilot_suspect = 0
        for cusum in self._cusum.values():
            cusum.reset()

    def forget(self) -> None:
        """Drop what has been gathered and not been used."""
        self.clear_window()
        self._pilots.clear()

    def clear_window(self) -> None:
        self.window, self._sides = Window(), {}

    def found(self, heater_rad: float, t: float) -> None:
        """Near the best place of a search."""
        self.filter.start(-heater_rad, 0.1, t)
        self.error, self.far = None, False

    def _suspicion(self) -> str:
        if self._turned.total:
            return "all X bits have turned over: half a turn of the phase, or exchanged detectors"
        return "counts do not fit the phase that was foretold" if self._suspect or self._pilot_suspect else ""

    # ------------------------------------------------------------ the pilot

    def _take_pilot(self, sample: Sample, tally: PilotTally) -> None:
        heater, _ = self.applied.mean(sample.begin_s, sample.end_s)
        seen, expected = from_pilot(tally, self.config.model), self.filter.at(sample.middle_s, reference=True)
        reading = expected.level + heater
        if not _plausible(seen, reading, expected.sigma):
            self._pilot_suspect += 1
            if self._pilot_suspect >= PILOT_ALONE and sample.begin_s - self._counted_s > PILOT_ALONE * sample.seconds:
                self._acquire_by_pilot(seen, heater, sample.middle_s)
            return
        self._pilot_suspect, self._far_side = 0, False
        off = (seen.value - math.sin(reading)) / math.cos(reading)
        variance = seen.variance / math.cos(reading) ** 2
        self._correct(expected, off, variance, sample.middle_s, reference=True)
        self._note_error(wrap(reading + off - self.filter.offset), variance)

    def _acquire_by_pilot(self, seen: Sine, heater: float, t: float) -> None:
        """The pilot alone, while no X state is counted: its sine leaves two places, tried in turn. The wrong one shows
        in the reading after the jump, or, where that is half a turn off, in the X states that are counted again."""
        near = math.asin(min(max(seen.value, -1.0), 1.0))
        error = wrap((math.pi - near if self._far_side else near) - self.filter.offset)
        self._far_side = not self._far_side
        self.filter.start(error - heater, 0.05**2, t)
        self.error, self.far = error, abs(error) > self.config.coarse_limit
        self._pilot_suspect = 0

    def _with_pilot(self, w: Window, estimate: Estimate) -> Estimate:
        """The sine of a pilot seen wholly within the window, at its offset, fused with that of the states."""
        sines, offset = [Sine(estimate.sine, estimate.sine_variance)], self.filter.offset
        for sample, tally in self._pilots:
            if sample.begin_s >= w.begin_s - 1e-3 and sample.end_s <= w.end_s + 1e-3:
                seen = from_pilot(tally, self.config.model)
                value = seen.value * math.cos(offset) - estimate.cosine * math.sin(offset)
                sines.append(Sine(value, seen.variance + MODEL**2))
        both = fuse(sines)
        return Estimate(both.value, both.variance, estimate.cosine, estimate.cosine_variance)

    # ------------------------------------------------------------ the X states

    def _take_counts(self, sample: Sample, counts: PhaseCounts, searching: bool) -> None:
        heater, dither = self.applied.mean(sample.begin_s, sample.end_s)
        c, w = self.config, self.window
        if c.dithering and not searching:
            if abs(dither) < 0.8 * c.dither_rad:
                return  # counted partly on one side and partly on the other
            self._sides[dither > 0.0] = self._sides.get(dither > 0.0, NOTHING) + counts
        w.add(sample, counts, heater)
        complete = w.counts.total >= c.counts_min or w.counts.seconds >= c.interval_max_s
        if not searching and (complete or self._telling(w)):
            self._evaluate(w)

    def _telling(self, w: Window) -> bool:
        """A lost fringe shows in the visibility long before the counts make a fine estimate."""
        if w.counts.total < 60 or not self.filter.known:
            return False
        value, variance = cosine(w.counts, self.config.model)
        return value < math.cos(self.config.coarse_limit) - GATE * math.sqrt(variance)

    def _evaluate(self, w: Window) -> None:
        """One complete window: as foretold by the filter, or a jump."""
        estimate = self._estimate(w)
        if estimate is None:
            return
        self.visibility, self.visible_s, self.window_s = w.counts.visibility, w.end_s, w.end_s - w.begin_s
        expected = self.filter.at(w.at) if self.filter.known else None
        if expected is None or expected.sigma > UNCERTAIN:
            self._acquire(w, estimate)
            return
        error = wrap(expected.level + w.heater)
        if self._surprise(estimate, error, expected.sigma) < GATE_2:
            self._fits(w, estimate, error, expected)
        else:
            self._surprised(w, estimate, error)

    def _surprise(self, estimate: Estimate, error: float, sigma: float) -> float:
        """How far sine and cosine are from what was foretold, squared, in their standard deviations."""
        s, c = math.sin(error), self._contrast * math.cos(error)
        of_sine = estimate.sine_variance + (c * sigma) ** 2 + MODEL**2
        of_cosine = estimate.cosine_variance + (s * sigma) ** 2 + sigma**4 / 2.0 + MODEL_COSINE**2
        return (estimate.sine - s) ** 2 / of_sine + (estimate.cosine - c) ** 2 / of_cosine

    def _fits(self, w: Window, estimate: Estimate, error: float, expected: Drift) -> None:
        self._suspect, self._turned = 0, NOTHING
        if self._pilot_suspect >= PILOT_WRONG:
            self.filter.forget_offset(UNCERTAIN)
            self._pilot_suspect = 0
        off, variance = self._correction(estimate, error)
        self._correct(expected, off, variance, w.at, reference=False)
        whole = estimate.cosine / max(math.cos(error), 0.5)
        self._contrast += CONTRAST_GAIN * (min(max(whole, CONTRAST[0]), CONTRAST[1]) - self._contrast)
        self._note_error(error + off, variance)
        self._remember(w.counts)
        self.clear_window()

    def _correction(self, estimate: Estimate, error: float) -> tuple[float, float]:
        """How far the error is from the foretold one, by sine and cosine about that, and the variance, rad, rad^2."""
        s, c = math.sin(error), math.cos(error)
        by_sine, by_cosine = c / estimate.sine_variance, -s / (estimate.cosine_variance + MODEL_COSINE**2)
        information = c * by_sine - s * by_cosine
        off = by_sine * (estimate.sine - s) + by_cosine * (estimate.cosine / self._contrast - c)
        return off / information, 1.0 / information

    def _correct(self, expected: Drift, off: float, variance: float, t: float, reference: bool) -> None:
        """Into the filter; what it keeps falling behind makes it forget how sure it was."""
        sigma = math.sqrt(variance + expected.sigma**2)
        shift = self._cusum[reference].see(off / sigma)
        if shift is not None:
            self.filter.open_up((shift * sigma) ** 2)
        self.filter.update(expected.level + off, variance, t, reference)

    def _estimate(self, w: Window) -> Estimate | None:
        c = self.config
        if c.dithering:
            sides = [self._sides.get(side, NOTHING) for side in (True, False)]
            if min(n.total for n in sides) < 0.3 * w.counts.total:
                return None
            return from_dither(sides[0], sides[1], c.dither_rad, c.model)
        if w.counts.n_x0 <= 0 or w.counts.n_x1 <= 0:
            return None
        return from_states(w.counts, c.model)

    def _surprised(self, w: Window, estimate: Estimate, foretold: float) -> None:
        """The first window of a jump may hold counts from before it, so the second one decides."""
        self._suspect += 1
        if self._suspect < 2 or self._turned_over(w, estimate, foretold):
            self.clear_window()
            return
        self._acquire(w, estimate)

    def _acquire(self, w: Window, estimate: Estimate) -> None:
        """The whole turn from one window."""
        estimate = self._with_pilot(w, estimate)
        self.error, self.far = estimate.angle, True
        if estimate.contrast < LEAST_CONTRAST:
            self.clear_window()
            return
        if not estimate.decided and w.counts.seconds < 3.0 * self.config.interval_max_s:
            return  # more counts will tell the sign
        self.filter.start(estimate.angle - w.heater, max(estimate.angle_variance, 1e-4), w.at)
        self.far = abs(estimate.angle) > self.config.coarse_limit
        self._suspect, self._pilot_suspect, self._turned = 0, 0, NOTHING
        self.clear_window()

    def _turned_over(self, w: Window, estimate: Estimate, foretold: float) -> bool:
        """All bits turned over at once: half a turn of the phase, or the detectors' cables. True: exchanged, or not
        decided yet."""
        half = abs(wrap(estimate.angle - foretold - math.pi)) < 0.4
        opposite = half and estimate.cosine < -0.7 and abs(foretold) < 0.3
        if not opposite or self._normal.total < 1000:
            return False
        self._turned = self._turned + w.counts
        score = exchanged(self._normal, self._turned, self.config.efficiency_ratio)
        if score > SURE:
            self.exchanged = (
                f"detectors DX0 and DX1 look exchanged: QBER_X {self._turned.qber:.3f}, and what tells it from half a "
                f"turn of the phase says so (log likelihood ratio {score:.0f}; {SURE:g} is the limit)"
            )
            return True
        return score > -SURE and self._turned.seconds < self.config.exchanged_max_s

    def _remember(self, counts: PhaseCounts) -> None:
        n = self._normal + counts
        if n.total > REMEMBERED_COUNTS:
            n = n.halved()
        self._normal = n

    def _note_error(self, measured: float, variance: float) -> None:
        self.error = measured if self.error is None else 0.6 * self.error + 0.4 * measured
        self.far = abs(self.error) > self.config.coarse_limit
        self.squares += measured * measured - variance
        self.readings += 1


def _plausible(seen: Sine, reading: float, sigma: float) -> bool:
    """A pilot's sine on the slope of its fringe, as foretold."""
    spread = seen.variance + (math.cos(reading) * sigma) ** 2 + MODEL**2
    return (seen.value - math.sin(reading)) ** 2 < GATE**2 * spread and math.cos(reading) > 0.3
