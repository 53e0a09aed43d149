"""How the periods of the loops with and without a broker are compared."""

from __future__ import annotations

import pytest

from benchmarks.measure import Mismatch
from benchmarks.mqtt_away import judged


def _loops(runs: int, late_ms: float) -> dict[str, float]:
    return {
        "fast_period_s": 0.1,
        "fast_runs_count": runs,
        "fast_late_p99_s": late_ms * 1e-3,
        "slow_period_s": 1.0,
        "slow_runs_count": runs // 10,
        "slow_late_p99_s": 5.0,
    }


def test_the_worst_fast_loop_counts() -> None:
    result = judged(_loops(1000, 1.0), _loops(2000, 6.05), 100.0)
    assert result.value == pytest.approx(5.0)
    assert result.ok
    assert not judged(_loops(1000, 1.0), _loops(2000, 15.0), 100.0).ok
    assert judged(_loops(1000, 1.0), _loops(2000, 0.5), 100.0).value == 0.0


def test_loops_that_stood_still_prove_nothing() -> None:
    with pytest.raises(Mismatch, match="no loop"):
        judged(_loops(1000, 1.0), _loops(1001, 1.0), 100.0)
