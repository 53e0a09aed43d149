"""Sifting of one batch: DETECT, BASIS, and what both sides keep."""

from __future__ import annotations

import zlib

import numpy as np

from benchmarks.acceptance import accept
from benchmarks.light import SLOTS_PER_S, Bits, Int64s, Sampler, symbols
from benchmarks.measure import Result, best_of, must_agree, same_arrays
from qmodd.keys.frames import FrameBatch
from qmodd.keys.sifting import (
    Sifted,
    decode_basis,
    decode_detect,
    encode_basis,
    encode_detect,
    match,
    sift_alice,
    sift_bob,
)

SLOTS = SLOTS_PER_S // 2


def sift(batch: FrameBatch, nibbles: Bits) -> tuple[Sifted, Sifted]:
    """Both sides, through the bytes of the service channel."""
    detect = decode_detect(encode_detect(batch.first_slot, batch.end_slot, batch.slots, batch.basis))
    answer = match(detect.basis, nibbles)
    kept, _ = sift_bob(batch, decode_basis(encode_basis(answer), batch.basis))
    return sift_alice(detect, answer), kept


def numpy_sift(batch: FrameBatch, nibbles: Bits) -> tuple[Int64s, Bits, Bits]:
    """Arrays only, nothing sent: slots, Alice's bits, Bob's bits of the matches."""
    hit = ((nibbles ^ batch.basis) & 1) == 0
    return batch.slots[hit], (nibbles[hit] >> 1) & 1, batch.bit[hit]


def run(slots: int = SLOTS, times: int = 5) -> list[Result]:
    """Nanoseconds a detection of both sides together, and bytes of DETECT; zlib is the reference of the bytes."""
    tags, channels = Sampler().block(slots)
    batch = accept(tags, channels, slots)
    n, nibbles = len(batch.slots), symbols(batch.slots)
    alice, bob = sift(batch, nibbles)
    theirs = numpy_sift(batch, nibbles)
    must_agree("sifting", same_arrays((alice.slots, alice.bit, bob.bit), theirs))
    coded = best_of(lambda: sift(batch, nibbles), times)
    plain = best_of(lambda: numpy_sift(batch, nibbles), times)
    size = len(encode_detect(batch.first_slot, batch.end_slot, batch.slots, batch.basis)) / n
    gaps = np.diff(batch.slots, prepend=batch.first_slot).astype("<u2").tobytes()
    packed = (len(zlib.compress(gaps, 6)) + n / 8) / n
    return [
        Result("sifting", 1e9 * coded / n, "ns/detection", 1e9 * plain / n, "numpy, nothing coded", True),
        Result("detect_size", size, "byte/detection", packed, "zlib of the gaps, level 6", True),
    ]
