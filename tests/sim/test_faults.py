from __future__ import annotations

import math

import pytest

from sim import jit
from sim.faults import Fault, FaultSchedule


def test_active_by_kind_target_and_time() -> None:
    s = FaultSchedule([Fault(10.0, "cut", "fibre", 5.0), Fault(12.0, "cut", "fibre", 1.0, value=2.0)])
    assert s.active("cut", "fibre", 9.99) is None
    assert s.active("bend", "fibre", 10.0) is None
    assert s.active("cut", "bob.fibre", 10.0) is None
    first, second = s.active("cut", "fibre", 10.0), s.active("cut", "fibre", 12.5)
    assert first is not None
    assert second is not None
    assert (first.number(7.0), second.number(7.0)) == (7.0, 2.0)
    assert s.active("cut", "fibre", 15.0) is None
    assert len(s) == 2


def test_edges() -> None:
    s = FaultSchedule([Fault(10.0, "cut", "fibre", 5.0), Fault(12.0, "dead", "alice.laser")])
    edges = [t := 0.0] + [t := s.next_edge(t) for _ in range(4)]
    assert edges == [0.0, 10.0, 12.0, 15.0, math.inf]
    assert FaultSchedule().next_edge(0.0) == math.inf


def test_chance_is_seeded_and_by_occasion() -> None:
    def draw(seed: int) -> list[bool]:
        s = FaultSchedule([Fault(0.0, "nack", "alice.i2c1", probability=0.3)], seed)
        return [s.strikes("nack", "alice.i2c1", 1.0) is not None for _ in range(500)]

    assert draw(1) == draw(1) != draw(2)
    assert 0.22 < sum(draw(1)) / 500 < 0.38
    always = FaultSchedule([Fault(0.0, "nack", "x")])
    assert all(always.strikes("nack", "x", 0.0) for _ in range(5))
    assert always.strikes("nack", "y", 0.0) is None


def test_kernels_run_without_a_compiler() -> None:
    @jit.select(False)(cache=True)
    def double(x: int) -> int:
        return 2 * x

    assert double(4) == jit.python_of(double)(4) == 8
    assert jit.select(jit.COMPILED)() is not None


@pytest.mark.skipif(not jit.COMPILED, reason="needs numba")
def test_compiled_kernels_keep_their_python() -> None:
    from sim.physics.optics import fill_table

    assert jit.python_of(fill_table) is not fill_table
