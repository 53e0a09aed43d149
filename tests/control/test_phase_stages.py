"""The table of the lock's stages, on its own: every path, dwell and hysteresis."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from qmodd.control.phase_stages import TABLE, Conditions, step
from qmodd.control.phase_types import Stage

GOOD = Conditions(known=True, good_s=5.0)
WHY = st.sampled_from(["", "a reason"])


def settle(stage: Stage, c: Conditions) -> Stage:
    for _ in range(8):
        after, why = step(stage, c)
        if after is stage:
            assert why == ""
            return stage
        assert why
        stage = after
    raise AssertionError(f"{stage} does not come to rest under {c}")


@given(
    stage=st.sampled_from(list(Stage)),
    c=st.builds(
        Conditions,
        latched=WHY,
        temperature=WHY,
        actuator=WHY,
        leased=WHY,
        stale=WHY,
        sigma=WHY,
        known=st.booleans(),
        far=st.booleans(),
        bad=WHY,
        poor=WHY,
        good_s=st.sampled_from([0.0, 5.0]),
        bad_s=st.sampled_from([0.0, 50.0]),
        found=WHY,
    ),
)
def test_rest_and_what_it_means(stage: Stage, c: Conditions) -> None:
    """Whatever holds, the table comes to rest or to a search, and never rests in LOCKED against a condition."""
    if c.bad and not c.poor:
        c = replace(c, poor=c.bad)
    seen = [stage]
    while len(seen) < 12:
        after, _ = step(seen[-1], c)
        if after is seen[-1]:
            break
        seen.append(after)
    if seen[-1] is Stage.LOCKED:
        assert not any((c.latched, c.temperature, c.actuator, c.leased, c.stale, c.bad))
    if c.latched:
        assert seen[-1] is Stage.FAULT
    elif c.temperature:
        assert seen[-1] is Stage.WARM_UP
    elif c.leased:
        assert seen[-1] in (Stage.HOLD, Stage.WARM_UP)


def test_the_way_up_and_its_dwell() -> None:
    assert settle(Stage.WARM_UP, replace(GOOD, temperature="cold")) is Stage.WARM_UP
    assert settle(Stage.WARM_UP, replace(GOOD, stale="no counts yet")) is Stage.WARM_UP
    assert settle(Stage.WARM_UP, replace(GOOD, known=False, poor="p", good_s=0.0)) is Stage.COARSE
    assert settle(Stage.COARSE, replace(GOOD, far=True, poor="p", good_s=0.0)) is Stage.COARSE
    assert settle(Stage.COARSE, replace(GOOD, good_s=0.9)) is Stage.FINE
    assert settle(Stage.FINE, replace(GOOD, good_s=0.9)) is Stage.FINE
    assert settle(Stage.FINE, GOOD) is Stage.LOCKED


def test_hysteresis() -> None:
    between = replace(GOOD, poor="7 degrees; 5.6 is the limit", good_s=0.0)
    assert settle(Stage.LOCKED, between) is Stage.LOCKED
    assert settle(Stage.FINE, between) is Stage.FINE
    assert settle(Stage.DEGRADED, between) is Stage.DEGRADED
    bad = replace(between, bad="9 degrees; 8 is the limit")
    assert settle(Stage.LOCKED, bad) is Stage.DEGRADED
    assert settle(Stage.LOCKED, replace(bad, bad_s=11.0)) is Stage.RELOCK
    assert settle(Stage.DEGRADED, replace(GOOD, good_s=0.1)) is Stage.FINE


def test_coasting_and_search() -> None:
    stale = replace(GOOD, stale="no counts for 3 s")
    assert settle(Stage.LOCKED, stale) is Stage.HOLD
    assert settle(Stage.RELOCK, stale) is Stage.HOLD
    assert settle(Stage.HOLD, replace(stale, sigma="known to 9 deg only")) is Stage.DEGRADED
    assert settle(Stage.DEGRADED, replace(stale, sigma="known to 9 deg only", bad_s=99.0)) is Stage.DEGRADED
    assert settle(Stage.HOLD, replace(GOOD, good_s=0.0)) is Stage.FINE
    assert settle(Stage.RELOCK, replace(GOOD, good_s=0.0, bad="b", poor="b")) is Stage.RELOCK
    assert settle(Stage.RELOCK, replace(GOOD, good_s=0.0, found="at 0.95")) is Stage.FINE
    assert settle(Stage.FAULT, replace(GOOD, good_s=0.0)) is Stage.FINE


class Life(RuleBasedStateMachine):
    """Conditions come and go one at a time; the stage never contradicts them."""

    def __init__(self) -> None:
        super().__init__()
        self.stage, self.c = Stage.WARM_UP, Conditions(stale="no counts yet", bad="none", poor="none")

    def _now(self, **changes: object) -> None:
        c = replace(self.c, **changes)  # type: ignore[arg-type]
        if c.bad and not c.poor:
            c = replace(c, poor=c.bad)
        good = 0.0 if c.poor or not c.usable or c.temperature else c.good_s + 0.6
        bad = c.bad_s + 4.0 if c.bad and c.usable else 0.0
        self.c = replace(c, good_s=good, bad_s=bad)
        for _ in range(8):
            after, _ = step(self.stage, self.c)
            if after is self.stage:
                break
            self.stage = after
        self.c = replace(self.c, found="")

    @rule(name=st.sampled_from(["temperature", "actuator", "leased", "stale", "sigma", "bad", "poor"]), why=WHY)
    def reason(self, name: str, why: str) -> None:
        self._now(**{name: why, **({"poor": ""} if name == "bad" and not why else {})})

    @rule(known=st.booleans(), far=st.booleans())
    def phase(self, known: bool, far: bool) -> None:
        self._now(known=known or self.c.known, far=far)

    @rule()
    def wait(self) -> None:
        self._now()

    @rule(why=WHY)
    def latch(self, why: str) -> None:
        self._now(latched=why)

    @rule()
    def find(self) -> None:
        self._now(found="found")

    @invariant()
    def truth(self) -> None:
        c = self.c
        assert (self.stage is Stage.FAULT) == bool(c.latched)
        if self.stage is Stage.LOCKED:
            assert c.usable
            assert not c.temperature
            assert not c.bad


TestLife = Life.TestCase


def test_every_stage_can_be_left_and_reached() -> None:
    for stage in Stage:
        assert any(stage in row.sources and row.target is not stage for row in TABLE)
        assert any(row.target is stage for row in TABLE)
