"""The slot before a detection: asked for once at most, by Alice only, and nothing of it is ever said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from drivers.roles import Pilot
from qmodd.keys.patterning import PatternTally
from qmodd.keys.pilot import is_pilot
from tests.keys.engine.playing import blocks, play
from tests.keys.engine.world import Pair, same_keys


class Watched:
    """Alice's requests for symbols and her sums. The fake source fails the test when a slot is asked for twice."""

    def __init__(self, pair: Pair, every: int, pilot: int) -> None:
        self.reads: list[npt.NDArray[np.int64]] = []
        self.tallies: list[PatternTally] = []
        read = pair.source.read_symbols

        async def watched(slots: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
            self.reads.append(slots.copy())
            return await read(slots)

        async def with_pilot() -> Pilot | None:
            return Pilot(pilot, 10.0) if pilot else None

        pair.source.read_symbols = watched  # type: ignore[method-assign]
        pair.source.pilot = with_pilot  # type: ignore[method-assign]
        pair.alice.on_patterning = self.tallies.append
        pair.alice.pattern_every = every


def _play(path: Path, every: int = 8, pilot: int = 0) -> tuple[Pair, Watched]:
    found: list[Watched] = []

    async def script(pair: Pair) -> None:
        found.append(Watched(pair, every, pilot))
        await blocks(2)(pair)
        assert same_keys(pair.a, pair.b) > 100

    path.mkdir(exist_ok=True)
    return play(path, script), found[0]


def test_one_batch_in_eight_and_each_slot_once(ram_path: Path) -> None:
    pair, seen = _play(ram_path)
    assert len(seen.tallies) == len(pair.a.batches) // 8 > 1
    assert all(t.p == (0.5, 0.5) and t.live > 0 for t in seen.tallies)
    counts = np.sum([t.counts for t in seen.tallies], axis=0)
    assert counts.sum() > 5000
    # This link has no patterning.
    before = np.mean([t.before[1] for t in seen.tallies])
    assert np.abs(counts[:, 1] / counts.sum(axis=1) - before).max() < 4 * 0.5 / np.sqrt(counts.sum(axis=1).min())


def test_a_pilot_is_never_asked_for(ram_path: Path) -> None:
    seen = _play(ram_path, every=1, pilot=5)[1]
    assert sum(t.total for t in seen.tallies) > 5000
    assert not is_pilot(np.concatenate(seen.reads), 5).any()
    # By turns: detections, then slots before some of them.
    before = seen.reads[1::2][: len(seen.tallies)]
    assert all(
        np.isin(b + 1, d).all() and not np.isin(b, d).any() for b, d in zip(before, seen.reads[::2], strict=False)
    )


def test_the_channel_carries_the_same_bytes_with_and_without(ram_path: Path) -> None:
    watched, looked = _play(ram_path / "with", every=1)
    other, idle = _play(ram_path / "without", every=10**9)
    assert looked.tallies
    assert not idle.tallies
    assert len(watched.wire.record) > 50
    assert watched.wire.record == other.wire.record
