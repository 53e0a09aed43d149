"""A whole block: frames, syndromes, and help for frames that fail.

The block is cut into frames of equal length (to a bit): at most 65 536 in throughput mode, a million and more in
efficiency mode. A shorter frame is spread evenly over the code, between zeros that both sides know, and a code of the
ladder is chosen for what is left of its entropy. A frame that does not decode
is helped in rounds. In all but the last Alice discloses more syndrome: some rows of the code are taken apart into two
halves, the checks of the first half are disclosed, those of the second follow from the sum. Which rows is fixed
beforehand (a choice of Bob's would tell where his errors are). The last round discloses the frame. Every disclosed bit
counts, and no frame is ever dropped, since that would select on outcomes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt

from qmodd.keys.reconciliation import long
from qmodd.keys.reconciliation.codes import FRAME_BITS, BaseMatrix, Code, binary_entropy, inverse_entropy
from qmodd.keys.reconciliation.decoder import Workspace, checks, decode, syndrome
from qmodd.keys.reconciliation.ladder import LADDER, select_code

Bits = npt.NDArray[np.uint8]
Int64s = npt.NDArray[np.int64]
Help = tuple[tuple[int, int], ...]

# Rounds 1, 2 and 3 take more and more rows apart (`Code.split`); round 4 gives the frame.
LAST_ROUND = 4


class Mode(IntEnum):
    """How a block is cut; the number goes over the service channel."""

    THROUGHPUT = 0
    EFFICIENCY = 1


@dataclass(frozen=True)
class Plan:
    """How a block of `n_bits` is cut; equal on both sides by construction (`code.digest` tells)."""

    code: Code
    n_bits: int

    @classmethod
    def make(cls, n_bits: int, qber: float, mode: Mode = Mode.THROUGHPUT, *, hurry: bool = False) -> Plan:
        """For the QBER expected in the block; both sides must take it and the mode from the same agreed message.

        Short frames as well where there are no long codes for the block. `hurry`: one short frame in a hundred needs
        help; else leak is least, and one in five may.
        """
        if n_bits <= 0:
            raise ValueError(f"block of {n_bits} bits")
        select_code(qber)  # refuses what is no QBER
        if mode is Mode.EFFICIENCY and long.covers(n_bits, qber):
            return cls(long.long_code(n_bits, qber), n_bits)
        share = n_bits / (-(-n_bits // FRAME_BITS) * FRAME_BITS)
        effective = qber if share == 1.0 else inverse_entropy(share * binary_entropy(qber))
        return cls(select_code(effective, hurry=hurry), n_bits)

    @classmethod
    def make_for_rung(cls, n_bits: int, rung: int) -> Plan:
        """Raises ValueError if there is no such rung."""
        if not 0 <= rung < len(LADDER):
            raise ValueError(f"no rung {rung} in a ladder of {len(LADDER)}")
        if n_bits <= 0:
            raise ValueError(f"block of {n_bits} bits")
        return cls(LADDER[rung], n_bits)

    @property
    def frames(self) -> int:
        return -(-self.n_bits // self.code.frame_bits)

    @property
    def mode(self) -> Mode:
        """Throughput also where efficiency was asked for and there are no long codes."""
        return Mode.EFFICIENCY if self.code.lift == long.LIFT else Mode.THROUGHPUT

    @property
    def syndrome_bits(self) -> int:
        """Bits disclosed by message 4, before any help."""
        return self.frames * self.code.syndrome_bits

    def frame_length(self, frame: int) -> int:
        """Bits of the block in a frame. Raises ValueError if there is no such frame."""
        if not 0 <= frame < self.frames:
            raise ValueError(f"no frame {frame} in a block of {self.frames}")
        return self.n_bits // self.frames + (frame < self.n_bits % self.frames)

    def frame_begin(self, frame: int) -> int:
        """Place in the block of a frame's first bit."""
        return frame * (self.n_bits // self.frames) + min(frame, self.n_bits % self.frames)


@lru_cache(maxsize=4)
def _places(length: int, frame_bits: int) -> Int64s:
    """Where the bits of a shorter frame stand in the code's."""
    return np.arange(length, dtype=np.int64) * frame_bits // length


def _frame(plan: Plan, bits: Bits, frame: int) -> Bits:
    begin, length, size = plan.frame_begin(frame), plan.frame_length(frame), plan.code.frame_bits
    part = bits[begin : begin + length]
    if length == size:
        return part
    whole = np.zeros(size, np.uint8)
    whole[_places(length, size)] = part
    return whole


def _known(length: int, size: int) -> npt.NDArray[np.bool_] | None:
    if length == size:
        return None
    known = np.ones(size, np.bool_)
    known[_places(length, size)] = False
    return known


def _check_block(plan: Plan, bits: Bits) -> None:
    if len(bits) != plan.n_bits:
        raise ValueError(f"block of {len(bits)} bits, planned {plan.n_bits}")


@lru_cache(maxsize=512)
def split_rows(code: Code, round_: int) -> tuple[int, ...]:
    """Rows of a code that a round takes apart: at least one, spread over the code by the golden ratio, never the same
    twice.

    Raises ValueError if there is no such round.
    """
    if not 1 <= round_ < LAST_ROUND:
        raise ValueError(f"no round {round_} of more syndrome")
    rows = code.rows
    order = sorted(range(rows), key=lambda row: row * 40503 % 65536)
    done = [0]
    for thousandths in code.split:
        done.append(min(rows, max(done[-1] + 1, -(-rows * thousandths // 1000))))
    return tuple(sorted(order[done[round_ - 1] : done[round_]]))


@lru_cache(maxsize=16)
def _disclosed_half(code: Code, round_: int) -> BaseMatrix:
    """The checks that a round discloses."""
    return code.base.of_rows([code.base.halves(row)[0] for row in split_rows(code, round_)])


@lru_cache(maxsize=16)
def split_base(code: Code, round_: int) -> BaseMatrix:
    """The code's base matrix after a round: each row that was taken apart is two rows, one after the other."""
    split = {row for past in range(1, round_ + 1) for row in split_rows(code, past)}
    rows: list[Int64s] = []
    for row in range(code.rows):
        halves = code.base.halves(row)
        rows += halves if row in split else [np.sort(np.concatenate(halves))]
    return code.base.of_rows(rows)


def syndromes(plan: Plan, bits: Bits) -> bytes:
    """Alice: the syndromes of all frames, packed one after the other. Raises ValueError on another block length."""
    _check_block(plan, bits)
    return b"".join(np.packbits(syndrome(plan.code, _frame(plan, bits, f))).tobytes() for f in range(plan.frames))


def disclosed_bits(plan: Plan, frame: int, round_: int) -> int:
    """Bits that a round of help discloses. Raises ValueError on a bad frame or round."""
    length = plan.frame_length(frame)
    return length if round_ == LAST_ROUND else plan.code.lift * len(split_rows(plan.code, round_))


def disclose(plan: Plan, bits: Bits, frame: int, round_: int) -> bytes:
    """Alice: what a round of help discloses of a frame, packed. Raises ValueError on a bad frame or round."""
    _check_block(plan, bits)
    length = plan.frame_length(frame)
    if round_ == LAST_ROUND:
        begin = plan.frame_begin(frame)
        return np.packbits(bits[begin : begin + length]).tobytes()
    split_rows(plan.code, round_)  # refuses what is no round
    return np.packbits(checks(_disclosed_half(plan.code, round_), _frame(plan, bits, frame))).tobytes()


def _unpacked(data: bytes, count: int) -> Bits:
    if len(data) != (count + 7) // 8:
        raise ValueError(f"{len(data)} bytes for {count} bits")
    return np.unpackbits(np.frombuffer(data, np.uint8), count=count)


@dataclass
class _Target:
    """What Bob knows of a frame's checks: sums of the code's rows, and of the halves that were disclosed."""

    sums: Bits
    halves: dict[int, Bits]
    lift: int

    @cached_property
    def _rows(self) -> Bits:
        return self.sums.reshape(-1, self.lift)

    def learn(self, rows: tuple[int, ...], disclosed: Bits) -> None:
        self.halves.update(zip(rows, disclosed.reshape(-1, self.lift), strict=True))

    def all(self) -> Bits:
        """Syndrome for `split_base`."""
        if not self.halves:
            return self.sums
        parts: list[Bits] = []
        for row, total in enumerate(self._rows):
            half = self.halves.get(row)
            parts += [total] if half is None else [half, total ^ half]
        return np.concatenate(parts)


class Corrector:
    """Bob's side of a block: takes Alice's syndromes, then her help, until every frame meets its syndrome."""

    def __init__(self, plan: Plan, bits: Bits) -> None:
        _check_block(plan, bits)
        self.plan = plan
        self.iterations = 0
        self.failed_first = 0
        self._block = bits.copy()
        self._targets: list[_Target] = []
        self._next_round: dict[int, int] = {}
        self._work: dict[int, Workspace] = {}

    @property
    def done(self) -> bool:
        return bool(self._targets) and not self._next_round

    @property
    def bits(self) -> Bits:
        """The corrected block. Raises ValueError while frames are missing."""
        if not self.done:
            raise ValueError("block is not corrected yet")
        return self._block

    def needs(self) -> Help:
        """(frame, round) of every disclosure still needed now."""
        return tuple(sorted(self._next_round.items()))

    def correct(self, data: bytes) -> Help:
        """Decode all frames; returns what is needed for those that failed. Raises ValueError on a wrong length."""
        flat = _unpacked(data, self.plan.syndrome_bits)
        lift = self.plan.code.lift
        self._targets = [_Target(sums, {}, lift) for sums in flat.reshape(self.plan.frames, -1)]
        self._next_round = {}
        for frame in range(self.plan.frames):
            if not self._decode(frame, 0):
                self._next_round[frame] = 1
        self.failed_first = len(self._next_round)
        return self.needs()

    def assist(self, frame: int, round_: int, disclosed: bytes) -> bool:
        """Take Alice's disclosure for a frame; True when the frame is done.

        Raises ValueError if it was not asked for, has the wrong length, or if the whole frame contradicts its syndrome.
        """
        if self._next_round.get(frame) != round_:
            raise ValueError(f"round {round_} of frame {frame} was not asked for")
        data = _unpacked(disclosed, disclosed_bits(self.plan, frame, round_))
        if round_ == LAST_ROUND:
            self._replace(frame, data)
        else:
            self._targets[frame].learn(split_rows(self.plan.code, round_), data)
            if not self._decode(frame, round_):
                self._next_round[frame] = round_ + 1
                return False
        del self._next_round[frame]
        return True

    def _replace(self, frame: int, data: Bits) -> None:
        """The whole frame is public: take it, if it is the one that the syndrome is of."""
        begin = self.plan.frame_begin(frame)
        self._block[begin : begin + len(data)] = data
        theirs = syndrome(self.plan.code, _frame(self.plan, self._block, frame))
        if not np.array_equal(theirs, self._targets[frame].sums):
            raise ValueError(f"frame {frame} contradicts its syndrome")

    def _decode(self, frame: int, round_: int) -> bool:
        before, length = _frame(self.plan, self._block, frame), self.plan.frame_length(frame)
        known = _known(length, len(before))
        work = self._work.get(round_)
        if work is None:
            work = self._work[round_] = Workspace(split_base(self.plan.code, round_))
        target = self._targets[frame].all()
        result = decode(self.plan.code, before, target, known=known, workspace=work)
        self.iterations += result.iterations
        if not result.ok or (known is not None and bool(result.bits[known].any())):
            return False  # a correction that changes bits known for certain is a wrong one
        begin = self.plan.frame_begin(frame)
        self._block[begin : begin + length] = (
            result.bits if known is None else result.bits[_places(length, len(before))]
        )
        return True


def total_disclosed(plan: Plan, helped: Iterable[tuple[int, int]]) -> int:
    """The leak of a block's correction: syndromes and every round of help that was given."""
    return plan.syndrome_bits + sum(disclosed_bits(plan, frame, round_) for frame, round_ in helped)
