from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from qmodd.keys.toeplitz.field import cantor_basis, multiply, twiddles

elements = st.integers(0, 2**64 - 1)


@given(elements, elements, elements)
def test_multiplication_is_a_fields(a, b, c):
    assert multiply(a, b) == multiply(b, a)
    assert multiply(a, multiply(b, c)) == multiply(multiply(a, b), c)
    assert multiply(a, b ^ c) == multiply(a, b) ^ multiply(a, c)
    assert multiply(a, 1) == a


def test_the_polynomial_is_irreducible():
    """x^(2^64) = x, and x^(2^32) + x is invertible: its powers return to 1 and to nothing less than a unit."""
    x = 2
    powers = [x]
    for _ in range(64):
        powers.append(multiply(powers[-1], powers[-1]))
    assert powers[64] == x
    difference = powers[32] ^ x
    inverse, square = 1, difference
    for _ in range(63):  # a^(2^64 - 2)
        square = multiply(square, square)
        inverse = multiply(inverse, square)
    assert multiply(difference, inverse) == 1


def test_each_element_of_the_basis_gives_the_one_before():
    basis = cantor_basis(16)
    assert basis[0] == 1
    for before, b in pairwise(basis):
        assert multiply(b, b) ^ b == before


def test_twiddles_are_the_sums_of_the_basis():
    basis = cantor_basis(16)
    table = twiddles(8)
    assert len(table) == 128
    assert not table.flags.writeable
    for j in (0, 1, 2, 77, 127):
        total = 0
        for i in range(7):
            total ^= basis[i + 1] if j >> i & 1 else 0
        assert int(table[j]) == total
    np.testing.assert_array_equal(twiddles(16)[:128], table)
