"""The benchmark of the scheduler, for a moment: loops, lanes and workers are real."""

from __future__ import annotations

from benchmarks import scheduler


def test_it_measures_the_loop_alone_beside_workers_and_beside_a_hanging_bus() -> None:
    said: list[tuple[float, str]] = []
    alone, beside, hung = scheduler.run(lambda done, what: said.append((done, what)), seconds=0.4)
    assert [r.name for r in (alone, beside, hung)] == [
        "loop_100hz_alone",
        "loop_100hz_beside_worker",
        "loop_100hz_other_bus_hangs",
    ]
    assert [done for done, _ in said] == [0.0, 0.34, 0.67]
    for result in (alone, beside, hung):
        assert result.limit == 1.0
        assert result.value > 0.0
        assert result.reference is not None
        assert result.detail["runs_count"] >= 10
        assert 0.0 < result.detail["bus_mean_ms"] < 10.0
    assert beside.reference == alone.value
    # The other bus hung for half a second a call, and the loop on this one ran on all the while.
    assert hung.detail["hung_steps_count"] >= 1
    assert hung.detail["runs_count"] > 5 * hung.detail["hung_steps_count"]
