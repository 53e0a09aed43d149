"""Interferometer phase lock from public X counts: a pure state machine and its law (reference control B6, B7, pair A5).

e(X1) - e(X0) = V sin(xi) sin(err) is signed and costs no light; where xi is too small the heater dithers on alternate
intervals. "Locked" means that all its conditions hold now: output not railed, error within its limit, visibility above
its limit, fresh data, and that they have held for the dwell.
"""

from __future__ import annotations

import math
from dataclasses import replace

from qmodd.control.kalman import ScalarKalman
from qmodd.control.phase_estimate import Estimate, PhaseCounts, from_dither, from_states
from qmodd.control.phase_types import Action, LockReport, PhaseLockConfig, Stage

__all__ = ["Action", "LockReport", "PhaseCounts", "PhaseLock", "PhaseLockConfig", "Stage"]


# Local search about the last good place, nearest first, then round the fringe (rad).
SEARCH = (0.4, -0.4, 0.8, -0.8, 1.3, -1.3, 1.9, -1.9, 2.5, -2.5, math.pi)
NOTHING = PhaseCounts(0.0, 0, 0, 0, 0)
RECALIBRATE = "recalibrate_fringe"


class PhaseLock:
    """One number a call comes out: the heater's power. Time is monotonic seconds."""

    def __init__(self, config: PhaseLockConfig, power_w: float) -> None:
        self.wraps = 0
        self.relocks = 0
        self.attempts = 0
        self._next_request_s = -math.inf
        self._reset(config, power_w)

    def _reset(self, config: PhaseLockConfig, power_w: float) -> None:
        self.config = config
        self._centre_w = power_w
        self._kalman = ScalarKalman(1.0, config.drift)
        self._sum = NOTHING
        self._plus: PhaseCounts | None = None
        self._side = 1.0
        self._stage = Stage.WARM_UP
        self._why = "no counts yet"
        self._error = 0.0
        self._visibility = 0.0
        self._good = 0
        self._last_s: float | None = None
        self._fresh_s: float | None = None
        self._bad_since: float | None = None
        self._ignore_until = -math.inf
        self._search: list[tuple[float, float]] = []
        self._search_centre_w = power_w
        self._saturated = False
        self._fresh = False

    def recalibrated(self, config: PhaseLockConfig, power_w: float) -> None:
        """A new fringe: start again from its power. Also the way out of a fault."""
        if self._stage is Stage.FAULT:
            self.attempts = 0
        self._reset(config, power_w)

    def update(
        self,
        now_s: float,
        counts: PhaseCounts | None,
        *,
        fresh: bool = True,
        actuator_ok: bool = True,
        ready: bool = True,
    ) -> Action:
        """Counts since the last call (None: none). `fresh` False: they are too old to act on; `ready` False: the
        temperature is not stable; `actuator_ok` False: the last write of the heater failed."""
        dt = 0.0 if self._last_s is None else max(0.0, now_s - self._last_s)
        self._last_s = now_s
        self._kalman.predict(dt)
        if self._stage is Stage.FAULT:
            return self._act(None, None)
        if not ready:
            self._enter(Stage.WARM_UP, "temperature not stable")
            return self._act(None, None)
        if not actuator_ok:
            self._enter(Stage.DEGRADED, "the heater's last write failed")
            return self._act("heater not under control", None)
        self._fresh = fresh
        usable = counts is not None and fresh and now_s >= self._ignore_until
        if usable and counts is not None and counts.total:
            self._sum = self._sum + counts
            self._fresh_s = now_s
            if self._stage in (Stage.WARM_UP, Stage.HOLD):
                self._enter(Stage.COARSE if self._stage is Stage.WARM_UP else Stage.FINE, "counts have come")
        elif now_s >= self._ignore_until:
            self._starve(now_s)
        if self._stage is Stage.RELOCK:
            return self._relock(now_s)
        return self._follow(now_s)

    def report(self) -> LockReport:
        locked = self._stage is Stage.LOCKED and self._fresh and not self._unlocked_because()
        return LockReport(
            stage=self._stage,
            locked=locked,
            why=self._why,
            error_rad=self._error,
            sigma_rad=self._kalman.sigma,
            visibility=self._visibility,
            power_w=self._output(),
            saturated=self._saturated,
            dithering=self.config.dithering,
            wraps=self.wraps,
            relocks=self.relocks,
            attempts=self.attempts,
        )

    # ------------------------------------------------------------ following the phase

    def _follow(self, now_s: float) -> Action:
        estimate = self._estimate()
        if estimate is None:
            return self._act(None, None)
        self._visibility = estimate.visibility
        far = abs(estimate.error) > self.config.coarse_limit
        if estimate.decided:
            jumped = self._kalman.open_up(estimate.error, estimate.variance)
            correction = 0.8 * estimate.error if far else self._kalman.update(estimate.error, estimate.variance)
            fresh_start = far or jumped or abs(self._error) > self.config.error_limit
            self._error = estimate.error if fresh_start else 0.6 * self._error + 0.4 * estimate.error
            flag = self._move(-correction, now_s)
        else:
            flag = None
            self._error = estimate.error
        self._judge(now_s, estimate)
        return self._act(flag, None)

    def _estimate(self) -> Estimate | None:
        """From what has come together, once it says something; what it rests on is then used up."""
        c, n = self.config, self._sum
        if n.total < c.counts_min and n.seconds < c.interval_max_s:
            return None
        if not c.dithering:
            if n.n_x0 == 0 or n.n_x1 == 0:
                return None
            found = from_states(n, c.model)
            # A large error shows in the visibility long before its sign is known: that must not wait.
            telling = found.variance <= c.informative**2 or abs(found.error) > c.coarse_limit
            if not telling and n.seconds < c.interval_max_s:
                return None
            if found.decided or n.seconds >= 3.0 * c.interval_max_s:
                self._sum = NOTHING
            return found
        if n.total == 0:
            return None
        return self._other_side(n)

    def _other_side(self, n: PhaseCounts) -> Estimate | None:
        """Dither: the second interval of a pair gives an estimate. Counts still on their way belong to the old side."""
        c = self.config
        self._sum = NOTHING
        self._ignore_until = (self._last_s or 0.0) + c.settle_s
        self._side = -self._side
        if self._plus is None:
            self._plus = n
            return None
        # The first of the pair was taken on the side where the second was not.
        first, self._plus = self._plus, None
        plus, minus = (first, n) if self._side > 0 else (n, first)
        return from_dither(plus, minus, c.dither_rad, c.model)

    def _judge(self, now_s: float, estimate: Estimate) -> None:
        because = self._unlocked_because()
        if not because:
            self._good += 1
            self._bad_since = None
            if self._good >= self.config.dwell and self._stage is not Stage.LOCKED:
                self._enter(Stage.LOCKED, f"within limits for {self.config.dwell} intervals")
                self.attempts = 0
            elif self._stage in (Stage.COARSE, Stage.DEGRADED):
                self._enter(Stage.FINE, "within limits, dwelling")
            return
        self._good = 0
        if self._stage is Stage.LOCKED:
            self._enter(Stage.DEGRADED, because)
        self._why = because
        if self._bad_since is None:
            self._bad_since = now_s
        if now_s - self._bad_since > self.config.degraded_max_s:
            self._start_search(now_s, because)

    def _unlocked_because(self) -> str:
        c = self.config
        if self._saturated:
            return f"heater at its rail ({self._output() * 1e3:.1f} mW)"
        if abs(self._error) > c.error_limit:
            return (
                f"phase error {math.degrees(self._error):+.1f} deg; {math.degrees(c.error_limit):.1f} deg is the limit"
            )
        if self._kalman.sigma > c.error_limit:
            return f"phase known to {math.degrees(self._kalman.sigma):.1f} deg only"
        if self._visibility < c.visibility_min:
            return f"visibility {self._visibility:.3f}; {c.visibility_min:.2f} is the least"
        return ""

    def _starve(self, now_s: float) -> None:
        """Coast on the last output while counts are few; say so at once where they are overdue."""
        if self._fresh_s is None:
            return
        age = now_s - self._fresh_s
        if self._stage in (Stage.LOCKED, Stage.FINE, Stage.COARSE) and age > self.config.fresh_s:
            self._enter(Stage.HOLD, f"no counts for {age:.0f} s, coasting")
        if self._stage is Stage.HOLD and age > self.config.hold_max_s:
            self._enter(Stage.DEGRADED, f"no counts for {age:.0f} s")

    # ------------------------------------------------------------ relock

    def _start_search(self, now_s: float, why: str) -> None:
        self.relocks += 1
        self._enter(Stage.RELOCK, why)
        self._search_centre_w = self._centre_w
        self._search = []
        self._seek(now_s, 0.0)

    def _relock(self, now_s: float) -> Action:
        n = self._sum
        flag = "relock in progress"
        if now_s < self._ignore_until or n.total < self.config.counts_min:
            return self._act(flag, None)
        self._visibility = n.visibility
        self._search.append((self._visibility, self._centre_w))
        done = len(self._search) > len(SEARCH) or self._visibility >= self.config.visibility_min
        if not done:
            self._seek(now_s, SEARCH[len(self._search) - 1])
            return self._act(flag, None)
        best, self._centre_w = max(self._search)
        self._clear(now_s)
        if best >= math.cos(0.5):
            self._error, self._bad_since = 0.0, None
            self._enter(Stage.FINE, f"found again at visibility {best:.3f}")
            return self._act(flag, None)
        return self._ask(now_s, flag, best)

    def _ask(self, now_s: float, flag: str, best: float) -> Action:
        """The known fringe does not fit any more: a full sweep, with a pause that doubles, then a latched fault."""
        self._search = []
        if now_s < self._next_request_s:
            self._why = (
                f"waiting {self._next_request_s - now_s:.0f} s before the next sweep; best visibility {best:.3f}"
            )
            return self._act(flag, None)
        if self.attempts >= self.config.attempts_max:
            self._enter(Stage.FAULT, f"not found in {self.attempts} sweeps; best visibility {best:.3f}")
            return self._act(flag, None)
        self.attempts += 1
        self._next_request_s = now_s + self.config.recalibrate_after_s * 2.0**self.attempts
        self._why = f"best visibility {best:.3f} of the local search; asking for the whole fringe"
        return self._act(flag, RECALIBRATE)

    def _seek(self, now_s: float, offset: float) -> None:
        c = self.config
        wanted = self._search_centre_w + offset * c.p_pi_w / math.pi
        for candidate in (wanted, wanted - 2 * c.p_pi_w, wanted + 2 * c.p_pi_w):
            if c.low_w <= candidate <= c.high_w:
                self._centre_w = candidate
                break
        self._clear(now_s)

    # ------------------------------------------------------------ the actuator

    def _move(self, phase: float, now_s: float) -> str | None:
        """Move the output by a phase; over the edge, hop by 2 P_pi. Returns why the interval is flagged, if it is."""
        c = self.config
        edge = c.wrap_share * (c.high_w - c.low_w)
        wanted = self._centre_w + phase * c.p_pi_w / math.pi
        low, high = c.low_w + edge, c.high_w - edge
        flag = None
        if not low <= wanted <= high:
            hopped = wanted + (2 if wanted < low else -2) * c.p_pi_w
            # The landing must be well inside, or noise would send it back at once.
            if low + 0.5 * edge <= hopped <= high - 0.5 * edge:
                wanted, flag = hopped, "wrap by 2 P_pi"
                self.wraps += 1
        self._saturated = not c.low_w <= wanted <= c.high_w
        wanted = min(max(wanted, c.low_w), c.high_w)
        if flag or abs(wanted - self._centre_w) * math.pi / c.p_pi_w > 0.2:
            self._clear(now_s)
        self._centre_w = wanted
        return flag

    def _clear(self, now_s: float) -> None:
        """Counts from before a jump say nothing about after it."""
        self._sum = NOTHING
        self._plus = None
        self._ignore_until = now_s + self.config.settle_s

    def _output(self) -> float:
        c = self.config
        if not c.dithering or self._stage in (Stage.WARM_UP, Stage.RELOCK, Stage.FAULT):
            return self._centre_w
        return min(max(self._centre_w + self._side * c.dither_rad * c.p_pi_w / math.pi, c.low_w), c.high_w)

    def _enter(self, stage: Stage, why: str) -> None:
        if stage is not self._stage:
            self._good = 0
            if stage is not Stage.DEGRADED:
                self._bad_since = None
        self._stage, self._why = stage, why

    def _act(self, flag: str | None, request: str | None) -> Action:
        return replace(Action(self._output()), flag=flag, request=request, stage=self._stage)
