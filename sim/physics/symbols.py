"""Symbols as a pure function of (key, slot), and the public string of frame synchronisation (reference pair B3).

Nibble: bit0 basis (1 = X), bit1 value, bit2 intensity (1 = decoy). Class: 2*state + intensity, state = 2*basis + value.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sim.jit import njit
from sim.physics.random64 import U, mix64

SYNC_SALT = U(0x51C0FFEE)
SUPERFRAME_SALT = U(0xC0DE)


@njit(inline="always")
def key_symbol(slot: int, k0: np.uint64, k1: np.uint64, t_x: np.uint64, t_decoy: np.uint64) -> np.uint64:
    """Random symbol of a slot; probabilities of X and of decoy in 1/65536."""
    h = mix64(mix64(U(slot) * U(0x9E3779B97F4A7C15) + k0) + k1)
    basis = U(1) if (h & U(0xFFFF)) < t_x else U(0)
    decoy = U(1) if ((h >> U(16)) & U(0xFFFF)) < t_decoy else U(0)
    return basis | (((h >> U(32)) & U(1)) << U(1)) | (decoy << U(2))


@njit(inline="always")
def sync_symbol(slot: int) -> np.uint64:
    """Z, signal. Even slots repeat every 65536; odd ones carry the same, turned over by a 4096-long superframe code."""
    s = U(slot) & U(65535)
    v = mix64(s + SYNC_SALT) & U(1)
    if s & U(1):
        v ^= mix64(((U(slot) >> U(16)) & U(4095)) + SUPERFRAME_SALT) & U(1)
    return v << U(1)


@njit(inline="always")
def class_of(nibble: np.uint64) -> np.int64:
    return np.int64(((nibble & U(1)) << U(2)) | (((nibble >> U(1)) & U(1)) << U(1)) | ((nibble >> U(2)) & U(1)))


def nibble_of(state: int, intensity: int) -> int:
    """Inverse of `class_of`, for state 0..3 and intensity 0 or 1."""
    return (state >> 1) | ((state & 1) << 1) | (intensity << 2)


@njit(nogil=True, cache=True)
def key_symbols(
    slots: npt.NDArray[np.int64], k0: np.uint64, k1: np.uint64, t_x: np.uint64, t_decoy: np.uint64
) -> npt.NDArray[np.uint8]:
    """Nibbles of any slots sent in KEY mode, shape as `slots`."""
    out = np.empty(len(slots), np.uint8)
    for i in range(len(slots)):
        out[i] = key_symbol(slots[i], k0, k1, t_x, t_decoy)
    return out


@njit(nogil=True, cache=True)
def sync_symbols(slots: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """Nibbles of any slots sent in SYNC mode, shape as `slots`."""
    out = np.empty(len(slots), np.uint8)
    for i in range(len(slots)):
        out[i] = sync_symbol(slots[i])
    return out
