import contextlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmodd.keys.counts import BatchReport, BlockCounts

GOOD = BlockCounts((700, 300), (5, 2), (40, 20), (1, 1), live_slots=10**6, cross=3)
REPORT = BatchReport(
    100, 12_500_100, 11_000_000, 1, 2, 3, 4, 5000, 5100, (70, 30), (4, 2), (1, 0), (5, 3), (0, 1), (9, 8, 7, 6)
)


def test_totals_and_sums():
    GOOD.check()
    assert (GOOD.total_z, GOOD.total_x) == (1000, 60)
    assert GOOD.qber_z == pytest.approx(0.007)
    assert GOOD.qber_x == pytest.approx(2 / 60)
    both = GOOD + GOOD
    assert both.n_z == (1400, 600)
    assert both.cross == 6
    assert GOOD.with_z_errors((0, 0)).qber_z == 0.0
    assert BlockCounts((0, 0), (0, 0), (0, 0), (0, 0)).qber_x == 0.0


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"m_z": (701, 0)}, "701 errors in 700"),
        ({"n_x": (1,)}, "different numbers"),
        ({"cross": -1}, "negative"),
        ({"m_x": (-1, 0)}, "-1 errors"),
    ],
)
def test_impossible_counts_are_told(change, text):
    with pytest.raises(ValueError, match=text):
        replace(GOOD, **change).check()


small = st.integers(0, 1000)
pairs = st.tuples(small, small)


@given(small, small, pairs, pairs, pairs, st.tuples(small, small, small, small))
def test_tally_round_trip(live, cross, n_z, e_x0, e_x1, satellites):
    n_x0 = (e_x0[0] + 1, e_x0[1] * 2)
    r = BatchReport(2**40, 2**40 + live + 7, live, cross, 1, 2, 3, 4, 5, n_z, n_x0, e_x0, e_x1, e_x1, satellites)
    assert BatchReport.from_bytes(r.to_bytes()) == r


@given(st.binary(min_size=100, max_size=106))
def test_any_bytes_are_a_possible_tally_or_refused(data):
    with contextlib.suppress(ValueError):
        BatchReport.from_bytes(data).check()


def test_contradictory_tallies_are_refused():
    for bad in (replace(REPORT, e_x0=(5, 0)), replace(REPORT, live_slots=10**9), replace(REPORT, end_slot=7)):
        with pytest.raises(ValueError, match=r"errors|slot"):
            BatchReport.from_bytes(bad.to_bytes())
    with pytest.raises(ValueError, match="fit"):
        replace(REPORT, cross=2**33).to_bytes()
    with pytest.raises(ValueError, match="bytes"):
        BatchReport.from_bytes(b"")


def test_reports_add_up_and_give_gains():
    later = replace(REPORT, first_slot=12_500_100, end_slot=25_000_100)
    both = REPORT + later
    assert (both.first_slot, both.end_slot) == (100, 25_000_100)
    assert both.n_x == (18, 10)
    assert both.m_x == (2, 2)
    assert REPORT.gain_z(0) == pytest.approx(70 / 11e6)
    assert REPORT.gain_x(1) == pytest.approx(5 / 11e6)
    assert both.block_counts().n_x == (18, 10)
