"""Interferometer phase lock: a pure state machine about a drift filter (reference control B6, B7, D, pair A5).

A bright pilot where there is one, else the difference of error between the two X states, which is signed and costs
nothing, else a dither tells the error; all are fused by their variances in one filter of level and slope. Counts come
late: each is taken as of when it was counted, and the output is set for the time when it will act.

"Locked" means that all its conditions hold at the time of asking: output not at its rail, error and visibility within
limits, phase known well enough, counts fresh, heater under control, and that they had held for the dwell.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

from qmodd.control import phase_stages
from qmodd.control.phase_estimate import PhaseCounts
from qmodd.control.phase_search import FOUND_SHARE, Search
from qmodd.control.phase_stages import Conditions
from qmodd.control.phase_tracker import PhaseTracker
from qmodd.control.phase_types import Action, Facts, LockReport, PhaseLockConfig, Sample, Stage, wrap

__all__ = ["Action", "Facts", "LockReport", "PhaseCounts", "PhaseLock", "PhaseLockConfig", "Sample", "Stage"]

RECALIBRATE = "recalibrate_fringe"
# A move of the heater larger than this is a jump: counts from before it do not count, rad.
JUMP = 0.2
# Stages whose reason is what stands against being locked.
REASONED = frozenset({Stage.WARM_UP, Stage.LOCKED, Stage.HOLD, Stage.DEGRADED, Stage.FAULT})
# Windows that a lock may be off before it counts as lost: one of the jump, one that decides, one that confirms, one.
LOST_WINDOWS = 4.0
# Time constant of the residual in readings, so that the past is forgotten.
RESIDUAL_READINGS = 20_000


class PhaseLock:
    """Turns the phase by a heater, in rad from where it began. Time is monotonic seconds.

    After each `update` the caller says by `applied` where the heater really is.
    """

    def __init__(self, config: PhaseLockConfig, phase_rad: float = 0.0) -> None:
        self.wraps = 0
        self.relocks = 0
        self.attempts = 0
        self.latched = ""
        self.history: deque[tuple[float, str, str]] = deque(maxlen=64)
        self._next_request_s = -math.inf
        self._squares, self._readings = 0.0, 0.0
        self._reset(config, phase_rad)

    def _reset(self, config: PhaseLockConfig, phase_rad: float) -> None:
        self.config = config
        self.tracker = PhaseTracker(config, phase_rad)
        self._centre = self._good_centre = phase_rad
        self._side = 1.0
        self._stage, self._why = Stage.WARM_UP, "no counts yet"
        self._facts = Facts()
        self._good_since: float | None = None
        self._bad_since: float | None = None
        self._saturated = False
        self._search: Search | None = None
        self._found = ""

    def recalibrated(self, config: PhaseLockConfig, phase_rad: float = 0.0) -> None:
        """A new fringe: start again from its place. What is latched stays latched."""
        self._reset(config, phase_rad)

    def limited(self, config: PhaseLockConfig) -> None:
        """Other limits on the same fringe: what is known of it stays."""
        self.config = config
        self.tracker.limited(config)

    def latch(self, why: str) -> None:
        """Given up, or found given up from before a restart."""
        self.latched = why

    def clear_latch(self) -> None:
        """By command only: go on from where the heater is."""
        self.latched, self.attempts, self._next_request_s = "", 0, -math.inf
        self._reset(self.config, self._centre)

    def update(self, now_s: float, samples: Sequence[Sample] = (), facts: Facts = Facts()) -> Action:
        """All that has arrived since the last call, and what is known besides."""
        self._facts, self._found = facts, ""
        self.tracker.blind = facts.blind
        request = None
        if self.latched or facts.temperature:
            self.tracker.forget()
        else:
            for sample in sorted(samples, key=lambda s: s.end_s):
                self.tracker.take(sample, self._search is not None)
            if self.tracker.exchanged:
                self.latch(self.tracker.exchanged)
            if self._search is not None and not (facts.actuator or facts.leased):
                request = self._look(now_s, self._search)
        self._keep_residual()
        self._judge(now_s)
        hop = self._steer(now_s)
        return Action(self._output(), hop, request, self._stage)

    def applied(self, now_s: float, phase_rad: float) -> None:
        """The heater is there from now on; what it did not do when told, it has not done."""
        dither = self._dither()
        self.tracker.applied.note(now_s, phase_rad - dither, dither)

    def report(self, now_s: float) -> LockReport:
        """Judged anew for now: what was true at the last update may not be so any more."""
        tracker, because = self.tracker, self._unlocked_because(now_s)
        drift = tracker.filter.at(now_s) if tracker.filter.known else None
        return LockReport(
            stage=self._stage,
            locked=self._stage is Stage.LOCKED and not because,
            why=self._present_reason(now_s, because),
            error_rad=tracker.error or 0.0,
            sigma_rad=drift.sigma if drift else math.pi,
            visibility=tracker.visibility,
            power_w=0.0,
            saturated=self._saturated,
            dithering=self.config.dithering,
            wraps=self.wraps,
            relocks=self.relocks,
            attempts=self.attempts,
            age_s=now_s - tracker.fresh_s,
            drift_rad_per_s=drift.slope if drift else 0.0,
            residual_rms_rad=math.sqrt(max(0.0, self._squares / self._readings)) if self._readings else 0.0,
            phase_rad=self._output(),
            latched=self.latched,
        )

    # ------------------------------------------------------------ stages

    def _judge(self, now_s: float) -> None:
        """Through the table until it stands still, each stage at most once."""
        conditions, seen = self._conditions(now_s), set[Stage]()
        while self._stage not in seen:
            seen.add(self._stage)
            target, why = phase_stages.step(self._stage, conditions)
            if target is not self._stage:
                self._enter(now_s, target, why)

    def _conditions(self, now_s: float) -> Conditions:
        c, f, tracker = self.config, self._facts, self.tracker
        stale, bad, poor = self.tracker.stale(now_s), self._bad(now_s, 1.0, 0.0), ""
        poor = bad or self._bad(now_s, c.entry_share, c.visibility_entry)
        usable = not (stale or f.actuator or f.leased or f.temperature)
        self._good_since = _since(self._good_since, usable and not poor, now_s)
        # An error that has not been measured yet proves nothing: the clock of a loss goes on, but does not start.
        unmeasured = usable and tracker.error is None and not self._saturated
        if not unmeasured:
            self._bad_since = _since(self._bad_since, usable and bool(bad), now_s)
        return Conditions(
            latched=self.latched,
            temperature=f.temperature,
            actuator=f.actuator,
            leased=f.leased,
            stale=stale,
            sigma=tracker.unknown(now_s),
            known=tracker.filter.known,
            far=tracker.far,
            bad=bad,
            poor=poor,
            good_s=0.0 if self._good_since is None else now_s - self._good_since,
            bad_s=0.0 if self._bad_since is None else now_s - self._bad_since,
            dwell_s=c.dwell_s,
            degraded_max_s=max(c.degraded_max_s, LOST_WINDOWS * tracker.window_s),
            found=self._found,
        )

    def _enter(self, now_s: float, stage: Stage, why: str) -> None:
        self._stage, self._why = stage, why
        self.history.append((now_s, str(stage), why))
        self._bad_since = None if stage is Stage.RELOCK else self._bad_since
        self._search = None
        if stage is Stage.RELOCK:
            self.relocks += 1
            self._begin_search(now_s)
        elif stage is Stage.LOCKED:
            self.attempts = 0

    def _unlocked_because(self, now_s: float) -> str:
        """Why it is not locked at this time, whatever the stage says; "" when every condition holds."""
        f = self._facts
        against = self.latched or f.temperature or f.leased or f.actuator
        return against or self.tracker.stale(now_s) or self._bad(now_s, 1.0, 0.0)

    def _present_reason(self, now_s: float, because: str) -> str:
        """The reason of now where the stage's own may be an old one."""
        if self._stage is Stage.DEGRADED and self.tracker.stale(now_s):
            return self.tracker.unknown(now_s) or because
        return because if because and self._stage in REASONED else self._why

    def _bad(self, now_s: float, share: float, margin: float) -> str:
        if self._saturated:
            return f"heater at its rail ({self._centre:+.2f} rad)"
        return self.tracker.limits(now_s, share, margin)

    def _keep_residual(self) -> None:
        """Of the time locked only."""
        tracker = self.tracker
        if self._stage is Stage.LOCKED and tracker.readings:
            keep = max(0.0, 1.0 - tracker.readings / RESIDUAL_READINGS)
            self._squares = keep * self._squares + tracker.squares
            self._readings = keep * self._readings + tracker.readings
        tracker.squares, tracker.readings = 0.0, 0

    # ------------------------------------------------------------ relock

    def _look(self, now_s: float, search: Search) -> str | None:
        """One place of the search, once its counts are together."""
        tracker, c = self.tracker, self.config
        w = tracker.window
        if w.counts.total < c.counts_min and w.counts.seconds < c.interval_max_s:
            return None
        visibility = w.counts.visibility
        tracker.visibility, tracker.visible_s = visibility, w.end_s
        found = search.see(visibility, self._centre)
        if found is not None:
            self._centre = self._nearest(found[1])
            tracker.found(self._centre, now_s)
            tracker.jumped(now_s)
            self._found = f"found again at visibility {found[0]:.3f}"
            return None
        if search.place is not None:
            self._seek(now_s, search)
            return None
        request = self._ask(now_s, search)
        self._begin_search(now_s)
        return request

    def _begin_search(self, now_s: float) -> None:
        self._search = Search(self._good_centre, self.config.visibility_min, FOUND_SHARE * self.config.visibility)
        self._seek(now_s, self._search)

    def _ask(self, now_s: float, search: Search) -> str | None:
        """The known fringe does not fit any more: a full sweep, with a pause that doubles, then a latched fault.

        In the pauses the search goes on.
        """
        if now_s < self._next_request_s:
            wait = self._next_request_s - now_s
            self._why = f"searching; next sweep in {wait:.0f} s; best visibility {search.best:.3f}"
            return None
        if self.attempts >= self.config.attempts_max:
            self.latch(f"not found in {self.attempts} sweeps; best visibility {search.best:.3f}")
            return None
        self.attempts += 1
        self._next_request_s = now_s + self.config.recalibrate_after_s * 2.0**self.attempts
        self._why = f"best visibility {search.best:.3f} of the search; asking for the whole fringe"
        return RECALIBRATE

    def _seek(self, now_s: float, search: Search) -> None:
        if search.place is not None:
            self._centre = self._nearest(search.place)
        self.tracker.jumped(now_s)

    # ------------------------------------------------------------ the actuator

    def _steer(self, now_s: float) -> int:
        """Set the output for the middle of the time it will stand; turns hopped at the end of the range."""
        self._side = -self._side
        following = self._stage in phase_stages.FOLLOWING or self._stage is Stage.HOLD
        if not following or not self.tracker.filter.known or self._facts.leased:
            return 0
        c = self.config
        wanted = -self.tracker.filter.at(now_s + 0.5 * c.period_s).level
        step = wrap(wanted - self._centre)
        target, hop = self._within(self._centre + step)
        self._saturated = not c.low_rad <= target <= c.high_rad
        self._centre = min(max(target, c.low_rad), c.high_rad)
        if hop or abs(step) > JUMP:
            self.tracker.jumped(now_s)
        if self._stage is Stage.LOCKED:
            self._good_centre = self._centre
        return hop

    def _within(self, target: float) -> tuple[float, int]:
        """A target beyond the edge of the range, hopped by a turn where that lands well inside: (target, turns)."""
        c = self.config
        edge = c.wrap_share * (c.high_rad - c.low_rad)
        low, high = c.low_rad + edge, c.high_rad - edge
        if low <= target <= high:
            return target, 0
        turn = 1 if target < low else -1
        landing = target + turn * 2.0 * math.pi
        # Well inside, or noise would send it back at once.
        if not low + 0.5 * edge <= landing <= high - 0.5 * edge:
            return target, 0
        self.wraps += 1
        return landing, turn

    def _nearest(self, place: float) -> float:
        """The same phase within the range, nearest to where the heater is."""
        c = self.config
        turns = [place + 2.0 * math.pi * k for k in range(-2, 3)]
        inside = [p for p in turns if c.low_rad <= p <= c.high_rad]
        return min(inside, key=lambda p: abs(p - self._centre)) if inside else self._centre

    def _dither(self) -> float:
        c = self.config
        quiet = self._stage in (Stage.WARM_UP, Stage.RELOCK, Stage.FAULT)
        return self._side * c.dither_rad if c.dithering and not quiet else 0.0

    def _output(self) -> float:
        c = self.config
        return min(max(self._centre + self._dither(), c.low_rad), c.high_rad)


def _since(before: float | None, holds: bool, now_s: float) -> float | None:
    """Since when something has held."""
    if not holds:
        return None
    return now_s if before is None else before
