"""Kernels of the key engine, on one core: privacy amplification, sifting against a dense record, histogram, merge.

References are computed in the same run on the same data and must give the same result; every time is the best of five.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from benchmarks.measure import Progress, Result, best_of, must_agree, same_arrays, silent
from qmodd.keys import matching
from qmodd.keys.amplification import amplify, seed_bytes
from qmodd.keys.histogram import fold
from qmodd.keys.sifting import Detect, look_up

Bits = npt.NDArray[np.uint8]
Int64s = npt.NDArray[np.int64]

COMPRESSION = 0.4
SMALL_BITS, LARGE_BITS, LARGEST_BITS = 1_500_000, 20_000_000, 100_000_000
LEAST_RATIO, LEAST_LARGE_MBITS = 25.0, 200.0
LEAST_SIFTING_RATIO = 4.0
MEMORY_BITS, MOST_MEMORY_MB = 10_000_000, 300.0
DETECTIONS, SLOTS, CLICKS = 5_000_000, 100_000_000, 10_000_000
PERIOD_PS, CELLS = 8000, 1000
TIMES = 5


def rows(progress: Progress = silent) -> Iterator[Result]:
    """Every row, a result at a time; some two minutes, most of it scipy."""
    progress(0.0, "amplification beside scipy")
    yield from small()
    progress(0.6, "large blocks")
    yield large(LARGE_BITS, LEAST_LARGE_MBITS, 4 * TIMES)
    yield large(LARGEST_BITS, None)
    progress(0.75, "memory of a worker")
    yield memory()
    progress(0.8, "other ways")
    yield fallback()
    progress(0.85, "sifting")
    yield sifting()
    yield histogram()
    yield merge()


def run(progress: Progress = silent) -> Iterator[Result]:
    return rows(progress)


def whole_product(bits: Bits, seed: Bits, m: int) -> Bits:
    """One product of the whole block by scipy's real FFT in double precision, at a length that suits it."""
    from scipy import fft  # type: ignore[import-untyped]

    n = len(bits)
    length = fft.next_fast_len(n + m - 1, real=True)
    product = fft.irfft(fft.rfft(seed.astype(np.float64), length) * fft.rfft(bits.astype(np.float64), length), length)
    return (np.rint(product[n - 1 : n - 1 + m]).astype(np.int64) & 1).astype(np.uint8)


def _problem(n: int, compression: float) -> tuple[Bits, bytes, int]:
    rng, m = np.random.default_rng(1), round(n * compression)
    return np.frombuffer(rng.bytes(n), np.uint8) & 1, rng.bytes(seed_bytes(n, m)), m


def small(n: int = SMALL_BITS, times: int = TIMES) -> Iterator[Result]:
    """Two compressions: how many transforms it takes depends on it. The seed is another one for every block."""
    for compression in (COMPRESSION, 0.25):
        bits, seed, m = _problem(n, compression)
        unpacked = np.unpackbits(np.frombuffer(seed, np.uint8), count=n + m - 1)
        must_agree("amplification", np.array_equal(amplify(bits, seed, m), whole_product(bits, unpacked, m)))
        ours = best_of(lambda b=bits, s=seed, m=m: amplify(b, s, m), 4 * times)  # type: ignore[misc]
        theirs = best_of(lambda b=bits, s=unpacked, m=m: whole_product(b, s, m), times)  # type: ignore[misc]
        yield Result(
            f"amplification at {compression:g}",
            theirs / ours,
            "times scipy",
            None,
            "",
            limit=LEAST_RATIO,
            detail={"Mbit/s": n / ours / 1e6, "scipy_Mbit/s": n / theirs / 1e6, "block_bits": n},
            note="scipy.fft.rfft, float64, whole block",
        )


def large(n: int, least: float | None, times: int = TIMES) -> Result:
    """Checked at three bits of the result by their definition."""
    bits, seed, m = _problem(n, COMPRESSION)
    out = amplify(bits, seed, m)
    unpacked = np.unpackbits(np.frombuffer(seed, np.uint8), count=n + m - 1)
    for i in (0, m // 2, m - 1):
        must_agree("amplification", int(out[i]) == np.count_nonzero(unpacked[i : i + n][::-1] & bits) & 1)
    del out, unpacked
    seconds = best_of(lambda: amplify(bits, seed, m), times)
    return Result(f"amplification {n:.0e}", n / seconds / 1e6, "Mbit/s", None, "", limit=least)


_MEMORY = """
import numpy as np
from qmodd.keys.amplification import amplify, seed_bytes
from qmodd.keys.bench import Bench
from qmodd.randomness import SystemRandomness
n, m = {n}, {m}
Bench(SystemRandomness()).warm_up()
np.packbits(amplify(np.ones(n, np.uint8), bytes(seed_bytes(n, m)), m)).tobytes()
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def memory(n: int = MEMORY_BITS) -> Result:
    """Largest resident size of a process that does a worker's amplification, kernels, block and seed included."""
    code = _MEMORY.format(n=n, m=round(n * COMPRESSION))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True, env=os.environ)
    # Not ru_maxrss, which a process inherits from the one that started it.
    name, size = "worker memory", int(done.stdout) / 1e3
    return Result(name, size, "MB", None, "", less_is_better=True, limit=MOST_MEMORY_MB, detail={"block_bits": n})


def fallback(n: int = 300_000) -> Result:
    """The ways of other machines, forced: the same bits; the value is the slower one's rate."""
    bits, seed, m = _problem(n, COMPRESSION)
    wanted, rates = amplify(bits, seed, m), {}
    for way in ("portable", "floating"):
        must_agree(way, np.array_equal(amplify(bits, seed, m, by=way), wanted))
        rates[way] = n / best_of(lambda w=way: amplify(bits, seed, m, by=w), 2) / 1e6  # type: ignore[misc]
    return Result("amplification, any", min(rates.values()), "Mbit/s", None, "", detail=rates, note="same bits")


def _against(name: str, unit: str, count: int, ours: float, theirs: float, what: str) -> Result:
    return Result(
        name, theirs / ours, "times numpy", None, "", limit=LEAST_SIFTING_RATIO,
        detail={unit: count / ours / 1e6, f"numpy_{unit}": count / theirs / 1e6}, note=what,
    )  # fmt: skip


def sifting(count: int = DETECTIONS, slots: int = SLOTS, times: int = TIMES) -> Result:
    """Bob's slots in Alice's dense record: which match, with what symbol."""
    rng = np.random.default_rng(2)
    at = np.unique(rng.integers(0, slots, count))
    basis, record = rng.integers(0, 2, len(at)).astype(np.uint8), rng.integers(0, 256, slots // 2).astype(np.uint8)
    detect = Detect(0, slots, at, basis)

    def plain() -> tuple[npt.NDArray[np.bool_], Bits]:
        nibbles = (record[at >> 1] >> ((at & 1) << 2).astype(np.uint8)) & 15
        hit = ((nibbles ^ basis) & 9) == 0
        return hit, nibbles[hit]

    must_agree("sifting", same_arrays(matching.look_up(at, basis, record, 0), plain()))
    must_agree("sifting", bool((look_up(detect, record, 0).match == plain()[0]).all()))
    ours, theirs = best_of(lambda: matching.look_up(at, basis, record, 0), times), best_of(plain, times)
    return _against("sifting, record", "Mdetection/s", len(at), ours, theirs, "dense record")


def histogram(count: int = CLICKS, times: int = TIMES) -> Result:
    """Clicks modulo the period."""
    t = np.cumsum(np.random.default_rng(3).integers(1000, 20_000, count))

    def plain() -> Int64s:
        counts: Int64s = np.bincount((t % PERIOD_PS) // (PERIOD_PS // CELLS), minlength=CELLS)
        return counts

    must_agree("histogram", np.array_equal(fold(t, PERIOD_PS, CELLS), plain()))
    ours, theirs = best_of(lambda: fold(t, PERIOD_PS, CELLS), times), best_of(plain, times)
    return _against("histogram", "Mclick/s", count, ours, theirs, "clicks modulo the period")


def merge(count: int = DETECTIONS, slots: int = SLOTS, times: int = TIMES) -> Result:
    """Slots that two ascending lists have in common. No limit: no stage of the engine needs it."""
    rng = np.random.default_rng(4)
    a, b = (np.unique(rng.integers(0, slots, count)) for _ in range(2))

    def plain() -> tuple[Int64s, Int64s]:
        _, in_a, in_b = np.intersect1d(a, b, assume_unique=True, return_indices=True)
        return in_a, in_b

    must_agree("merge", same_arrays(matching.common(a, b), plain()))
    ours, theirs = best_of(lambda: matching.common(a, b), times), best_of(plain, times)
    size = len(a) + len(b)
    return Result("merge", size / ours / 1e6, "Mslot/s", size / theirs / 1e6, "numpy.intersect1d")


if __name__ == "__main__":
    from benchmarks.__main__ import line

    for result in rows():
        sys.stdout.write(line(result) + "\n")
        sys.stdout.flush()
