"""Reconciliation: throughput beside PyPI's `ldpc` on the same code, the ladder's efficiency, and the two decoders.

A row's efficiency f = leak / (n h(E)) counts syndromes, every round of help, and frames that had to be disclosed whole;
E is the QBER that the errors are drawn with. What the receiver has to know beforehand, the QBER, it is told exactly;
each frame still has its own number of errors.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.measure import Progress, Result, must_agree, same_arrays, silent
from qmodd.keys.jit import COMPILED
from qmodd.keys.reconciliation import (
    FRAME_BITS,
    LAST_ROUND,
    Code,
    Corrector,
    Help,
    Mode,
    Plan,
    backend,
    decode,
    disclose,
    select_code,
    syndrome,
    syndromes,
    total_disclosed,
    warm_up,
)
from qmodd.keys.reconciliation.codes import LIFT, binary_entropy
from qmodd.keys.reconciliation.decoder import Workspace
from qmodd.keys.reconciliation.long import USUAL_BITS

Bits = npt.NDArray[np.uint8]

# QBER -> most f of throughput mode.
THROUGHPUT = {0.02: 1.27, 0.05: 1.19}
# QBER -> most f of efficiency mode, at so many Mbit/s.
EFFICIENCY = {0.02: 1.15, 0.05: 1.10}
LEAST_MBPS = 10.0
EFFICIENCY_BLOCKS = 40
LEAST_RATIO = 300.0
FAILURES = 0.01
# Up to this QBER, most f of the ladder.
LADDER_LIMITS = ((0.005, 1.55), (0.01, 1.40), (0.015, 1.30), (0.02, 1.27), (0.03, 1.24), (0.09, 1.20))
LADDER_QBERS = tuple(round(0.0025 * i, 4) for i in range(1, 37))
LADDER_FRAMES = 60
THROUGHPUT_FRAMES = 400
_BATCH = 40
_TIMES = 5


@dataclass(frozen=True)
class Frames:
    """Bits of both sides, frame by frame."""

    alice: list[Bits]
    bob: list[Bits]

    @classmethod
    def make(cls, qber: float, count: int, seed: int) -> Frames:
        rng = np.random.default_rng(seed)
        alice = [rng.integers(0, 2, FRAME_BITS).astype(np.uint8) for _ in range(count)]
        return cls(alice, [a ^ (rng.random(FRAME_BITS, np.float32) < qber).astype(np.uint8) for a in alice])


def rows(progress: Progress = silent) -> Iterator[Result]:
    """Every row of reconciliation, a result at a time; some three minutes."""
    warm_up()
    for i, (qber, most) in enumerate(THROUGHPUT.items()):
        progress(0.15 * i, f"throughput at {100 * qber:g} %")
        yield from throughput(qber, most)
    for i, (qber, most) in enumerate(EFFICIENCY.items()):
        progress(0.3 + 0.06 * i, f"efficiency at {100 * qber:g} %")
        yield from efficiency(qber, most)
    progress(0.42, "the two decoders")
    yield fallback()
    for i, qber in enumerate(LADDER_QBERS):
        progress(0.45 + 0.55 * i / len(LADDER_QBERS), f"ladder at {100 * qber:g} %")
        yield ladder(qber)


def run(progress: Progress = silent) -> Iterable[Result]:
    """For `qmodd bench`."""
    return rows(progress)


def throughput(qber: float, most_f: float) -> Iterator[Result]:
    """Throughput mode on one core: failures, f, and speed beside product-sum, with which it must agree."""
    code, name = select_code(qber, hurry=True), f"ldpc_{100 * qber:g}_percent"
    yield failures(f"{name}_failures", code, qber)
    f = code.efficiency(qber)
    yield Result(f"{name}_f", f, "leak/(n h)", None, "", True, {"rows_count": float(code.rows)}, most_f)
    frames, ours, theirs = Frames.make(qber, _BATCH, 1), 0.0, 0.0
    for i in range(_TIMES):
        ours = max(ours, _speed(code, frames))
        theirs = max(theirs, product_sum(code, qber, frames.alice[i], frames.bob[i])) if find_spec("ldpc") else 0.0
    if not theirs:
        yield Result(name, ours, "Mbit/s", None, "", note="PyPI ldpc is not installed (extra `bench`)")
        return
    yield Result(name, ours, "Mbit/s", theirs, "PyPI ldpc, product-sum", limit=LEAST_RATIO * theirs)


def failures(name: str, code: Code, qber: float) -> Result:
    """Share of frames that do not decode at once; a frame that decodes to other bits than Alice's is one, too."""
    failed, iterations, work = 0, 0, Workspace(code.base)
    for batch in range(THROUGHPUT_FRAMES // _BATCH):
        frames = Frames.make(qber, _BATCH, 100 + batch)
        for alice, bob in zip(frames.alice, frames.bob, strict=True):
            result = decode(code, bob, syndrome(code, alice), workspace=work)
            failed += not np.array_equal(result.bits, alice)
            iterations += result.iterations
    detail = {"frames_count": float(THROUGHPUT_FRAMES), "iterations_mean": iterations / THROUGHPUT_FRAMES}
    return Result(name, failed / THROUGHPUT_FRAMES, "of frames", None, "", True, detail, FAILURES)


def _speed(code: Code, frames: Frames, decoder: str | None = None) -> float:
    """Mbit/s of all of Bob's work on a batch of frames: his syndromes, decoding, correction."""
    work = Workspace(code.base)
    wanted = [syndrome(code, alice) for alice in frames.alice]
    begun = time.perf_counter()
    for bob, target in zip(frames.bob, wanted, strict=True):
        decode(code, bob, target, workspace=work, name=decoder)
    return len(wanted) * FRAME_BITS / (time.perf_counter() - begun) / 1e6


def corrected(plan: Plan, qber: float, seed: int) -> tuple[Corrector, Help, float]:
    """One block through syndromes, decoder and help; what help was given, and the s of Bob's work."""
    rng = np.random.default_rng(seed)
    alice = rng.integers(0, 2, plan.n_bits).astype(np.uint8)
    data, helped = syndromes(plan, alice), []
    corrector = Corrector(plan, alice ^ (rng.random(plan.n_bits, np.float32) < qber).astype(np.uint8))
    begun = time.perf_counter()
    wanted = corrector.correct(data)
    taken = time.perf_counter() - begun
    while wanted:
        pieces = [disclose(plan, alice, frame, round_) for frame, round_ in wanted]
        begun = time.perf_counter()
        for (frame, round_), piece in zip(wanted, pieces, strict=True):
            corrector.assist(frame, round_, piece)
            helped.append((frame, round_))
        wanted = corrector.needs()
        taken += time.perf_counter() - begun
    must_agree("reconciliation", np.array_equal(corrector.bits, alice))
    return corrector, tuple(helped), taken


def efficiency(qber: float, most_f: float) -> Iterator[Result]:
    """Efficiency mode on one core: f and speed of whole blocks of one long frame, with all help counted in both. The
    speed is that of the best fifth of the blocks, since the host swings."""
    plan, name = Plan.make(USUAL_BITS, qber, Mode.EFFICIENCY), f"ldpc_long_{100 * qber:g}_percent"
    corrected(plan, qber, 0)  # builds the code before time counts
    leak, rounds, failed, iterations, times = 0, 0, 0, 0, []
    for seed in range(EFFICIENCY_BLOCKS):
        corrector, helped, taken = corrected(plan, qber, 1000 + seed)
        leak += total_disclosed(plan, helped)
        failed += corrector.failed_first
        rounds += len(helped)
        iterations += corrector.iterations
        times.append(taken)
    detail = {
        "frame_bits_count": float(plan.code.frame_bits),
        "rows_count": float(plan.code.rows),
        "blocks_count": float(EFFICIENCY_BLOCKS),
        "helped_count": float(failed),
        "rounds_count": float(rounds),
        "iterations_mean": iterations / EFFICIENCY_BLOCKS,
    }
    f = leak / (EFFICIENCY_BLOCKS * USUAL_BITS * binary_entropy(qber))
    yield Result(f"{name}_f", f, "leak/(n h)", None, "", True, detail, most_f)
    fifth = [sum(times[i::_TIMES]) for i in range(_TIMES)]
    speed = EFFICIENCY_BLOCKS / _TIMES * USUAL_BITS / min(fifth) / 1e6
    yield Result(name, speed, "Mbit/s", None, "", limit=LEAST_MBPS)


def parity_matrix(code: Code) -> Any:
    """The code as scipy's sparse matrix, (rows x 256, 65 536)."""
    base, lift = code.base, np.arange(LIFT)
    layer = np.repeat(np.arange(base.rows), np.diff(base.start))
    check = layer[:, None] * LIFT + lift
    bit = base.column[:, None] * LIFT + (base.shift[:, None] + lift) % LIFT
    ones = np.ones(check.size, np.uint8)
    csr_matrix = importlib.import_module("scipy.sparse").csr_matrix
    return csr_matrix((ones, (check.reshape(-1), bit.reshape(-1))), (code.syndrome_bits, FRAME_BITS))


def product_sum(code: Code, qber: float, alice: Bits, bob: Bits) -> float:
    """Mbit/s of PyPI's `ldpc` on one frame. Raises Mismatch if it comes to other bits than Alice's."""
    decoder = importlib.import_module("ldpc").BpDecoder(
        parity_matrix(code), error_rate=qber, max_iter=100, bp_method="product_sum", input_vector_type="syndrome"
    )
    difference = syndrome(code, alice) ^ syndrome(code, bob)
    begun = time.perf_counter()
    errors = decoder.decode(difference)
    taken = time.perf_counter() - begun
    must_agree("LDPC code", not decoder.converge or np.array_equal(bob ^ errors, alice))
    return FRAME_BITS / taken / 1e6


def fallback(qber: float = 0.02) -> Result:
    """The plain loops beside the vectors: the same frames, the same bits, iterations and all."""
    code, frames = select_code(qber, hurry=True), Frames.make(1.03 * qber, 8, 3)
    names = backend.NAMES if COMPILED else ("portable",)
    for alice, bob in zip(frames.alice, frames.bob, strict=True):
        results = [decode(code, bob, syndrome(code, alice), name=name) for name in names]
        must_agree("LDPC decoders", same_arrays([results[0].bits], [results[-1].bits]))
        must_agree("LDPC decoders", results[0].iterations == results[-1].iterations)
    plain = max(_speed(code, frames, "portable") for _ in range(_TIMES))
    vector = max(_speed(code, frames, names[0]) for _ in range(_TIMES))
    return Result("ldpc_fallback", plain, "Mbit/s", vector, f"decoder {names[0]!r}, same bits")


def ladder(qber: float, frames: int = LADDER_FRAMES) -> Result:
    """f of one block with the code that is chosen for its QBER, all help counted."""
    n = frames * FRAME_BITS
    plan = Plan.make(n, qber)
    corrector, helped, _ = corrected(plan, qber, round(1e6 * qber))
    detail = {
        "frames_count": float(frames),
        "helped_count": float(corrector.failed_first),
        "rounds_count": float(len(helped)),
        "whole_count": float(sum(round_ == LAST_ROUND for _, round_ in helped)),
        "iterations_mean": corrector.iterations / frames,
    }
    most = next(f for upto, f in LADDER_LIMITS if qber <= upto)
    f = total_disclosed(plan, helped) / (n * binary_entropy(qber))
    return Result(f"ladder_{100 * qber:.2f}", f, "leak/(n h)", None, "", True, detail, most)
