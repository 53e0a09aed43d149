"""Pilot slots: counted by Bob, never part of a detection, refused by Alice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmodd.app.bob import BobOperator
from qmodd.keys.frames import FrameBatch, FrameCounters, Residuals
from qmodd.keys.pilot import PilotCounts, is_pilot, without_pilot
from qmodd.lifecycle import Activity
from qmodd.soak import Run
from sim.scenario import Link, Scenario
from tests.app.pair import simulate, until_blocks

Int64s = npt.NDArray[np.int64]
EVERY = 16


def batch(slots: list[int], basis: list[int], bit: list[int]) -> FrameBatch:
    early = sum(1 for a, b in zip(basis, bit, strict=True) if (a, b) == (0, 0))
    late = sum(1 for a, b in zip(basis, bit, strict=True) if (a, b) == (0, 1))
    counters = FrameCounters(live_slots=900, z_early=early, z_late=late)
    arrays = (np.array(slots, np.int64), np.array(basis, np.uint8), np.array(bit, np.uint8))
    return FrameBatch(0, 1000, *arrays, counters, Residuals())


rows = st.lists(
    st.tuples(st.integers(0, 999), st.integers(0, 1), st.integers(0, 1)), unique_by=lambda r: r[0], max_size=80
).map(sorted)


@given(rows, st.integers(2, 70))
def test_every_detection_is_either_key_or_pilot(detections: list[tuple[int, int, int]], every: int) -> None:
    slots, basis, bit = ([r[k] for r in detections] for k in range(3))
    rest, seen = without_pilot(batch(slots, basis, bit), every, 8e-9)
    assert not is_pilot(rest.slots, every).any()
    assert rest.slots.tolist() == [s for s in slots if s % every]
    expected = [0, 0, 0, 0]
    for s, a, b in detections:
        if s % every == 0 and a == 1:
            expected[2 * (s // every % 2) + (1 - b)] += 1
    assert seen == PilotCounts(*expected, seconds=1000 * 8e-9)
    assert rest.counters.z_early == sum(1 for s, a, b in detections if s % every and (a, b) == (0, 0))
    assert rest.counters.live_slots == round(900 * (1 - 1 / every))


def test_without_pilot_nothing_is_one() -> None:
    assert not is_pilot(np.arange(10), 0).any()


@pytest.mark.long
def test_a_pair_with_pilot_makes_matching_keys_of_other_slots_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole chain: keys match, pilot clicks reach the lock, and no symbol of a pilot slot is asked for."""
    told: list[PilotCounts] = []
    asked: list[Int64s] = []

    async def script(run: Run) -> None:
        bob, alice = run.sites["bob"].core.operator, run.sites["alice"].core.module.source
        assert isinstance(bob, BobOperator)
        hear, read = bob.on_pilot, alice.read_symbols

        def on_pilot(counts: PilotCounts, read_at: float) -> None:
            told.append(counts)
            hear(counts, read_at)

        async def read_symbols(slots: Int64s) -> npt.NDArray[np.uint8]:
            # The self-test at the start looks at random numbers that are sent with no light.
            if run.sites["alice"].core.life.activity is not Activity.SELFTEST:
                asked.append(slots)
            return await read(slots)

        monkeypatch.setattr(bob, "on_pilot", on_pilot)
        monkeypatch.setattr(alice, "read_symbols", read_symbols)
        await until_blocks(run, 1)
        invariants = run.report(1e-3, 1.0)["invariants"]
        assert all(invariants.values()), invariants

    simulate(tmp_path, script, seed=1, scenario=Scenario(link=Link(pilot_every=EVERY)))
    clicks = sum(c.n_plus_dx0 + c.n_plus_dx1 + c.n_minus_dx0 + c.n_minus_dx1 for c in told)
    assert clicks / sum(c.seconds for c in told) > 500.0  # the strobe opens a hundredth of the time
    assert not any((slots % EVERY == 0).any() for slots in asked)
