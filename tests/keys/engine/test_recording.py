"""What an eavesdropper reads on the service channel tells nothing of a key bit beyond what `leak` counts.

Two ways to ask. *Interference*: the same block once more with other key bits and the same errors; whatever is not
charged must be the same to the byte, and there is no more of what is charged than what is charged. *Prediction*: fit
key bits by all that was said around them, and do no better than chance on bits that were not fitted.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from qmodd.keys import protocol
from qmodd.keys.counts import BatchReport
from qmodd.keys.frames import FrameBatch, FrameCounters
from qmodd.keys.protocol import Auth, Basis, BlockMessage, Commit, Detect, FrameHelp, Message, Syndrome, Tally, Verify
from qmodd.keys.records import BlockRecord
from qmodd.keys.sifting import decode_basis, decode_detect, encode_basis, encode_detect, match, sift_bob
from sim.loop import run_simulated
from tests.keys.engine.playing import blocks, play
from tests.keys.engine.world import Pair, idle, make_pair, raw_blocks, settled, small_plan, start, stopped

Floats = npt.NDArray[np.float64]
HEAD, TAG = 9, 16


def messages(pair: Pair) -> list[tuple[int, Message]]:
    """Everything that went over the wire, opened as only the two ends can."""
    return [(d, protocol.decode(frame[HEAD:-TAG])) for d, frame in pair.wire.record if frame[:1] == b"S"]


# --- interference ---


def one_block(path: Path, mask: npt.NDArray[np.uint8], errors: float) -> tuple[list[tuple[int, Message]], BlockRecord]:
    """A block whose Z bits are turned round by `mask` on both sides: other bits, the same errors."""

    async def main(loop: Any) -> tuple[list[tuple[int, Message]], BlockRecord]:
        a, b = make_pair(path)
        pair, tasks = start(a, b, loop)
        await settled(pair)
        ours, theirs = raw_blocks(small_plan(1), 0, len(mask), 500, errors, seed=3)
        for raw in (ours, theirs):
            raw.material.z_bits[:] ^= mask  # type: ignore[union-attr]
        pair.alice._queue_closed([ours])
        pair.bob._queue_closed([theirs])
        await idle(pair)
        await stopped(*tasks)
        a.shut(), b.shut()
        return messages(pair), a.records[0]

    return run_simulated(main)  # type: ignore[no-any-return]


def uncharged(message: Message) -> Message:
    """Without what `leak` counts, and without one-time tags, which are uniform whatever they are of."""
    match message:
        case Syndrome():
            return replace(message, data=bytes(len(message.data)))
        case FrameHelp():
            return replace(message, pieces=tuple(bytes(len(p)) for p in message.pieces))
        case Verify() | Auth():
            return replace(message, tag=bytes(len(message.tag)))
        case _:
            return message


def charged_bits(said: list[tuple[int, Message]]) -> int:
    size = 0
    for _, m in said:
        match m:
            case Syndrome():
                size += len(m.data)
            case FrameHelp():
                size += sum(map(len, m.pieces))
            case Verify():
                size += len(m.tag)
            case _:
                pass
    return 8 * size


@pytest.mark.parametrize("errors", [0.0, 0.01, 0.03, 0.05])
def test_other_key_bits_change_nothing_that_is_not_charged(ram_path: Path, errors: float) -> None:
    rng = np.random.default_rng(17)
    n = 6000
    said, record = one_block(ram_path / "0", np.zeros(n, np.uint8), errors)
    for i, mask in enumerate((np.ones(n, np.uint8), rng.integers(0, 2, n).astype(np.uint8))):
        again, other = one_block(ram_path / str(i + 1), mask, errors)
        about = [[(d, uncharged(m)) for d, m in s if isinstance(m, BlockMessage | Commit)] for s in (said, again)]
        assert len(about[0]) > 10
        assert about[0] == about[1]
        assert other.leak_bits == record.leak_bits
    frames_given_whole = record.frames_helped
    assert charged_bits(said) <= record.leak_bits + 7 * frames_given_whole
    assert any(a != b for (_, a), (_, b) in zip(said, again, strict=False) if isinstance(a, Syndrome))


def test_help_was_part_of_it(ram_path: Path) -> None:
    """The test above would be blind if no frame ever needed help."""
    helped = [one_block(ram_path / str(e), np.zeros(6000, np.uint8), e)[1].frames_helped for e in (0.01, 0.03, 0.05)]
    assert any(helped)


def batch_of(slots: Any, basis: Any, bit: Any) -> FrameBatch:
    counters = FrameCounters(live_slots=900, z_early=int(((basis == 0) & (bit == 0)).sum()), z_late=3)
    return FrameBatch(0, 1000, slots, basis, bit, counters, *([None] * (_fields(FrameBatch) - 6)))


def _fields(cls: Any) -> int:
    return len(cls.__dataclass_fields__)


@pytest.mark.parametrize("n", [1, 2, 50, 400])
def test_arrival_times_that_become_key_are_in_no_sum(n: int) -> None:
    """Bob's words about a batch are the same with any Z bits of matching slots, down to batches with one click."""
    rng = np.random.default_rng(n)
    slots = np.sort(rng.choice(1000, n, replace=False)).astype(np.int64)
    basis, bit = (rng.integers(0, 2, n).astype(np.uint8) for _ in range(2))
    nibbles = rng.integers(0, 8, n).astype(np.uint8)
    key = (basis == 0) & (nibbles & 1 == 0)
    said = set()
    for _ in range(8):
        turned = bit ^ (rng.integers(0, 2, n).astype(np.uint8) * key)
        hers = nibbles ^ (2 * rng.integers(0, 2, n).astype(np.uint8) * key)
        batch = batch_of(slots, basis, turned)
        detect, answer = encode_detect(0, 1000, slots, basis), encode_basis(match(basis, hers))
        _, report = sift_bob(batch, decode_basis(answer, basis))
        said.add((detect, answer, report.to_bytes()))
    assert len(said) == 1
    spare = (basis == 0) & ~key
    assert (report.z_early, report.z_late) == (int((spare & (bit == 0)).sum()), int((spare & (bit == 1)).sum()))


# --- prediction ---


def features(
    detect: Any, answer: Any, report: BatchReport, before: BatchReport
) -> tuple[Floats, npt.NDArray[np.int64]]:
    """(columns of all that was said near each matched Z slot, the slots)."""
    slots, basis = detect.slots, detect.basis
    gap = np.diff(slots, prepend=detect.first_slot, append=detect.end_slot)
    near = [np.roll(basis, k) for k in (-2, -1, 1, 2)] + [np.roll(answer.match, k) for k in (-1, 1)]
    decoy = np.zeros(len(slots))
    decoy[answer.match] = answer.decoy
    columns = [gap[:-1], gap[1:], gap[:-1] % 2, gap[1:] % 2, slots % 2, slots % 3, slots % 8, *near, decoy]
    columns += [np.arange(len(slots)) % 8]
    sums = [
        x for r in (report, before) for x in (r.z_early, r.z_late, r.cross, r.veto, *r.e_x0, *r.e_x1, *r.satellites)
    ]
    columns += [np.full(len(slots), float(x)) for x in sums]
    z = answer.match & (basis == 0)
    return np.stack([np.asarray(c, float)[z] for c in columns], 1), slots[z]


def recorded(pair: Pair) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Of every batch of one run; several may be under way at once, each kind in its own order."""
    said = [m for _, m in messages(pair)]
    detects = [decode_detect(m.data) for m in said if isinstance(m, Detect)]
    answers = [decode_basis(m.data, d.basis) for m, d in zip((m for m in said if isinstance(m, Basis)), detects)]  # noqa: B905
    reports = [BatchReport.from_bytes(m.data) for m in said if isinstance(m, Tally)]
    befores = [BatchReport(0, 0, 0), *reports]
    rows = [features(*row) for row in zip(detects, answers, reports, befores)]  # noqa: B905
    return np.concatenate([r[0] for r in rows]), np.concatenate([r[1] for r in rows])


def score(x: Floats, y: npt.NDArray[np.uint8]) -> float:
    """Right guesses beyond chance, in standard deviations: least squares on one half (signs of its values predict), the
    other half tells. Products of columns are columns, too."""
    rng = np.random.default_rng(1)
    x = (x - x.mean(0)) / (x.std(0) + 1e-9)
    pairs = rng.integers(0, x.shape[1], (40, 2))
    x = np.concatenate([x, x[:, pairs[:, 0]] * x[:, pairs[:, 1]], np.ones((len(x), 1))], 1)
    order = rng.permutation(len(x))
    fit, test = order[: len(x) // 2], order[len(x) // 2 :]
    weights = np.linalg.lstsq(x[fit], 2.0 * y[fit] - 1.0, rcond=None)[0]
    right = np.count_nonzero((x[test] @ weights > 0) == (y[test] == 1))
    return float((right - len(test) / 2) / np.sqrt(len(test) / 4))


def test_key_bits_cannot_be_predicted_from_a_recording(ram_path: Path) -> None:
    pair = play(ram_path, blocks(2))
    x, slots = recorded(pair)
    y = ((pair.link.symbols(slots) >> 1) & 1).astype(np.uint8)
    assert len(y) > 100_000
    assert abs(score(x, y)) < 4.5
    # The same eyes see a bit that leaks one time in fifty.
    rng = np.random.default_rng(2)
    leaky = np.where(rng.random(len(y)) < 0.02 * 2, y, rng.integers(0, 2, len(y)))
    assert score(np.concatenate([x, leaky[:, None]], 1), y) > 4.5
