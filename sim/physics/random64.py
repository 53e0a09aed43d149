"""Integer arithmetic of the kernels: the mixer behind symbols, and the random numbers of the world (xoshiro256+).

All of it is modulo 2^64. Uncompiled calls should run under `numpy.errstate(over="ignore")`.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from sim.jit import njit

U = np.uint64
State = npt.NDArray[np.uint64]


@njit(inline="always")
def mix64(x: np.uint64) -> np.uint64:
    """Two rounds of a 64-bit multiply-xorshift mixer, a bijection."""
    x ^= x >> U(32)
    x *= U(0xD6E8FEB86659FD93)
    x ^= x >> U(32)
    x *= U(0xD6E8FEB86659FD93)
    x ^= x >> U(32)
    return x


@njit(inline="always")
def rotate_left(x: np.uint64, k: int) -> np.uint64:
    return (x << U(k)) | (x >> U(64 - k))


@njit(inline="always")
def next64(s: State) -> np.uint64:
    """Next word; changes the state s, shape (4,)."""
    r: np.uint64 = s[0] + s[3]
    t = s[1] << U(17)
    s[2] ^= s[0]
    s[3] ^= s[1]
    s[1] ^= s[2]
    s[0] ^= s[3]
    s[2] ^= t
    s[3] = rotate_left(s[3], 45)
    return r


@njit(inline="always")
def uniform(s: State) -> float:
    """In (0, 1]: never 0, so that its logarithm is finite."""
    return ((next64(s) >> U(11)) + U(1)) * (1.0 / 9007199254740993.0)


@njit(inline="always")
def normal(s: State) -> float:
    """Standard normal (Box-Muller, one of the two)."""
    return math.sqrt(-2.0 * math.log(uniform(s))) * math.cos(6.283185307179586 * uniform(s))


def state_from(generator: np.random.Generator) -> State:
    """A state for the kernels, drawn from a seeded generator."""
    return generator.integers(1, 2**63, 4).astype(np.uint64)
