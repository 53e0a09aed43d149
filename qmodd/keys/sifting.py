"""Sifting: DETECT, BASIS and what both sides keep (reference pair B4). Pure functions of arrays and bytes.

Bob tells slots and bases of his detections, never a bit or a time; Alice answers which match, their intensity, and her
X bits. Decoders take bytes of an untrusted peer: whatever is malformed raises ValueError, and memory stays bounded by
a small multiple of the message.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, log2

import numpy as np
import numpy.typing as npt

from qmodd.keys import matching, rice
from qmodd.keys.counts import BatchReport, BlockCounts
from qmodd.keys.frames import FrameBatch
from qmodd.keys.matching import BASIS_BIT, DECOY_BIT, INVALID, VALUE_BIT

Int64s = npt.NDArray[np.int64]
Bits = npt.NDArray[np.uint8]

_DETECT = struct.Struct("<QIIB")  # first slot, span in slots, detections, Rice parameter
_BASIS = struct.Struct("<II")  # detections answered, matches

__all__ = [
    "BASIS_BIT",
    "DECOY_BIT",
    "INVALID",
    "VALUE_BIT",
    "Basis",
    "Detect",
    "Match",
    "Sifted",
    "agrees",
    "count",
    "decode_basis",
    "decode_detect",
    "encode_basis",
    "encode_detect",
    "look_up",
    "match",
    "sift_alice",
    "sift_bob",
    "z_errors",
]


@dataclass(frozen=True)
class Detect:
    """Bob's detections of the slots [first_slot, end_slot): ascending slots, basis 1 = X."""

    first_slot: int
    end_slot: int
    slots: Int64s
    basis: Bits


@dataclass(frozen=True)
class Match:
    """Alice's answer: `match` over all detections; basis, her bit, decoy flag over the matching ones."""

    match: npt.NDArray[np.bool_]
    basis: Bits
    bit: Bits
    decoy: Bits


@dataclass(frozen=True)
class Basis:
    """The same as Bob gets it: `match` over his detections, decoy flags of the matches, her bits of the X matches."""

    match: npt.NDArray[np.bool_]
    decoy: Bits
    x_bit: Bits


def _pack(bits: npt.NDArray[np.bool_] | Bits) -> bytes:
    return np.packbits(np.asarray(bits, np.uint8)).tobytes()


def _unpack(data: memoryview, count: int) -> Bits:
    """Raises ValueError if the padding of the last byte is not zero: every message has one encoding."""
    bits = np.unpackbits(np.frombuffer(data, np.uint8))
    if bits[count:].any():
        raise ValueError("padding is not zero")
    return bits[:count]


def _rice_parameter(slots: Int64s, first: int) -> int:
    """The best of the parameters next to floor(log2(0.69 mean gap)), which is within one of the best."""
    if len(slots) == 0:
        return 0
    mean = (int(slots[-1]) - first + 1) / len(slots) - 1
    guess = min(rice.MAX_K, floor(log2(0.69 * mean))) if mean > 1.5 else 0
    near = range(max(0, guess - 1), min(rice.MAX_K, guess + 1) + 1)
    return min(near, key=lambda k: int(rice.length(slots, first, k)))


def encode_detect(first_slot: int, end_slot: int, slots: Int64s, basis: Bits) -> bytes:
    """DETECT: header, Rice-coded gaps, basis bitmap. About 1.1 bytes a detection at 10 dB.

    Raises ValueError if the slots are not strictly ascending in [first_slot, end_slot).
    """
    slots = np.ascontiguousarray(slots, np.int64)
    span = end_slot - first_slot
    if len(slots) != len(basis) or not rice.ascending(slots, first_slot, end_slot):
        raise ValueError("slots must be ascending, inside their range, one basis each")
    if not (0 <= first_slot < 2**63 and 0 <= span < 2**32):
        raise ValueError(f"slots from {first_slot} over {span} do not fit")
    k = _rice_parameter(slots, first_slot)
    coded = np.empty((int(rice.length(slots, first_slot, k)) + 7) // 8, np.uint8)
    rice.encode(slots, first_slot, k, coded)
    return _DETECT.pack(first_slot, span, len(slots), k) + coded.tobytes() + _pack(basis)


def decode_detect(data: bytes, max_count: int = 1 << 22) -> Detect:
    """Raises ValueError if the bytes are not exactly one DETECT of at most `max_count` detections."""
    if len(data) < _DETECT.size:
        raise ValueError("DETECT is cut short")
    first, span, count, k = _DETECT.unpack_from(data)
    body = memoryview(data)[_DETECT.size :]
    bitmap = (count + 7) // 8
    if count > min(max_count, span, 8 * len(body)) or k > rice.MAX_K or first + span >= 2**63 or bitmap > len(body):
        raise ValueError("DETECT's header contradicts its length")
    coded = body[: len(body) - bitmap]
    slots = np.empty(count, np.int64)
    padded = np.frombuffer(bytes(coded) + bytes(rice.PAD), np.uint8)
    used = int(rice.decode(padded, k, span, slots))
    if used < 0 or (used + 7) // 8 != len(coded) or (used % 8 and coded[-1] & (0xFF >> used % 8)):
        raise ValueError("DETECT's gaps are malformed")
    slots += first
    return Detect(first, first + span, slots, _unpack(body[len(coded) :], count))


def _matched(hit: npt.NDArray[np.bool_], kept: Bits) -> Match:
    basis, bit, decoy = (((kept & flag) != 0).astype(np.uint8) for flag in (BASIS_BIT, VALUE_BIT, DECOY_BIT))
    return Match(hit, basis, bit, decoy)


def match(basis_bob: Bits, nibbles: Bits) -> Match:
    """Alice: which of Bob's detections she prepared in the same basis.

    `nibbles` are her symbols of the same slots: bit 0 basis (1 X), bit 1 value, bit 2 decoy, bit 3 not valid (never a
    match). Raises ValueError if the lengths differ.
    """
    return _matched(*matching.match(basis_bob, nibbles))


def look_up(detect: Detect, record: Bits, first_slot: int) -> Match:
    """`match` for who has a dense record of the symbols from `first_slot` on, two slots a byte, the earlier one in the
    low half. A slot outside it matches nothing."""
    return _matched(*matching.look_up(detect.slots, detect.basis, record, first_slot))


def encode_basis(m: Match) -> bytes:
    """BASIS: match bitmap, decoy flags of the matches, her bits of the X matches. Reveals no Z bit."""
    return _BASIS.pack(len(m.match), len(m.basis)) + _pack(m.match) + _pack(m.decoy) + _pack(m.bit[m.basis == 1])


def decode_basis(data: bytes, basis_bob: Bits) -> Basis:
    """Bob: the answer to his detections. Raises ValueError if it is not exactly one answer to them."""
    if len(data) < _BASIS.size:
        raise ValueError("BASIS is cut short")
    count, matches = _BASIS.unpack_from(data)
    body = memoryview(data)[_BASIS.size :]
    a, b = (count + 7) // 8, (matches + 7) // 8
    if count != len(basis_bob) or matches > count or len(body) < a + b:
        raise ValueError("BASIS does not answer these detections")
    hit = _unpack(body[:a], count).astype(np.bool_)
    if int(np.count_nonzero(hit)) != matches:
        raise ValueError("BASIS counts its matches wrongly")
    x = int(np.count_nonzero(hit & (basis_bob == 1)))
    if len(body) != a + b + (x + 7) // 8:
        raise ValueError("BASIS has the wrong length for its X matches")
    return Basis(hit, _unpack(body[a : a + b], matches), _unpack(body[a + b :], x))


@dataclass(frozen=True)
class Sifted:
    """Matched detections of one side in slot order: own bit; `peer_x` Alice's announced X bit (Bob's side), else 0."""

    slots: Int64s
    basis: Bits
    bit: Bits
    decoy: Bits
    peer_x: Bits

    @classmethod
    def empty(cls) -> Sifted:
        none = np.empty(0, np.uint8)
        return cls(np.empty(0, np.int64), none, none, none, none)

    @classmethod
    def concat(cls, parts: Sequence[Sifted]) -> Sifted:
        """The parts one after the other, which must be their slot order."""
        if not parts:
            return cls.empty()
        return cls(
            *(
                np.concatenate([getattr(p, name) for p in parts])
                for name in ("slots", "basis", "bit", "decoy", "peer_x")
            )
        )

    @property
    def n_z(self) -> int:
        return len(self.basis) - int(self.basis.sum())

    @property
    def z_bits(self) -> Bits:
        """Own bits of the Z detections: what becomes key."""
        z: Bits = self.bit[self.basis == 0]
        return z

    @property
    def z_decoy(self) -> Bits:
        z: Bits = self.decoy[self.basis == 0]
        return z

    def cut(self, n_z: int) -> tuple[Sifted, Sifted]:
        """(up to the n_z-th Z detection, the rest): a block closes by count. Raises ValueError if there are fewer."""
        if not 0 < n_z <= self.n_z:
            raise ValueError(f"{self.n_z} Z detections, cannot close at {n_z}")
        at = int(np.flatnonzero(self.basis == 0)[n_z - 1]) + 1
        names = ("slots", "basis", "bit", "decoy", "peer_x")
        return Sifted(*(getattr(self, n)[:at] for n in names)), Sifted(*(getattr(self, n)[at:] for n in names))


def sift_alice(detect: Detect, m: Match) -> Sifted:
    """What Alice keeps of a batch."""
    return Sifted(detect.slots[m.match], m.basis, m.bit, m.decoy, np.zeros(len(m.basis), np.uint8))


def sift_bob(batch: FrameBatch, basis: Basis) -> tuple[Sifted, BatchReport]:
    """What Bob keeps of a batch, and its tally."""
    slots, own_basis, own_bit, peer, tally = matching.keep(
        batch.slots, batch.basis, batch.bit, basis.match, basis.decoy, basis.x_bit
    )
    kept = Sifted(slots, own_basis, own_bit, basis.decoy, peer)
    n_z, n_x0, e_x0, n_x1, e_x1 = ((int(signal), int(decoy)) for signal, decoy in tally)
    c = batch.counters
    # Of detections that no key is made of: a sum over the others would be a function of key bits, which nothing pays
    # for.
    spare = batch.bit[(batch.basis == 0) & ~basis.match]
    late = int(np.count_nonzero(spare))
    report = BatchReport(
        batch.first_slot,
        batch.end_slot,
        c.live_slots,
        c.cross,
        c.double_x,
        c.veto,
        c.out_of_gate,
        len(spare) - late,
        late,
        n_z,
        n_x0,
        e_x0,
        n_x1,
        e_x1,
        c.satellites,
    )
    return kept, report


def count(sifted: Sifted) -> BlockCounts:
    """Counts of a block. `m_x` is right on Bob's side only, since Alice does not know his bits; `m_z` is zero."""
    x = sifted.basis == 1
    decoy = sifted.decoy == 1
    wrong = x & (sifted.bit != sifted.peer_x)

    def per_intensity(chosen: npt.NDArray[np.bool_]) -> tuple[int, int]:
        return int(np.count_nonzero(chosen & ~decoy)), int(np.count_nonzero(chosen & decoy))

    return BlockCounts(per_intensity(~x), (0, 0), per_intensity(x), per_intensity(wrong))


def agrees(alice: BlockCounts, bob: BlockCounts) -> bool:
    """Both sides must count the same detections before estimation."""
    return alice.n_z == bob.n_z and alice.n_x == bob.n_x


def z_errors(before: Bits, after: Bits, decoy: Bits) -> tuple[int, int]:
    """Errors that correction found, (signal, decoy): `before`, `after` Bob's Z bits, `decoy` their intensity."""
    flipped = before != after
    decoys = int(np.count_nonzero(flipped & (decoy == 1)))
    return int(np.count_nonzero(flipped)) - decoys, decoys
