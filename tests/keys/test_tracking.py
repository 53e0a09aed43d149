import numpy as np
import pytest

from qmodd.keys.counts import BatchReport
from qmodd.keys.frames import FrameClock, FrameCounters, Residuals
from qmodd.keys.tracking import ClockTracker, frame_lost, slots_shifted

T = 8000.0


def follow(batch_s, seconds, *, counts, walk=1e-10, start_y=2e-9, start_ps=60.0, seed=0):
    """Residual of a true clock that walks in frequency, seen with 66 ps of noise a click."""
    rng = np.random.default_rng(seed)
    slots = round(batch_s / (T * 1e-12))
    tracker = ClockTracker(FrameClock(0, 0, 0.0, T))
    phase, y, history = start_ps, start_y, []
    for i in range(1, round(seconds / batch_s) + 1):
        y += walk * np.sqrt(batch_s) * rng.normal()
        phase += y * batch_s * 1e12
        end = i * slots
        middle = end - slots // 2
        line = tracker.clock.moved_to(middle)
        error = phase - y * batch_s * 0.5e12 - ((line.tag_ps - middle * T) + line.frac_ps)
        n = rng.poisson(counts * batch_s)
        mean = error + rng.normal() * 66 / np.sqrt(max(n, 1))
        tracker.update(Residuals((mean * n, 9e9, 9e9), (n, 10, 10)), end)
        line = tracker.clock.moved_to(end)
        history.append(phase - ((line.tag_ps - end * T) + line.frac_ps))
    return np.array(history)


@pytest.mark.parametrize("batch_s", [0.1, 0.3, 1.0, 2.0])
def test_follows_a_walking_clock_with_any_batch_length(batch_s):
    error = follow(batch_s, 120, counts=50_000, walk=1e-11)
    settled = error[len(error) // 3 :]
    assert np.abs(settled).max() < 120
    assert settled.std() < 40


def test_residual_at_35_db():
    error = follow(0.1, 120, counts=600, walk=1e-10)
    assert error[200:].std() < 20


def test_few_counts_are_gathered():
    tracker = ClockTracker(FrameClock(0, 0, 0.0, T))
    before = tracker.clock
    assert tracker.update(Residuals((50.0, 0, 0), (5, 0, 0)), 10_000_000) == before
    assert tracker.update(Residuals((50.0, 0, 0), (5, 0, 0)), 20_000_000) == before
    after = tracker.update(Residuals((60.0, 0, 0), (6, 0, 0)), 30_000_000)
    assert after.slot == 30_000_000
    assert tracker.last_residual_ps == 10.0
    assert after.period_ps > T
    assert tracker.update(Residuals((6000.0, 0, 0), (600, 0, 0)), 30_000_000) == after


def test_reasons_for_a_lost_frame():
    assert frame_lost(FrameCounters(clicks=(100, 0, 0), in_gate=(95, 0, 0))) is None
    assert "10 of 100" in (frame_lost(FrameCounters(clicks=(100, 0, 0), in_gate=(10, 0, 0))) or "")
    assert frame_lost(FrameCounters(clicks=(8, 0, 0), in_gate=(1, 0, 0))) is None


MU, P_MU = ((0.53, 0.55), (0.17, 0.19)), (0.5, 0.5)


def report(decoys: int, errors: int) -> BatchReport:
    return BatchReport(
        0, 1000, 1000, n_z=(1000 - decoys, decoys), n_x0=(100, 0), e_x0=(errors, 0), n_x1=(100, 0), e_x1=(errors, 0)
    )


def test_wrong_slots_show_in_the_intensities_a_lost_phase_does_not():
    """A right slot is a decoy in 0.18/(0.18 + 0.54) of the detections, a wrong one in half of them."""
    assert slots_shifted(report(250, 1), MU, P_MU) is None
    assert slots_shifted(report(250, 90), MU, P_MU) is None, "the phase is lost, the frame is not"
    assert "50% decoys" in (slots_shifted(report(500, 50), MU, P_MU) or "")
    assert slots_shifted(report(500, 1), MU, P_MU) is None, "strange intensities alone are no reason"
    assert slots_shifted(BatchReport(0, 10, 10, n_z=(2, 2), n_x0=(2, 0), e_x0=(2, 0)), MU, P_MU) is None
