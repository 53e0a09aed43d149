"""Every row on little data: it measures, and code and reference agree (else it raises Mismatch)."""

from __future__ import annotations

import pytest

from benchmarks import keys_kernels
from benchmarks.measure import Mismatch


def test_each_row_measures() -> None:
    rows = [
        *keys_kernels.small(20_000, 1),
        keys_kernels.large(30_000, None, 1),
        keys_kernels.fallback(5000),
        keys_kernels.sifting(2000, 10_000, 1),
        keys_kernels.histogram(5000, 1),
        keys_kernels.merge(2000, 10_000, 1),
    ]
    assert all(row.value > 0 for row in rows)
    assert [row.limit for row in rows] == [25.0, 25.0, None, None, 4.0, 4.0, None]


def test_a_wrong_product_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = keys_kernels.amplify
    monkeypatch.setattr(keys_kernels, "amplify", lambda *a, **b: right(*a, **b) ^ 1)
    with pytest.raises(Mismatch):
        list(keys_kernels.small(2000, 1))
    with pytest.raises(Mismatch):
        keys_kernels.large(2000, None, 1)
