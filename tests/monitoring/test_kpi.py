"""The KPI engine: what each event counts for, bins, planned work, absence, and that it adds up whatever happens."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmodd.monitoring.kpi import DAY_S, QUARTER_S, Kpis, Sums, total

BEGIN = datetime(2026, 1, 1, tzinfo=UTC).timestamp()


class Log:
    """Events with the form of the log, at seconds after BEGIN."""

    def __init__(self) -> None:
        self.kpis, self.entries = Kpis(), list[dict[str, Any]]()

    def at(self, s: float, event: str, **fields: Any) -> Log:
        t = datetime.fromtimestamp(BEGIN + s, UTC).isoformat(timespec="milliseconds")
        entry = {"seq": len(self.entries) + 1, "t": t, "module": "QM-B-0001", "event": event, **fields}
        self.entries.append(entry)
        self.kpis.event(entry)
        return self

    def until(self, s: float) -> Kpis:
        self.kpis.advance(BEGIN + s)
        return self.kpis

    def sums(self) -> Sums:
        return total(self.kpis.quarters.spans.values())


def keying() -> Log:
    return Log().at(0, "core.started").at(60, "state.activity", value="keying", why="distilling keys")


def test_availability_is_the_share_of_keying() -> None:
    log = keying()
    log.at(600, "state.activity", value="locking", why="lost").at(660, "state.activity", value="keying", why="back")
    log.until(960)
    s = log.sums()
    assert (s.keying_s, s.down_s, s.covered_s) == (840.0, {"boot": 60.0, "locking": 60.0}, 960.0)
    assert s.availability == pytest.approx(840 / 960)


def test_bins_are_cut_at_whole_quarters_and_days() -> None:
    log = keying()
    log.until(DAY_S + 100)
    quarters, days = log.kpis.quarters.spans, log.kpis.days.spans
    assert list(days) == [BEGIN, BEGIN + DAY_S]
    assert days[BEGIN].covered_s == DAY_S
    assert days[BEGIN + DAY_S].keying_s == 100.0
    assert len(quarters) == 96  # the oldest of 97 has gone
    assert min(quarters) == BEGIN + QUARTER_S
    assert all(s.keying_s == QUARTER_S for t, s in quarters.items() if t < BEGIN + DAY_S)


def test_planned_work_is_taken_out_of_the_ratio_and_shown() -> None:
    log = keying()
    log.at(100, "alarm.maintenance", by="ann", seconds=200.0, why="fibre work")
    log.at(150, "state.activity", value="safe", why="fibre work").at(350, "state.activity", value="keying", why="")
    log.until(400)
    s = log.sums()
    assert (s.planned_s, s.down_s["safe"], s.keying_s) == (200.0, 50.0, 40.0 + 50.0)
    assert s.availability == pytest.approx(90.0 / (400.0 - 200.0))


def test_a_locked_module_is_planned_work_until_it_is_unlocked() -> None:
    log = keying()
    log.at(100, "state.administrative", value="locked", why="").at(
        400, "state.administrative", value="unlocked", why=""
    )
    log.until(500)
    assert log.sums().planned_s == 300.0
    assert log.sums().keying_s == 140.0


def test_a_maintenance_window_that_is_ended_early_ends_there() -> None:
    log = keying().at(100, "alarm.maintenance", by="ann", seconds=1000.0, why="")
    log.at(150, "alarm.maintenance", by="ann", seconds=0.0, why="").until(200)
    assert log.sums().planned_s == 50.0


def test_time_between_a_kill_and_the_next_start_is_absence_and_not_service() -> None:
    log = keying()
    log.at(300, "core.started").until(310)
    s = log.sums()
    assert (s.absent_s, s.keying_s, s.down_s) == (240.0, 0.0, {"boot": 70.0})


def test_so_is_time_after_a_clean_stop() -> None:
    log = keying().at(100, "core.stopped").at(200, "core.started")
    assert (log.sums().absent_s, log.sums().keying_s) == (100.0, 40.0)


def test_what_was_seen_alive_before_the_kill_stays_counted() -> None:
    log = keying()
    log.until(250)
    log.at(300, "core.started")
    assert (log.sums().keying_s, log.sums().absent_s) == (190.0, 50.0)


def test_blocks_make_rate_and_qber() -> None:
    log = keying()
    log.at(160, "block.kept", key_bits=6000, n_z=1000, qber_z=0.01, n_x=100, qber_x=0.02)
    log.at(260, "block.kept", key_bits=4000, n_z=3000, qber_z=0.03, n_x=300, qber_x=0.02)
    log.at(270, "block.aborted", why="QBER_Z").until(260 + 740)
    s = log.sums()
    assert (s.blocks, s.blocks_aborted, s.secret_bits) == (2, 1, 10_000)
    assert s.skr_bps == pytest.approx(10.0)
    assert s.qber_z == pytest.approx((0.01 * 1000 + 0.03 * 3000) / 4000)
    assert (s.qber_x, s.qber_z_max) == (pytest.approx(0.02), 0.03)


def test_blocks_of_planned_work_raise_no_rate() -> None:
    log = keying().at(70, "alarm.maintenance", by="ann", seconds=100.0, why="")
    log.at(80, "block.kept", key_bits=6000, n_z=1000, qber_z=0.01, n_x=100, qber_x=0.02)
    assert log.sums().secret_bits == 0


def test_lock_uptime_counts_only_while_a_lock_is_wanted() -> None:
    log = Log().at(0, "core.started").at(0, "phase.stage", stage="warm-up", why="")
    log.at(100, "state.activity", value="locking", why="").at(150, "phase.stage", stage="locked", why="")
    log.at(160, "state.activity", value="keying", why="").at(350, "phase.stage", stage="hold", why="")
    log.at(360, "phase.stage", stage="locked", why="").at(400, "state.activity", value="calibrating", why="")
    log.until(900)
    s = log.sums()
    assert (s.lock_wanted_s, s.locked_s) == (300.0, 240.0)
    assert keying().sums().lock_uptime is None


def test_alarms_make_the_three_means() -> None:
    log = keying()
    log.at(100, "alarm.raised", alarm="no-light", after_s=4.0).at(110, "alarm.raised", alarm="no-keys", after_s=10.0)
    log.at(120, "alarm.acknowledged", alarm="no-light", after_s=20.0)
    log.at(130, "alarm.acknowledged", alarm="no-light")  # again: nobody waited for that
    log.at(140, "alarm.cleared", alarm="no-light", after_s=44.0)
    s = log.sums()
    assert (s.mttd_s, s.mtta_s, s.mttr_s, s.alarms_acknowledged) == (7.0, 20.0, 44.0, 1)


def test_latency_is_the_age_of_keys_when_they_may_be_handed_out() -> None:
    log = keying().at(90, "key.acknowledged", recipient="kms", keys=45, age_s=1.0, age_max_s=3.0, entry=1)
    log.at(100, "key.usable", recipient="kms", keys=10, age_s=2.0, age_max_s=3.0, entry=2)
    log.at(110, "key.usable", recipient="kms", keys=30, age_s=6.0, age_max_s=9.0, entry=3)
    s = log.sums()
    assert (s.keys_delivered, s.keys_usable, s.latency_mean_s, s.latency_max_s) == (45, 40, 5.0, 9.0)


def test_what_is_told_twice_after_a_crash_is_counted_once() -> None:
    log = keying()
    for entry in (1, 2, 2, *range(3, 60), 3):
        log.at(100, "key.acknowledged", keys=10, entry=entry)
    log.at(100, "key.usable", keys=5, entry=59)
    assert (log.sums().keys_delivered, log.sums().keys_usable) == (590, 5)
    assert len(log.kpis.told) == 60
    for entry in range(100, 200):
        log.at(100, "key.acknowledged", keys=10, entry=entry)
    assert len(log.kpis.told) == 64


def test_an_event_is_counted_once() -> None:
    log = keying().at(100, "key.acknowledged", keys=10)
    log.kpis.event(log.entries[-1])
    assert log.sums().keys_delivered == 10


@pytest.mark.parametrize("bad", ["x", None, -5, float("nan"), True])
def test_a_field_of_another_kind_counts_nothing(bad: Any) -> None:
    log = keying().at(100, "block.kept", key_bits=bad if bad is not True else "y")
    assert (log.sums().blocks, log.sums().secret_bits) == (1, 0)


def test_a_clock_set_forward_counts_nothing_and_one_set_back_drops_the_future() -> None:
    log = keying()
    log.until(100)
    log.kpis.skip(BEGIN + 10 * DAY_S)
    log.until(10 * DAY_S + 50)
    assert log.sums().covered_s == 150.0
    log.kpis.set_back(BEGIN + 120)
    log.until(150)
    assert (log.sums().covered_s, len(log.kpis.days.spans)) == (130.0, 1)


def test_years_of_absence_are_bounded() -> None:
    log = keying()
    log.at(20 * 365 * DAY_S, "core.started")
    assert len(log.kpis.days.spans) == 62
    assert log.sums().absent_s == pytest.approx(96 * QUARTER_S - QUARTER_S)


EVENTS = st.sampled_from(
    [
        ("core.started", {}),
        ("core.stopped", {}),
        ("state.activity", {"value": "keying"}),
        ("state.activity", {"value": "locking"}),
        ("state.administrative", {"value": "locked"}),
        ("state.administrative", {"value": "unlocked"}),
        ("alarm.maintenance", {"seconds": 2000.0}),
        ("phase.stage", {"stage": "locked"}),
        ("block.kept", {"key_bits": 100, "n_z": 10, "qber_z": 0.1, "n_x": 5, "qber_x": 0.2}),
        ("key.acknowledged", {"keys": 3, "age_s": 1.0, "age_max_s": 2.0}),
        ("alarm.cleared", {"after_s": 5.0}),
        ("other.thing", {}),
    ]
)
STEPS = st.lists(st.tuples(st.floats(0.0, 5000.0), EVENTS, st.booleans()), min_size=1, max_size=40)


@settings(deadline=None)
@given(STEPS, st.integers(0, 39))
def test_every_second_is_counted_once_and_a_restart_changes_nothing(
    steps: list[tuple[float, tuple[str, dict[str, Any]], bool]], cut: int
) -> None:
    log, other, t = Log(), Kpis(), 0.0
    for i, (wait, (name, fields), tick) in enumerate(steps):
        t += wait
        log.at(t, name, **fields)
        other.event(log.entries[-1])
        if tick:
            t += 10.0
            log.until(t)
            other.advance(BEGIN + t)
        if i == cut:
            other = Kpis.restored(json.loads(json.dumps(other.snapshot())))
            for entry in log.entries:
                other.event(entry)  # all over again: what was counted is not counted twice
    assert other.snapshot() == log.kpis.snapshot()
    first = datetime.fromisoformat(log.entries[0]["t"]).timestamp()
    assert log.kpis.now is not None
    days = total(log.kpis.days.spans.values())
    assert days.covered_s == pytest.approx(log.kpis.now - first, abs=1e-3)
    assert days.blocks + days.alarms_cleared <= len(steps)
    assert all(s.covered_s <= QUARTER_S + 1e-6 for s in log.kpis.quarters.spans.values())
    for a, b in pairwise(sorted(log.kpis.days.spans)):
        assert b - a == DAY_S


def test_a_snapshot_of_something_else_is_refused() -> None:
    for wrong in ({}, {"quarters": [[0, {"nonsense": 1}]], "days": []}, []):
        with pytest.raises((KeyError, TypeError, ValueError)):
            Kpis.restored(wrong)  # type: ignore[arg-type]
