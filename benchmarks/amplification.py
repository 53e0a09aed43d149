"""Privacy amplification: a block of 10^6 bits to 240 000 by a Toeplitz matrix."""

from __future__ import annotations

import numpy as np

from benchmarks.light import Bits
from benchmarks.measure import Result, best_of, must_agree
from qmodd.keys.amplification import amplify, seed_bytes

BITS, OUT = 1_000_000, 240_000


def whole_product(bits: Bits, seed: Bits, m: int) -> Bits:
    """One floating-point product of the whole block: scipy's if it is installed, else numpy's FFT."""
    try:
        from scipy.signal import fftconvolve  # type: ignore[import-untyped]
    except ImportError:
        length = 1 << (len(bits) + len(seed) - 1).bit_length()
        product = np.fft.irfft(np.fft.rfft(bits, length) * np.fft.rfft(seed, length), length)
    else:
        product = fftconvolve(seed.astype(np.float64), bits.astype(np.float64))
    n = len(bits)
    return (np.rint(product[n - 1 : n - 1 + m]).astype(np.int64) & 1).astype(np.uint8)


def reference_name() -> str:
    try:
        import scipy  # type: ignore[import-untyped]
    except ImportError:
        return "numpy FFT of the whole block"
    return f"scipy {scipy.__version__} fftconvolve"


def run(n: int = BITS, m: int = OUT, times: int = 3) -> list[Result]:
    """Block bits a second; both results must be equal bit by bit."""
    rng = np.random.default_rng(1)
    bits = rng.integers(0, 2, n).astype(np.uint8)
    seed = rng.bytes(seed_bytes(n, m))
    seed_bits = np.unpackbits(np.frombuffer(seed, np.uint8), count=n + m - 1)
    must_agree("amplification", np.array_equal(amplify(bits, seed, m), whole_product(bits, seed_bits, m)))
    ours = best_of(lambda: amplify(bits, seed, m), times)
    theirs = best_of(lambda: whole_product(bits, seed_bits, m), times)
    return [Result("amplification", n / ours / 1e6, "Mbit/s", n / theirs / 1e6, reference_name())]
