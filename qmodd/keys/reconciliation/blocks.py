"""A whole block: frames, syndromes, and help for frames that fail.

The block is cut into frames of 65 536 bits; the last one is filled up with zeros that both sides know. A frame that
does not decode is helped in rounds: in the first two Alice discloses further bits of it at places that are fixed
beforehand (never chosen by Bob, whose choice would tell where his errors are), in the last one the rest of the frame.
Every disclosed bit counts, and no frame is ever dropped, since that would select on outcomes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qmodd.keys.reconciliation.codes import FRAME_BITS, Code
from qmodd.keys.reconciliation.decoder import decode, syndrome
from qmodd.keys.reconciliation.ladder import LADDER, select_code

Bits = npt.NDArray[np.uint8]
Help = tuple[tuple[int, int], ...]

LAST_ROUND = 3
# Sixteenths of a frame that are public after rounds 1 and 2; round 3 gives the rest.
_SIXTEENTHS = (0, 1, 4, 16)


@dataclass(frozen=True)
class Plan:
    """How a block of `n_bits` is cut; equal on both sides by construction."""

    code: Code
    n_bits: int

    @classmethod
    def make(cls, n_bits: int, qber: float) -> Plan:
        """For the QBER expected in the block, which both sides must take from the same agreed number."""
        return cls._of(n_bits, select_code(qber))

    @classmethod
    def make_for_rung(cls, n_bits: int, rung: int) -> Plan:
        """Raises ValueError if there is no such rung."""
        if not 0 <= rung < len(LADDER):
            raise ValueError(f"no rung {rung} in a ladder of {len(LADDER)}")
        return cls._of(n_bits, LADDER[rung])

    @classmethod
    def _of(cls, n_bits: int, code: Code) -> Plan:
        if n_bits <= 0:
            raise ValueError(f"block of {n_bits} bits")
        return cls(code, n_bits)

    @property
    def frames(self) -> int:
        return -(-self.n_bits // FRAME_BITS)

    @property
    def syndrome_bits(self) -> int:
        """Bits disclosed by message 4, before any help."""
        return self.frames * self.code.syndrome_bits

    def frame_length(self, frame: int) -> int:
        """Bits of the block in a frame. Raises ValueError if there is no such frame."""
        if not 0 <= frame < self.frames:
            raise ValueError(f"no frame {frame} in a block of {self.frames}")
        return min(FRAME_BITS, self.n_bits - frame * FRAME_BITS)


def _frame(plan: Plan, bits: Bits, frame: int) -> Bits:
    part = bits[frame * FRAME_BITS : (frame + 1) * FRAME_BITS]
    return part if len(part) == FRAME_BITS else np.concatenate([part, np.zeros(FRAME_BITS - len(part), np.uint8)])


def _check_block(plan: Plan, bits: Bits) -> None:
    if len(bits) != plan.n_bits:
        raise ValueError(f"block of {len(bits)} bits, planned {plan.n_bits}")


def _places(plan: Plan, frame: int, round_: int) -> npt.NDArray[np.int64]:
    """Places in the frame that a round discloses: bits are grouped by their index modulo 16, in bit-reversed order."""
    if not 1 <= round_ <= LAST_ROUND:
        raise ValueError(f"no round {round_} of help")
    order = np.array([0, 8, 4, 12, 2, 10, 6, 14, 1, 9, 5, 13, 3, 11, 7, 15])
    index = np.arange(plan.frame_length(frame))
    return np.flatnonzero(np.isin(index % 16, order[_SIXTEENTHS[round_ - 1] : _SIXTEENTHS[round_]]))


def syndromes(plan: Plan, bits: Bits) -> bytes:
    """Alice: the syndromes of all frames, packed one after the other. Raises ValueError on another block length."""
    _check_block(plan, bits)
    return np.packbits(
        np.concatenate([syndrome(plan.code, _frame(plan, bits, f)) for f in range(plan.frames)])
    ).tobytes()


def disclosed_bits(plan: Plan, frame: int, round_: int) -> int:
    """Bits that a round of help discloses."""
    return len(_places(plan, frame, round_))


def disclose(plan: Plan, bits: Bits, frame: int, round_: int) -> bytes:
    """Alice: the packed bits of a frame that a round of help discloses. Raises ValueError on a bad frame or round."""
    _check_block(plan, bits)
    return np.packbits(_frame(plan, bits, frame)[_places(plan, frame, round_)]).tobytes()


def _unpacked(data: bytes, count: int) -> Bits:
    if len(data) != (count + 7) // 8:
        raise ValueError(f"{len(data)} bytes for {count} bits")
    return np.unpackbits(np.frombuffer(data, np.uint8), count=count)


class Corrector:
    """Bob's side of a block: takes Alice's syndromes, then her help, until every frame meets its syndrome."""

    def __init__(self, plan: Plan, bits: Bits, qber: float | None = None) -> None:
        _check_block(plan, bits)
        self.plan = plan
        self.iterations = 0
        self.failed_first = 0
        self._qber = plan.code.design_qber if qber is None else qber
        self._frames = [_frame(plan, bits, f).copy() for f in range(plan.frames)]
        self._syndromes: list[Bits] = []
        self._next_round: dict[int, int] = {}

    @property
    def done(self) -> bool:
        return bool(self._syndromes) and not self._next_round

    @property
    def bits(self) -> Bits:
        """The corrected block. Raises ValueError while frames are missing."""
        if not self.done:
            raise ValueError("block is not corrected yet")
        return np.concatenate(self._frames)[: self.plan.n_bits]

    def needs(self) -> Help:
        """(frame, round) of every disclosure still needed now."""
        return tuple(sorted(self._next_round.items()))

    def correct(self, data: bytes) -> Help:
        """Decode all frames; returns what is needed for those that failed. Raises ValueError on a wrong length."""
        flat = _unpacked(data, self.plan.syndrome_bits)
        self._syndromes = list(flat.reshape(self.plan.frames, -1))
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
        places = _places(self.plan, frame, round_)
        self._frames[frame][places] = _unpacked(disclosed, len(places))
        if self._decode(frame, round_):
            del self._next_round[frame]
            return True
        if round_ == LAST_ROUND:
            raise ValueError(f"frame {frame} contradicts its syndrome")
        self._next_round[frame] = round_ + 1
        return False

    def _decode(self, frame: int, rounds: int) -> bool:
        known = np.zeros(FRAME_BITS, np.bool_)
        known[self.plan.frame_length(frame) :] = True
        for past in range(1, rounds + 1):
            known[_places(self.plan, frame, past)] = True
        result = decode(self.plan.code, self._frames[frame], self._syndromes[frame], self._qber, known=known)
        self.iterations += result.iterations
        if result.ok and _touches(result.bits, self._frames[frame], known):
            return False
        self._frames[frame] = result.bits
        return result.ok


def _touches(after: Bits, before: Bits, known: npt.NDArray[np.bool_]) -> bool:
    """A correction that changes bits known for certain is a wrong one."""
    return bool((after[known] != before[known]).any())


def total_disclosed(plan: Plan, helped: Iterable[tuple[int, int]]) -> int:
    """The leak of a block's correction: syndromes and every round of help that was given."""
    return plan.syndrome_bits + sum(disclosed_bits(plan, frame, round_) for frame, round_ in helped)
