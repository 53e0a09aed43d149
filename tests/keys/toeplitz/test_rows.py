import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmodd.keys.toeplitz import floating, portable, rows, tiles

pytest.importorskip("numba")
from qmodd.keys.toeplitz import vector

FAST = vector if vector.KIND else portable
sizes = st.one_of(st.integers(1, 300), st.integers(1, 200_000), st.integers(1, 4_000_000))


@settings(max_examples=200, deadline=None)
@given(sizes, sizes)
def test_every_plan_covers_the_matrix_and_fits(block, result):
    plan = tiles.plan(block, result)
    plan.check()
    down, across = plan.window.shape
    assert across * plan.across >= block > (across - 1) * plan.across
    assert down * plan.down >= result > (down - 1) * plan.down
    for i in (0, down - 1):
        for j in (0, across - 1):
            start = plan.starts[plan.window[i, j]]
            # Words a of the seed and b of the block meet in word a + b; the first one read precedes the result.
            assert start + (j + 1) * plan.across - 1 == block - 1 + i * plan.down - 1
    assert plan.cost < 3.2 * (3 * (block // 32767 + 1) + 2 * (result // 32767 + 1)) + 0.3 * down * across


@pytest.mark.parametrize(
    "bad", [(8, 200, 56), (8, 0, 10), (8, 10, 0), (16, 1 << 16, 1), (12, 10, 10), (16, 40_000, 25_536)]
)
def test_tiles_that_do_not_fit_are_refused(bad):
    k, across, down = bad
    plan = tiles.Tiles(k, across, down, (0,), np.zeros((1, 1), np.int64))
    with pytest.raises(ValueError, match="do not fit"):
        plan.check()
    with pytest.raises(ValueError, match="do not fit"):
        rows._product(FAST, plan, np.zeros(across, np.uint32), np.zeros(5, np.uint32), down)


@settings(max_examples=100, deadline=None)
@given(st.integers(-20, 30), st.integers(0, 16), st.integers(0, 12))
def test_a_row_is_filled_with_the_words_that_there_are(start, count, have):
    words = np.arange(1, have + 1, dtype=np.uint32)
    row = np.full(20, 99, np.uint64)
    rows._fill(row, words, start, count)
    assert row.tolist() == [start + i + 1 if 0 <= start + i < have and i < count else 0 for i in range(20)]


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from([(3, 4), (5, 2), (1, 1), (20, 30), (100, 155)]), st.integers(1, 6000))
def test_small_tiles_make_no_difference(data, shape, n):
    """Many tiles in both directions, with the short transform."""
    m = data.draw(st.integers(1, n))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    bits, seed = rng.integers(0, 2, n).astype(np.uint8), rng.bytes((n + m + 6) // 8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "plan", lambda block, result: tiles._cut(8, block, result, *shape))
        np.testing.assert_array_equal(rows.product(FAST, bits, seed, m), floating.product(bits, seed, m))


@pytest.mark.parametrize(
    ("n", "m"), [(1_000_000, 240_000), (1_700_000, 1_690_000), (3_300_001, 700_007), (2_200_000, 31)]
)
def test_large_blocks_equal_the_floating_product(n, m):
    rng = np.random.default_rng(n)
    bits, seed = rng.integers(0, 2, n).astype(np.uint8), rng.bytes((n + m + 6) // 8)
    np.testing.assert_array_equal(rows.product(FAST, bits, seed, m), floating.product(bits, seed, m))


def test_nothing_of_the_block_is_left_behind(monkeypatch):
    kept = []
    make, words, finish = rows._rows, rows._block_words, rows._product
    monkeypatch.setattr(rows, "_rows", lambda *a: kept.append(make(*a)) or kept[-1])
    monkeypatch.setattr(rows, "_block_words", lambda *a: kept.append(words(*a)) or kept[-1])
    monkeypatch.setattr(rows, "_product", lambda *a: kept.append(finish(*a)) or kept[-1])
    rng = np.random.default_rng(1)
    bits, seed = rng.integers(0, 2, 5000).astype(np.uint8), rng.bytes(1000)
    out = rows.product(FAST, bits, seed, 2000)
    assert out.any()
    block, scratch, parts, _windows, sums, words_out = kept
    assert not any(a.any() for a in (block, scratch, parts, sums, words_out))
