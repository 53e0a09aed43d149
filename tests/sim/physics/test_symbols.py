"""Symbols are a function of (key, slot); the public string is what the data sheet says."""

from __future__ import annotations

import numpy as np

from sim.jit import python_of
from sim.physics import random64, symbols

MASK = (1 << 64) - 1


def _mix(x: int) -> int:
    for _ in range(2):
        x ^= x >> 32
        x = x * 0xD6E8FEB86659FD93 & MASK
    return x ^ (x >> 32)


def _sync_bit(slot: int) -> int:
    """The public string in plain integers, from the interface description of frame synchronisation."""
    s = slot & 65535
    bit = _mix(s + 0x51C0FFEE) & 1
    return bit ^ (_mix(((slot >> 16) & 4095) + 0xC0DE) & 1) if s & 1 else bit


def test_sync_string() -> None:
    slots = np.concatenate([np.arange(200), 2**30 + np.arange(200), 65536 * 4095 + np.arange(200)])
    expected = np.array([_sync_bit(int(s)) << 1 for s in slots], np.uint8)
    assert np.array_equal(symbols.sync_symbols(slots), expected)
    with np.errstate(over="ignore"):
        assert np.array_equal(python_of(symbols.sync_symbols)(slots[:20]), expected[:20])


def test_key_symbols_have_the_asked_probabilities_and_no_memory() -> None:
    n = 400_000
    nibble = symbols.key_symbols(np.arange(n), np.uint64(11), np.uint64(22), np.uint64(16384), np.uint64(32768))
    x, v, d = nibble & 1, nibble >> 1 & 1, nibble >> 2 & 1
    for seen, p in ((x, 0.25), (v, 0.5), (d, 0.5), (x & v, 0.125), (v[1:] ^ v[:-1], 0.5), (x & d, 0.125)):
        assert abs(seen.mean() - p) < 4.5 * np.sqrt(p * (1 - p) / len(seen))
    other = symbols.key_symbols(np.arange(n), np.uint64(12), np.uint64(22), np.uint64(16384), np.uint64(32768))
    assert abs((other >> 1 & 1 ^ v).mean() - 0.5) < 0.004


def test_uncompiled_symbols_are_the_same() -> None:
    slots = np.arange(50, dtype=np.int64)
    key = (np.uint64(2**63 + 5), np.uint64(7), np.uint64(30000), np.uint64(20000))
    with np.errstate(over="ignore"):
        assert np.array_equal(python_of(symbols.key_symbols)(slots, *key), symbols.key_symbols(slots, *key))
        plain = python_of(symbols.key_symbol)
        assert [int(plain(int(s), *key)) for s in slots] == symbols.key_symbols(slots, *key).tolist()
        assert [int(python_of(symbols.sync_symbol)(s)) for s in range(8)] == [_sync_bit(s) << 1 for s in range(8)]


def test_nibbles_and_classes_are_inverse() -> None:
    for state in range(4):
        for k in (0, 1):
            nibble = symbols.nibble_of(state, k)
            assert int(python_of(symbols.class_of)(np.uint64(nibble))) == 2 * state + k
            assert nibble & 1 == (state >= 2)


def test_random_numbers_of_the_kernels() -> None:
    g = np.random.Generator(np.random.Philox(3))
    compiled, plain = (random64.state_from(g) for _ in range(2))
    plain[:] = compiled
    with np.errstate(over="ignore"):
        draws = [python_of(random64.normal)(plain) for _ in range(500)]
        assert draws == [random64.normal(compiled) for _ in range(500)]
        assert abs(np.mean(draws)) < 0.2
        assert 0.85 < np.std(draws) < 1.15
        assert 0.0 < python_of(random64.uniform)(plain) <= 1.0
        assert int(python_of(random64.next64)(plain)) != int(python_of(random64.next64)(plain))
        assert int(python_of(random64.mix64)(np.uint64(99))) == _mix(99)
        assert int(python_of(random64.rotate_left)(np.uint64(1 << 63), 1)) == 1
