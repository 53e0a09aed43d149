"""Pilot slots in the engines: no receiver that lists them gets them into a block, nor an answer about them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from drivers.roles import Pilot
from qmodd.keys.frames import FrameBatch
from qmodd.keys.pilot import PilotCounts
from tests.keys.engine.playing import blocks, play
from tests.keys.engine.world import SETTINGS, Pair, same_keys, small_plan

Int64s = npt.NDArray[np.int64]
EVERY = 16


def _pilot_pair(path: Path, every: int = EVERY) -> tuple[Pair, list[Int64s], list[PilotCounts]]:
    """Two blocks of a pair whose source has a pilot; slots whose symbols were asked for; pilot counts."""
    asked: list[Int64s] = []
    told: list[PilotCounts] = []

    async def script(pair: Pair) -> None:
        read = pair.source.read_symbols

        async def pilot() -> Pilot:
            return Pilot(every, 10.0)

        async def watched(slots: Int64s) -> npt.NDArray[np.uint8]:
            asked.append(slots.copy())
            return await read(slots)

        def on_pilot(counts: PilotCounts, read_at: float) -> None:
            told.append(counts)

        pair.source.pilot = pilot  # type: ignore[method-assign]
        pair.source.read_symbols = watched  # type: ignore[method-assign]
        pair.bob.on_pilot = on_pilot
        await blocks(2)(pair)
        assert same_keys(pair.a, pair.b) > 100

    return play(path, script), asked, told


def test_an_honest_receiver_counts_them_and_never_tells_of_them(ram_path: Path) -> None:
    pair, asked, told = _pilot_pair(ram_path)
    slots = np.concatenate(asked)
    assert len(slots) > 100_000
    assert not (slots % EVERY == 0).any()
    clicks = sum(c.n_plus_dx0 + c.n_plus_dx1 + c.n_minus_dx0 + c.n_minus_dx1 for c in told)
    # This link lights pilot slots like others: half of a sixteenth of all detections are X.
    seconds = sum(c.seconds for c in told)
    assert clicks / seconds == pytest.approx(500_000 * 2 / 3 / EVERY / 2, rel=0.1)
    assert all(sum(r.n_z) == SETTINGS.n_z for r in pair.a.records)


def test_a_receiver_that_lists_pilots_gets_nothing_for_them(ram_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bob keeps his pilot detections and tells of them as of others: Alice asks for none and none is a match."""
    listed: list[Int64s] = []

    def keep_all(batch: FrameBatch, every: int, period_s: float) -> tuple[FrameBatch, PilotCounts]:
        listed.append(batch.slots.copy())
        return batch, PilotCounts(0, 0, 0, 0, 0.0)

    monkeypatch.setattr("qmodd.keys.bench.without_pilot", keep_all)
    pair, asked, _ = _pilot_pair(ram_path)
    told, slots = np.concatenate(listed), np.concatenate(asked)
    assert (told % EVERY == 0).mean() == pytest.approx(1 / EVERY, rel=0.1)
    assert not (slots % EVERY == 0).any()
    # What is sifted on both sides: the same, none of them a pilot.
    n_z = sum(sum(b.n_z) for b in pair.b.batches)
    # One basis in two fits, and half of what fits is Z.
    assert n_z == pytest.approx(np.count_nonzero(told % EVERY) / 4, rel=0.05)
    assert sum(sum(b.n_z) for b in pair.a.batches) == n_z


def test_a_plan_with_pilots_only_is_refused(ram_path: Path) -> None:
    async def script(pair: Pair) -> None:
        await blocks(1)(pair)
        good = replace(small_plan(1), key_slot=small_plan(1).sync_slot + 2_000_000)
        for every in (0, 2, EVERY):
            pair.bob._check_plan(replace(good, pilot_every=every))
        with pytest.raises(ValueError, match="leaves none for keys"):
            pair.bob._check_plan(replace(good, pilot_every=1))

    play(ram_path, script)
