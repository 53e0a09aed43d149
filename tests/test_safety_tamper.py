"""The cover's contact: bounces are not openings, an opening is told once, closing makes it ready again."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmodd.safety.tamper import Policy, Tamper


@dataclass
class Desk:
    t: float = 0.0
    told: list[str] = field(default_factory=list)

    def make(self, policy: Policy = "latch", debounce_s: float = 0.3) -> Tamper:
        return Tamper(policy, debounce_s, lambda: self.t, self.told.append)


@pytest.fixture
def desk() -> Desk:
    return Desk()


def hear(desk: Desk, tamper: Tamper, *readings: tuple[float, bool | None]) -> None:
    for t, closed in readings:
        desk.t = t
        tamper.hear(closed)


def test_an_opening_is_told_once(desk: Desk) -> None:
    tamper = desk.make()
    hear(desk, tamper, (0.0, True), (0.1, False), (0.2, False))
    assert tamper.suspect
    hear(desk, tamper, (0.4, False), (0.5, False), (60.0, False))
    assert desk.told == ["the cover was opened"]
    assert not tamper.suspect
    hear(desk, tamper, (61.0, True), (62.0, False), (62.5, False))
    assert len(desk.told) == 2


def test_a_bounce_is_none(desk: Desk) -> None:
    tamper = desk.make()
    hear(desk, tamper, (0.0, False), (0.2, True), (0.3, False), (0.5, False), (0.55, True))
    assert desk.told == []


def test_one_reading_is_not_enough_and_an_unknown_one_says_nothing(desk: Desk) -> None:
    tamper = desk.make(debounce_s=0.0)
    hear(desk, tamper, (0.0, False), (9.0, None))
    assert desk.told == []
    hear(desk, tamper, (9.1, False))
    assert desk.told == ["the cover was opened"]


def test_off_is_off(desk: Desk) -> None:
    tamper = desk.make("off")
    hear(desk, tamper, (0.0, False), (9.0, False))
    assert not tamper.watching
    assert not tamper.suspect
    assert desk.told == []


@given(st.lists(st.tuples(st.floats(0.01, 0.25), st.booleans()), max_size=60))
def test_told_exactly_when_open_long_enough(story: list[tuple[float, bool]]) -> None:
    desk = Desk()
    tamper, since, expected, told = desk.make(), None, 0, False
    for seconds, closed in story:
        desk.t += seconds
        tamper.hear(closed)
        if closed:
            since, told = None, False
        elif since is None:
            since = desk.t
        elif not told and desk.t - since >= 0.3:
            told, expected = True, expected + 1
    assert len(desk.told) == expected
