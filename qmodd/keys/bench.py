"""The heavy work of one module's key engine, as plain calls: in place in simulated time, in a worker process else.

A `Bench` keeps what lasts over calls: the frame builder of the run and the corrector of the block in work.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qmodd.keys.amplification import amplify, seed_bytes
from qmodd.keys.frames import FrameBatch, FrameBuilder, FrameClock, Gates
from qmodd.keys.framesync import FoldResult, SyncRefused, SyncResult, acquire, fold_delays
from qmodd.keys.reconciliation import Corrector, Help, Plan, disclose, syndromes
from qmodd.keys.sifting import Detect, decode_detect, encode_detect
from qmodd.keys.verification import verification_tag
from qmodd.randomness import Randomness

Bits = npt.NDArray[np.uint8]
Int64s = npt.NDArray[np.int64]


class NotOpen(Exception):
    """The bench has lost, or never had, the state that a call continues."""


@dataclass(frozen=True)
class Corrected:
    """Bob's block after correction; `failed_first` frames needed help."""

    bits: Bits
    frames: int
    failed_first: int
    iterations: int


class Bench:
    """Raises what the pure functions raise (ValueError on a peer's malformed data), and NotOpen."""

    def __init__(self, randomness: Randomness) -> None:
        self._random = randomness
        self._frames: FrameBuilder | None = None
        self._corrector: Corrector | None = None

    def open_frames(self, gates: Gates, holdoff: int, delays_ps: tuple[float, float, float], first_slot: int) -> None:
        self._frames = FrameBuilder(gates, holdoff, delays_ps, first_slot)

    def accept(
        self, t: Int64s, channel: Bits, to_ps: int, clock: FrameClock, lost_ps: Sequence[tuple[int, int]], drop: Int64s
    ) -> FrameBatch:
        if self._frames is None:
            raise NotOpen("the frame builder is gone")
        return self._frames.push(t, channel, to_ps, clock, self._random.bytes, lost_ps=lost_ps, drop=drop)

    def encode_detect(self, first_slot: int, end_slot: int, slots: Int64s, basis: Bits) -> bytes:
        return encode_detect(first_slot, end_slot, slots, basis)

    def decode_detect(self, data: bytes) -> Detect:
        return decode_detect(data)

    def acquire(self, tags_dz: Int64s, period_ps: float, bin_ps: float) -> SyncResult | SyncRefused:
        return acquire(tags_dz, period_ps, bin_ps)

    def fold_delays(self, tags: Int64s, channels: Bits, clock: FrameClock, bin_ps: float) -> FoldResult | SyncRefused:
        return fold_delays(tags, channels, clock, bin_ps)

    def syndromes(self, bits: Bits, qber: float) -> bytes:
        return syndromes(Plan.make(len(bits), qber), bits)

    def disclose(self, bits: Bits, qber: float, wanted: Help) -> tuple[bytes, ...]:
        plan = Plan.make(len(bits), qber)
        return tuple(disclose(plan, bits, frame, round_) for frame, round_ in wanted)

    def correct(self, bits: Bits, qber: float, data: bytes) -> Help:
        self._corrector = Corrector(Plan.make(len(bits), qber), bits)
        return self._corrector.correct(data)

    def assist(self, wanted: Help, pieces: tuple[bytes, ...]) -> Help:
        corrector = self._open_corrector()
        for (frame, round_), piece in zip(wanted, pieces, strict=True):
            corrector.assist(frame, round_, piece)
        return corrector.needs()

    def corrected(self) -> Corrected:
        c = self._open_corrector()
        self._corrector = None
        return Corrected(c.bits, c.plan.frames, c.failed_first, c.iterations)

    def _open_corrector(self) -> Corrector:
        if self._corrector is None:
            raise NotOpen("the corrector is gone")
        return self._corrector

    def verification_tag(self, key: bytes, bits: Bits) -> bytes:
        return verification_tag(key, bits)

    def amplify(self, bits: Bits, seed: bytes, m: int) -> bytearray:
        """m secret bits, packed."""
        return bytearray(np.packbits(amplify(bits, seed, m)).tobytes())

    def pid(self) -> int:
        """Of the process that does the work."""
        return os.getpid()

    def warm_up(self) -> None:
        """Compile, or load from the cache, every kernel, so that no batch waits for it."""
        clock = FrameClock(0, 0, 0.0, 8000.0)
        self.open_frames(Gates(), 1, (0.0, 0.0, 0.0), 0)
        t = np.arange(4, dtype=np.int64) * 80_000
        self.accept(t, np.zeros(4, np.uint8), 400_000, clock, (), np.empty((0, 2), np.int64))
        self._frames = None
        self.decode_detect(self.encode_detect(0, 100, np.array([3, 70], np.int64), np.zeros(2, np.uint8)))
        bits = np.zeros(1000, np.uint8)
        self.correct(bits, 0.01, self.syndromes(bits, 0.01))
        self._corrector = None
        self.amplify(bits, bytes(seed_bytes(1000, 8)), 8)
