import numpy as np
import pytest

from qmodd.keys.toeplitz import backend, floating, portable

BITS = np.random.default_rng(1).integers(0, 2, 700).astype(np.uint8)
SEED = np.random.default_rng(2).bytes((700 + 300 + 6) // 8)


@pytest.fixture(autouse=True)
def _chosen_anew():
    backend._fitting.cache_clear()
    yield
    backend._fitting.cache_clear()


@pytest.mark.parametrize("name", backend.NAMES)
def test_each_can_be_forced_and_gives_the_same_bits(name, monkeypatch):
    wanted = floating.product(BITS, SEED, 300)
    np.testing.assert_array_equal(backend.product(name)(BITS, SEED, 300), wanted)
    monkeypatch.setenv(backend.VARIABLE, name)
    np.testing.assert_array_equal(backend.product()(BITS, SEED, 300), wanted)


def test_an_unknown_name_is_told(monkeypatch):
    monkeypatch.setenv(backend.VARIABLE, "abacus")
    with pytest.raises(ValueError, match="abacus"):
        backend.product()


def test_without_numba_it_is_floating(monkeypatch):
    monkeypatch.setattr(backend, "COMPILED", False)
    assert backend.product() is floating.product


class Wrong:
    KIND = "something"
    multiply = staticmethod(lambda out, left, right, which: np.bitwise_and(left, right, out=out))


@pytest.mark.parametrize("kind", ["something", None])
def test_a_multiplication_that_is_not_one_is_not_used(monkeypatch, kind):
    used = []
    monkeypatch.setattr(Wrong, "KIND", kind)
    monkeypatch.setattr(backend, "_module", lambda name: Wrong if name == "vector" else used.append(name) or portable)
    np.testing.assert_array_equal(backend.product()(BITS, SEED, 300), floating.product(BITS, SEED, 300))
    assert used == ["portable"]


def test_the_multiplication_of_plain_loops_is_one():
    assert backend.proven(portable)
