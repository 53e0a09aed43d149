"""The phase lock's stages and the one table of how they follow each other (reference control B7).

Every row names where it starts, where it leads, and the condition, which gives its reason; the first row that fits is
taken. Hysteresis and dwell are in the conditions: `bad` is judged against the limits, `poor` against the tighter ones
for entry, `good_s` is how long the latter have been kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from qmodd.control.phase_types import Stage

ANY = frozenset(Stage)
ALIVE = ANY - {Stage.FAULT}
WORKING = ALIVE - {Stage.WARM_UP}
FOLLOWING = frozenset({Stage.COARSE, Stage.FINE, Stage.LOCKED, Stage.DEGRADED})


@dataclass(frozen=True)
class Conditions:
    """What holds now; texts are reasons, "" where there is none.

    latched: given up. temperature, actuator, leased: as in Facts. stale: no counts that could be used. sigma: coasted
    so long that the phase is not known. known: a level has been measured. far: beyond what the fine law follows. bad: a
    limit is passed; poor: not within the limits of entry. good_s, bad_s: for how long not poor, for how long bad.
    found: a search has ended with success (reason).
    """

    latched: str = ""
    temperature: str = ""
    actuator: str = ""
    leased: str = ""
    stale: str = ""
    sigma: str = ""
    known: bool = False
    far: bool = False
    bad: str = ""
    poor: str = ""
    good_s: float = 0.0
    bad_s: float = 0.0
    dwell_s: float = 1.0
    degraded_max_s: float = 10.0
    found: str = ""

    @property
    def usable(self) -> bool:
        """Counts come, and the heater obeys."""
        return not (self.stale or self.actuator or self.leased)


When = Callable[[Conditions], str]


@dataclass(frozen=True)
class Transition:
    """From one of `sources` to `target` when `when` gives a reason."""

    sources: frozenset[Stage]
    target: Stage
    when: When

    def fits(self, stage: Stage, c: Conditions) -> str:
        if stage is self.target or stage not in self.sources:
            return ""
        return self.when(c)


def _if(condition: Callable[[Conditions], bool], why: str) -> When:
    return lambda c: why if condition(c) else ""


def _dwelt(c: Conditions) -> str:
    if c.poor or not c.usable or c.good_s < c.dwell_s:
        return ""
    return f"within limits for {c.good_s:.1f} s"


def _counting(c: Conditions) -> bool:
    return c.usable and not c.temperature


def _lost(c: Conditions) -> str:
    return c.bad if c.usable and c.bad_s > c.degraded_max_s else ""


def _is(*stages: Stage) -> frozenset[Stage]:
    return frozenset(stages)


TABLE: tuple[Transition, ...] = (
    # What stands against everything else.
    Transition(ANY, Stage.FAULT, lambda c: c.latched),
    Transition(_is(Stage.FAULT), Stage.WARM_UP, _if(lambda c: not c.latched, "latch cleared")),
    Transition(WORKING, Stage.WARM_UP, lambda c: c.temperature),
    Transition(WORKING, Stage.HOLD, lambda c: c.leased),
    Transition(WORKING, Stage.DEGRADED, lambda c: "" if c.leased else c.actuator),
    # Coasting, as long as the phase is known; beyond that it is not held any more.
    Transition(WORKING, Stage.DEGRADED, lambda c: c.sigma if c.stale and not c.leased else ""),
    Transition(WORKING - {Stage.DEGRADED}, Stage.HOLD, lambda c: c.stale),
    # Acquisition.
    Transition(_is(Stage.WARM_UP, Stage.HOLD), Stage.COARSE, _if(_counting, "counts have come")),
    Transition(_is(Stage.RELOCK), Stage.FINE, lambda c: c.found),
    Transition(FOLLOWING, Stage.RELOCK, _lost),
    Transition(_is(Stage.FINE, Stage.DEGRADED), Stage.COARSE, _if(lambda c: c.usable and c.far, "phase far off")),
    Transition(_is(Stage.COARSE), Stage.FINE, _if(lambda c: c.known and not c.far, "near, dwelling")),
    Transition(_is(Stage.FINE), Stage.LOCKED, _dwelt),
    Transition(_is(Stage.LOCKED), Stage.DEGRADED, lambda c: c.bad),
    Transition(_is(Stage.DEGRADED), Stage.FINE, _if(lambda c: c.usable and not c.poor, "within limits again")),
)


def step(stage: Stage, c: Conditions) -> tuple[Stage, str]:
    """The stage after one look at the table and the reason; the same stage and "" where no row fits."""
    for row in TABLE:
        if why := row.fits(stage, c):
            return row.target, why
    return stage, ""
