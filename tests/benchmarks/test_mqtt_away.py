"""How the periods of the loops with and without a broker are compared."""

from __future__ import annotations

import pytest

from benchmarks.measure import Mismatch
from benchmarks.mqtt_away import judged, late_between


def _loops(runs: int, late_ms: float) -> dict[str, float]:
    return {
        "fast_period_s": 0.3,
        "fast_runs_count": runs,
        "fast_late_rms_s": late_ms * 1e-3,
        "fast_late_p99_s": 3e-3 * late_ms,
        "slow_period_s": 1.0,
        "slow_runs_count": runs // 3,
        "slow_late_rms_s": 5.0,
        "slow_late_p99_s": 5.0,
    }


def test_lateness_of_a_span_follows_from_that_since_start() -> None:
    assert late_between(_loops(100, 1.0), _loops(200, 1.0), "fast") == pytest.approx(1e-3)
    assert late_between(_loops(100, 0.0), _loops(400, 1.0), "fast") == pytest.approx(1e-3 * (4 / 3) ** 0.5)


def test_the_worst_fast_loop_counts() -> None:
    calm = judged(_loops(100, 1.0), _loops(300, 1.0), _loops(500, 1.0), 60.0)
    assert calm.value == pytest.approx(0.0, abs=1e-9)
    late = judged(_loops(100, 0.0), _loops(300, 0.0), _loops(600, 30.0), 60.0)
    assert late.value == pytest.approx(100 * 30e-3 * 2**0.5 / 0.3)
    assert not late.ok
    assert late.note == "fast"


def test_loops_that_stood_still_prove_nothing() -> None:
    with pytest.raises(Mismatch, match="no loop"):
        judged(_loops(100, 1.0), _loops(1000, 1.0), _loops(1001, 1.0), 60.0)
