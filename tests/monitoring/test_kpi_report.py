"""Service level over a period: what is taken from where, what is kept, and what the rows of the CSV say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import pytest

from qmodd.app.kpi_desk import message
from qmodd.monitoring.kpi import DAY_S, QUARTER_S, Kpis
from qmodd.monitoring.kpi_report import FIGURES, History, Report, as_json, csv_rows, report, sums_of
from tests.ctl_fakes import history
from tests.uplink_fakes import START

B = "QM-B-0001"


def of(kpis: Kpis, days: float = 1.0, limits: Mapping[str, float] | None = None, at: float = 0.0) -> Report:
    known = History()
    known.kpi(message(B, kpis))
    start = START + timedelta(days=at)
    return report(known, start, start + timedelta(days=days), limits or {})


def test_a_message_carries_the_sums_it_was_made_of() -> None:
    kpis = history(B, dip=True)
    told = message(B, kpis)
    for made, kept in zip(told.bins_24h, kpis.days.spans.values(), strict=True):
        assert sums_of(made).covered_s == pytest.approx(kept.covered_s)
        assert sums_of(made).availability == pytest.approx(kept.availability)
        assert sums_of(made).secret_bits == kept.secret_bits
        assert made.availability == pytest.approx(kept.availability, rel=1e-5)


def test_a_day_with_half_an_hour_of_outage() -> None:
    (m,) = of(history(B, dip=True)).modules
    by_name = {r.figure.name: r for r in m.results}
    assert by_name["availability"].value == pytest.approx(1 - 1860 / DAY_S, abs=1e-4)
    assert by_name["mttr_s"].value == 1800.0
    assert by_name["mtta_s"].value == 29.0
    assert by_name["mttd_s"].value == 4.0
    assert by_name["latency_mean_s"].value == pytest.approx(3.2)
    assert m.sums.down_s["locking"] == pytest.approx(1800.0, abs=1.0)
    assert (m.start, m.end) == (START, START + timedelta(days=1))


def test_promises_are_kept_or_missed() -> None:
    limits = {"availability": 0.98, "skr_bps": 50_000.0, "qber_z": 0.02, "mttr_s": 600.0}
    r = of(history(B, dip=True), limits=limits)
    told = as_json(r)["modules"][0]
    assert (r.kept, told["missed"]) == (False, ["availability", "mttr_s"])
    assert of(history(B, dip=True), limits={"availability": 0.97, "mttr_s": 1800.0}).kept
    assert of(history(B), limits={"mttr_s": 600.0}).kept  # without an alarm there is nothing to be late with


def test_time_below_the_floor_counts_spans() -> None:
    (m,) = of(history(B, dip=True), limits={"skr_bps": 40_000.0}).modules
    assert m.missed_s("skr_bps") == 3 * QUARTER_S
    assert m.missed_s("qber_z") == 0.0


def test_days_before_the_quarters_and_no_second_twice() -> None:
    r = of(history(B, days=5.0, dip=True), days=5.0)
    (m,) = r.modules
    widths = [s.width_s for s in m.spans]
    assert widths == [DAY_S] * 4 + [QUARTER_S] * 96
    assert m.sums.covered_s == pytest.approx(5 * DAY_S)
    assert of(history(B, days=5.0), days=1.0, at=4.0).modules[0].sums.covered_s == pytest.approx(DAY_S)


def test_a_period_of_which_nothing_is_known_is_not_kept() -> None:
    r = of(history(B), days=1.0, at=30.0)
    assert (r.kept, as_json(r)["modules"][0]["availability"]) == (False, None)
    known = History()
    assert not report(known, START, START + timedelta(days=1), {}, ["QM-X-1"]).kept
    assert not report(known, START, START + timedelta(days=1), {}).kept


def test_recorded_messages_make_a_longer_history() -> None:
    known = History()
    first, second = history(B, days=1.0), history(B, days=1.0, start=START + timedelta(days=1))
    half = history(B, days=0.5)
    known.lines([message(B, k).payload().decode() for k in (half, second, first, half)])
    (m,) = report(known, START, START + timedelta(days=2), {}).modules
    assert m.sums.covered_s == pytest.approx(2 * DAY_S)
    assert m.sums.keys_delivered == first.days.spans[START.timestamp()].keys_delivered * 2
    assert known.strange == 0


def entries(kpis_of: str = B) -> list[dict[str, Any]]:
    out: list[dict[str, Any]] = []

    def tell(s: float, event: str, **fields: Any) -> None:
        t = (START + timedelta(seconds=s)).isoformat()
        out.append({"seq": len(out) + 1, "t": t, "module": kpis_of, "event": event, **fields})

    tell(0, "core.started")
    tell(100, "state.activity", value="keying", why="")
    for s in range(200, 3601, 100):
        tell(s, "block.kept", key_bits=1000, n_z=100, qber_z=0.01, n_x=10, qber_x=0.01)
    return out


def test_a_recorded_event_log_is_counted_by_the_same_engine() -> None:
    flat = entries()
    messages = [
        {
            **{k: e[k] for k in ("seq", "t", "module", "event")},
            "fields": {k: v for k, v in e.items() if k == "key_bits"},
        }
        for e in entries("QM-A-0001")
    ]
    known = History()
    lines = [json.dumps(e) for e in reversed(flat)]
    lines += [f"qmodd/v1/QM-A-0001/event {json.dumps(e)}" for e in messages]
    known.lines([*lines, *lines, "", "nonsense", "{}", '{"event": 3}'])
    assert known.strange == 3
    a, b = report(known, START, START + timedelta(hours=1), {}).modules
    assert (a.module, b.module) == ("QM-A-0001", B)
    assert a.sums.secret_bits == b.sums.secret_bits == 34_000  # the last is of the next hour
    assert b.sums.availability == pytest.approx(3500 / 3600)
    assert b.sums.qber_z == pytest.approx(0.01)


def test_rows_for_a_spreadsheet() -> None:
    head, whole, *spans = csv_rows(of(history(B, dip=True)))
    assert head[:4] == ["module", "span", "start_utc", "seconds"]
    assert all(len(row) == len(head) for row in (whole, *spans))
    assert {f.name for f in FIGURES} <= set(head)
    assert (whole[1], {row[1] for row in spans}, len(spans)) == ("period", {"15min"}, 96)
    bits = head.index("secret_bits")
    assert whole[bits] == sum(row[bits] for row in spans)
    assert datetime.fromisoformat(whole[2]) == START
