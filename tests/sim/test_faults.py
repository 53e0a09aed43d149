from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


@given(st.floats(0.0, 100.0), st.sampled_from((0.02, 0.3, 0.5, 7.0)), st.floats(0.01, 0.99), st.floats(0.5, 50.0))
def test_edges_of_a_fault_that_comes_and_goes(at: float, every: float, share: float, length: float) -> None:
    """Between two edges nothing changes, and the parts are as long as they should be."""
    f = Fault(at, "open", "bob.heater.1", length, every=every, share=share)
    assert f.next_edge(at - 1.0) == at
    t, there = at, 0.0
    for _ in range(40):
        edge = f.next_edge(t)
        if math.isinf(edge):
            break
        assert edge > t
        if edge - t > 1e-6:
            inside = [f.covers(t + part * (edge - t)) for part in (0.01, 0.5, 0.99)]
            assert len(set(inside)) == 1
            there += (edge - t) * inside[0]
        t = edge
    if t < at + length:
        whole = math.floor((t - at) / every + 1e-6)
        assert there == pytest.approx(whole * share * every + min((t - at) - whole * every, share * every), abs=1e-4)
    assert not f.covers(at + length)
    assert math.isinf(f.next_edge(at + length))


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
