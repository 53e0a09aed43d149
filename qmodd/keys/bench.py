"""The heavy work of one module's key engine, as plain calls: in place in simulated time, in a worker process else.

A `Bench` keeps what lasts over calls, and above all the bits: detections from their tags until Alice has answered,
blocks from then until they are keys. Who calls it handles names (`Held`), counts, and what is said to the far end.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count

import numpy as np
import numpy.typing as npt

from qmodd.keys.accounting import StageTally
from qmodd.keys.amplification import amplify, seed_bytes
from qmodd.keys.counts import BatchReport, BlockCounts
from qmodd.keys.frames import FrameBatch, FrameBuilder, FrameClock, FrameCounters, Gates, Residuals
from qmodd.keys.framesync import FoldResult, SyncRefused, SyncResult, acquire, fold_delays
from qmodd.keys.matching import keep
from qmodd.keys.material import Gathered, Gatherer, Held, Material, split_compiled
from qmodd.keys.pilot import PilotCounts, kept_out, without_pilot
from qmodd.keys.reconciliation import Corrector, Help, Plan, disclose, syndromes, total_disclosed, warm_up
from qmodd.keys.sifting import Detect, Sifted, decode_basis, decode_detect, encode_detect, sift_bob, z_errors
from qmodd.keys.verification import verification_tag
from qmodd.randomness import Randomness

Bits = npt.NDArray[np.uint8]
Int64s = npt.NDArray[np.int64]


class NotOpen(Exception):
    """The bench has lost, or never had, the state that a call continues."""


@dataclass(frozen=True)
class Seen:
    """A batch of detections without the detections, which stay on the bench under `first_slot`. `counters` count all
    slots; `pilot` is what its pilot slots held, None if the plan has none. `detect` is DETECT where nothing is left to
    be decided about the batch: `announce` is for the others."""

    first_slot: int
    end_slot: int
    counters: FrameCounters
    tracking: Residuals
    pilot: PilotCounts | None
    detect: bytes = b""


@dataclass(frozen=True)
class Corrected:
    """Bob's block after correction, counted by the one who did it: `failed_first` of `frames` frames needed help,
    `leak_bits` were disclosed, `m_z` were errors (signal, decoy)."""

    frames: int
    failed_first: int
    iterations: int
    leak_bits: int
    m_z: tuple[int, int]


def _edges(batch: FrameBatch) -> tuple[int, int]:
    return batch.first_slot, batch.end_slot


def _detect(batch: FrameBatch) -> bytes:
    return encode_detect(*_edges(batch), batch.slots, batch.basis)


class Run:
    """What one run has between its tags and its blocks. A run that was given up keeps its own until its last call."""

    def __init__(self, frames: FrameBuilder) -> None:
        self.frames = frames
        self.batches: dict[int, FrameBatch] = {}
        self.gatherer: Gatherer | None = None

    def batch(self, first_slot: int) -> FrameBatch:
        """Raises NotOpen."""
        batch = self.batches.get(first_slot)
        if batch is None:
            raise NotOpen(f"the batch from slot {first_slot} is gone")
        return batch


class Bench:
    """Raises what the pure functions raise (ValueError on a peer's malformed data), and NotOpen.

    Calls of the lanes of `worker` may come from as many threads: what lanes share are dictionaries of which each entry
    is used by one lane at a time.
    """

    def __init__(self, randomness: Randomness) -> None:
        self._random = randomness
        self._run: Run | None = None
        # From a random start: a name that another bench gave, before this one took its place, must not fit here.
        self._numbers = count(int.from_bytes(randomness.bytes(6), "little"))
        self._blocks: dict[int, Material] = {}
        self._correctors: dict[int, tuple[Corrector, list[tuple[int, int]]]] = {}
        self._tallies: dict[int, StageTally] = {}

    # --- from tags to blocks ---

    def open_frames(self, gates: Gates, holdoff: int, delays_ps: tuple[float, float, float], first_slot: int) -> None:
        """A run begins; what an earlier one left open is dropped."""
        self._run = Run(FrameBuilder(gates, holdoff, delays_ps, first_slot))

    def _open_run(self) -> Run:
        if self._run is None:
            raise NotOpen("the frame builder is gone")
        return self._run

    def accept(
        self,
        t: Int64s,
        channel: Bits,
        to_ps: int,
        clock: FrameClock,
        lost_ps: Sequence[tuple[int, int]],
        drop: Int64s,
        pilot_every: int = 0,
    ) -> Seen:
        run = self._open_run()
        batch = run.frames.push(t, channel, to_ps, clock, self._random.bytes, lost_ps=lost_ps, drop=drop)
        counters, pilot = batch.counters, None
        if pilot_every:
            batch, pilot = without_pilot(batch, pilot_every, clock.period_ps * 1e-12)
        if batch.end_slot > batch.first_slot:
            run.batches[batch.first_slot] = batch
        whole = pilot is None and batch.end_slot > batch.first_slot
        return Seen(*_edges(batch), counters, batch.tracking, pilot, _detect(batch) if whole else b"")

    def announce(self, first_slot: int, keep: bool) -> bytes:
        """DETECT of a batch; without any detection if it is not to be kept."""
        run = self._open_run()
        batch = run.batch(first_slot)
        if not keep:
            batch = run.batches[first_slot] = kept_out(batch)
        return _detect(batch)

    def sift(self, first_slot: int, basis: bytes, n_z: int) -> tuple[BatchReport, Gathered]:
        """Take Alice's answer to a batch; blocks close at `n_z` Z detections and stay here."""
        run = self._open_run()
        batch = run.batch(first_slot)
        sifted, report = sift_bob(batch, decode_basis(basis, batch.basis))
        del run.batches[first_slot]
        gatherer = run.gatherer = run.gatherer or Gatherer(n_z, split_compiled)
        closed = tuple(self.hold(m) for m in gatherer.add(sifted))
        return report, Gathered(closed, gatherer.n_z)

    def encode_detect(self, first_slot: int, end_slot: int, slots: Int64s, basis: Bits) -> bytes:
        return encode_detect(first_slot, end_slot, slots, basis)

    def decode_detect(self, data: bytes) -> Detect:
        return decode_detect(data)

    def acquire(self, tags_dz: Int64s, period_ps: float, bin_ps: float) -> SyncResult | SyncRefused:
        return acquire(tags_dz, period_ps, bin_ps)

    def fold_delays(self, tags: Int64s, channels: Bits, clock: FrameClock, bin_ps: float) -> FoldResult | SyncRefused:
        return fold_delays(tags, channels, clock, bin_ps)

    # --- blocks ---

    def hold(self, material: Material) -> Held:
        """Keep a closed block here until `release`."""
        number = next(self._numbers)
        self._blocks[number] = material
        self._tallies[number] = StageTally(gathered=len(material.z_bits))
        return Held(number, material.counts, material.first_slot, material.end_slot)

    def release(self, held: Held) -> None:
        """Forget a block, whatever stage it is in. May be repeated."""
        for kept in (self._blocks, self._correctors, self._tallies):
            kept.pop(held.number, None)

    def _material(self, held: Held) -> Material:
        material = self._blocks.get(held.number)
        if material is None:
            raise NotOpen("the block is gone")
        return material

    def _tally(self, held: Held, **counted: int) -> None:
        self._tallies[held.number] = replace(self._tallies[held.number], **counted)

    def tally(self, held: Held) -> StageTally:
        """What every stage has counted of a block."""
        self._material(held)
        return self._tallies[held.number]

    def syndromes(self, held: Held, plan: Plan) -> bytes:
        bits = self._material(held).z_bits
        data = syndromes(plan, bits)
        self._tally(held, corrected=len(bits))
        return data

    def disclose(self, held: Held, plan: Plan, wanted: Help) -> tuple[bytes, ...]:
        bits = self._material(held).z_bits
        return tuple(disclose(plan, bits, frame, round_) for frame, round_ in wanted)

    def correct(self, held: Held, plan: Plan, data: bytes) -> Help:
        corrector = Corrector(plan, self._material(held).z_bits)
        self._correctors[held.number] = corrector, []
        return corrector.correct(data)

    def assist(self, held: Held, wanted: Help, pieces: tuple[bytes, ...]) -> Help:
        corrector, given = self._open_corrector(held)
        for (frame, round_), piece in zip(wanted, pieces, strict=True):
            corrector.assist(frame, round_, piece)
            given.append((frame, round_))
        return corrector.needs()

    def corrected(self, held: Held) -> Corrected:
        """The corrected bits take the place of the block's."""
        c, given = self._open_corrector(held)
        before, after = self._material(held), c.bits
        m_z = z_errors(before.z_bits, after, before.z_decoy)
        del self._correctors[held.number]
        self._blocks[held.number] = replace(before, z_bits=after, z_decoy=after[:0])
        leak = total_disclosed(c.plan, given)
        self._tally(held, corrected=len(after), disclosed=leak)
        return Corrected(c.plan.frames, c.failed_first, c.iterations, leak, m_z)

    def _open_corrector(self, held: Held) -> tuple[Corrector, list[tuple[int, int]]]:
        found = self._correctors.get(held.number)
        if found is None:
            raise NotOpen("the corrector is gone")
        return found

    def verification_tag(self, key: bytes, held: Held) -> bytes:
        bits = self._material(held).z_bits
        tag = verification_tag(key, bits)
        self._tally(held, verified=len(bits))
        return tag

    def amplify(self, held: Held, seed: bytes, m: int) -> Bits:
        """m secret bits, packed; whoever gets them wipes them."""
        bits = self._material(held).z_bits
        packed = np.packbits(amplify(bits, seed, m))
        self._tally(held, amplified=len(bits), secret=m)
        return packed

    def pid(self) -> int:
        """Of the process that does the work."""
        return os.getpid()

    def warm_up(self) -> None:
        """Compile, or load from the cache, every kernel, so that no batch waits for it."""
        clock = FrameClock(0, 0, 0.0, 8000.0)
        self.open_frames(Gates(), 1, (0.0, 0.0, 0.0), 0)
        t = np.arange(4, dtype=np.int64) * 80_000
        self.accept(t, np.zeros(4, np.uint8), 400_000, clock, (), np.empty((0, 2), np.int64))
        self._run = None
        none = np.zeros(4, np.uint8)
        split_compiled(Sifted(t, none, none, none, none))
        self.decode_detect(self.encode_detect(0, 100, np.array([3, 70], np.int64), np.zeros(2, np.uint8)))
        two = np.zeros(2, np.uint8)
        keep(np.array([3, 70], np.int64), two, two, two == 1, two[:0], two[:0])
        warm_up()
        held = self.hold(
            Material(
                np.zeros(1000, np.uint8), np.zeros(1000, np.uint8), BlockCounts((0, 0), (0, 0), (0, 0), (0, 0)), 0, 1
            )
        )
        self.verification_tag(bytes(16), held)
        self.amplify(held, bytes(seed_bytes(1000, 8)), 8)
        self.release(held)
