"""Reconciliation: whole blocks at several QBERs, through syndromes, decoder and help, beside a decoder in numpy."""

from __future__ import annotations

import time
from math import log2

import numpy as np
import numpy.typing as npt

from benchmarks.light import Bits
from benchmarks.measure import Result, must_agree, same_arrays
from qmodd.keys.reconciliation import (
    FRAME_BITS,
    Code,
    Corrector,
    Plan,
    decode,
    disclose,
    disclosed_bits,
    syndrome,
    syndromes,
)
from qmodd.keys.reconciliation.codes import COLUMNS, LIFT, Schedule
from qmodd.keys.reconciliation.decoder import factors

Int16s = npt.NDArray[np.int16]

QBERS = (0.005, 0.01, 0.02, 0.05)
FRAMES = 64


def numpy_decode(code: Code, bits: Bits, wanted: Bits) -> Bits | None:
    """The layered min-sum of `reconciliation.portable`, integer by integer, with numpy along the lift."""
    base = code.base
    target = (syndrome(code, bits) ^ wanted).reshape(-1, LIFT).astype(bool)
    posterior = np.full((COLUMNS, LIFT), code.schedule.channel, np.int16)
    message = np.zeros((len(base.column), LIFT), np.int16)
    turn = (np.arange(LIFT)[None, :] + base.shift[:, None]) % LIFT
    scale = factors(code.schedule)
    for iteration in range(code.schedule.most):
        factor, violated = int(scale[min(iteration, len(scale) - 1)]), False
        for row in range(code.rows):
            edges = base.edges_of(row)
            where = (base.column[edges][:, None], turn[edges])
            before = posterior[where]
            violated |= bool((np.logical_xor.reduce(before < 0, axis=0) != target[row]).any())
            message[edges], posterior[where] = _row(before, message[edges], target[row], factor, code.schedule)
        if not violated and np.array_equal(syndrome(code, bits ^ _errors(posterior)), wanted):
            return bits ^ _errors(posterior)
    return None


def _row(
    before: Int16s, message: Int16s, target: npt.NDArray[np.bool_], factor: int, schedule: Schedule
) -> tuple[Int16s, Int16s]:
    q = np.clip(before - message, -128, 127)
    size = np.abs(q)
    least, second = np.minimum(np.sort(size, axis=0)[:2], 127)
    raw = [np.maximum(s.astype(np.int64) * factor - schedule.offset, 0) for s in (least, second)]
    first, other = (np.minimum((r + 64) >> 7, schedule.cap) for r in raw)
    r = np.where(size == least, other, first)
    r = np.where(np.logical_xor.reduce(q < 0, axis=0) ^ target ^ (q < 0), -r, r).astype(np.int16)
    return r, np.clip(q + r, -128, 127)


def _errors(posterior: Int16s) -> Bits:
    return (posterior < 0).astype(np.uint8).reshape(-1)


def one_block(qber: float, frames: int, seed: int) -> tuple[float, int, int, float]:
    """(decoding s, bits disclosed, frames that needed help, iterations a frame) of one block."""
    rng = np.random.default_rng(seed)
    alice = rng.integers(0, 2, frames * FRAME_BITS).astype(np.uint8)
    bob = alice ^ (rng.random(len(alice)) < qber).astype(np.uint8)
    plan = Plan.make(len(alice), qber)
    data = syndromes(plan, alice)
    corrector = Corrector(plan, bob)
    leak, spent = plan.syndrome_bits, 0.0
    begun = time.perf_counter()
    wanted = corrector.correct(data)
    spent += time.perf_counter() - begun
    while wanted:
        for frame, round_ in wanted:
            piece = disclose(plan, alice, frame, round_)
            leak += disclosed_bits(plan, frame, round_)
            begun = time.perf_counter()
            corrector.assist(frame, round_, piece)
            spent += time.perf_counter() - begun
        wanted = corrector.needs()
    must_agree("reconciliation", np.array_equal(corrector.bits, alice))
    return spent, leak, corrector.failed_first, corrector.iterations / frames


def reference_mbps(qber: float, seed: int) -> float:
    """One frame in numpy, which must come to the same bits as the compiled decoder."""
    rng = np.random.default_rng(seed)
    alice = rng.integers(0, 2, FRAME_BITS).astype(np.uint8)
    bob = alice ^ (rng.random(FRAME_BITS) < qber).astype(np.uint8)
    code = Plan.make(FRAME_BITS, qber).code
    wanted = syndrome(code, alice)
    begun = time.perf_counter()
    theirs = numpy_decode(code, bob, wanted)
    taken = time.perf_counter() - begun
    ours = decode(code, bob, wanted)
    must_agree("LDPC decoder", same_arrays([ours.bits], [theirs]) if theirs is not None else not ours.ok)
    return FRAME_BITS / taken / 1e6


def run(frames: int = FRAMES) -> list[Result]:
    """Mbit/s of decoding, and efficiency f = leak/(n h(E)) with all help counted; the floor of f is 1."""
    one_block(0.01, 1, 0)  # compiles
    results = []
    for qber in QBERS:
        seconds, leak, failed, iterations = min(one_block(qber, frames, 1) for _ in range(2))
        n = frames * FRAME_BITS
        h = -qber * log2(qber) - (1 - qber) * log2(1 - qber)
        detail = {
            "f": leak / (n * h),
            "frames_count": float(frames),
            "frames_failed_count": float(failed),
            "iterations_mean": iterations,
        }
        name, reference = f"ldpc_{100 * qber:g}_percent", reference_mbps(qber, 2)
        results.append(Result(name, n / seconds / 1e6, "Mbit/s", reference, "numpy, one frame", detail=detail))
    return results
