"""Overrides as data: set, undo, and a file that is the same afterwards or refused as a whole."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmodd.settings.overrides import HISTORY, Damaged, Kept, Override, Overrides

OVERRIDES = st.builds(
    Override,
    st.one_of(st.booleans(), st.integers(-(2**40), 2**40), st.floats(allow_nan=False, allow_infinity=False), st.text()),
    st.text(max_size=64),
    st.text(max_size=40),
    st.integers(0, 9),
)
KEPT = st.builds(Kept, st.none() | OVERRIDES, st.lists(st.none() | OVERRIDES, max_size=HISTORY).map(tuple))


def override(value: Any, at: str = "2026-01-01T00:00:00.000+00:00") -> Override:
    return Override(value, "ann", at, 0)


def test_undo_goes_back_step_by_step_to_the_file() -> None:
    o = Overrides().set("keys.a", override(1)).set("keys.a", override(2)).set("keys.a", None)
    seen = []
    for _ in range(3):
        o = o.undo("keys.a")
        now = o.of("keys.a").now
        seen.append(now.value if now else None)
    assert seen == [2, 1, None]
    assert o.kept == {}
    with pytest.raises(LookupError):
        o.undo("keys.a")


def test_history_is_bounded() -> None:
    o = Overrides()
    for n in range(3 * HISTORY):
        o = o.set("keys.a", override(n))
    assert len(o.of("keys.a").before) == HISTORY
    for _ in range(HISTORY):
        o = o.undo("keys.a")
    assert o.of("keys.a").now == override(2 * HISTORY - 1)


def test_in_the_order_in_which_they_were_set() -> None:
    o = Overrides().set("b.b", override(1, "2026-01-02")).set("a.a", override(2, "2026-01-03"))
    o = o.set("c.c", override(3, "2026-01-01"))
    assert [path for path, _ in o.in_order()] == ["c.c", "b.b", "a.a"]


@given(st.dictionaries(st.text(max_size=20), KEPT, max_size=5))
def test_the_file_tells_the_same(kept: dict[str, Kept]) -> None:
    assert Overrides.load(Overrides(kept).dump()) == Overrides(kept)


@given(st.dictionaries(st.text(max_size=20), KEPT, min_size=1, max_size=3), st.data())
def test_a_file_that_is_cut_or_spoilt_is_damaged_or_read(kept: dict[str, Kept], data: st.DataObject) -> None:
    """Never anything else than Damaged."""
    text = Overrides(kept).dump()
    at = data.draw(st.integers(0, len(text) - 1))
    spoilt = text[:at] + data.draw(st.text(max_size=3)) + text[at + data.draw(st.integers(0, 3)) :]
    with contextlib.suppress(Damaged):
        Overrides.load(spoilt)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"settings": []}', '{"settings": {"a.b": {"now": {}}}}', "null"])
def test_what_is_no_such_file(text: str) -> None:
    with pytest.raises(Damaged):
        Overrides.load(text)


def test_a_value_that_is_no_scalar_is_no_value() -> None:
    raw = json.loads(Overrides().set("a.b", override(1)).dump())
    raw["settings"]["a.b"]["now"]["value"] = [1]
    with pytest.raises(Damaged, match="list is no value"):
        Overrides.load(json.dumps(raw))
