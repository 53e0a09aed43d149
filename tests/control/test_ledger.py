"""The ledger over losses, restarts, torn lines and rotation."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qmodd.control import ledger as module
from qmodd.control.ledger import LockLedger
from qmodd.control.phase_types import LockReport, Stage

LOCKED = LockReport(Stage.LOCKED, True, "within limits", 0.01, 0.02, 0.97, 0.045, False, False, 0, 0, 0, age_s=0.2)
LOST = replace(LOCKED, stage=Stage.DEGRADED, locked=False, why="phase error +12.3 deg; 8.0 deg is the limit")


def told() -> tuple[list[tuple[str, dict[str, Any]]], Any]:
    events: list[tuple[str, dict[str, Any]]] = []
    return events, lambda name, fields: events.append((name, dict(fields)))


def live(ledger: LockLedger, begin: int = 0) -> None:
    for t in range(begin, begin + 10):
        ledger.see(float(t), LOCKED)
    for t in range(begin + 10, begin + 13):
        ledger.see(float(t), LOST)
    for t in range(begin + 13, begin + 20):
        ledger.see(float(t), LOCKED)


def test_counts_times_losses_causes_and_relocks() -> None:
    events, record = told()
    ledger = LockLedger(None, str, record)
    ledger.see(-1.0, replace(LOST, stage=Stage.COARSE, why="no counts yet"))
    live(ledger)
    ledger.wrapped(-1, 0.02, True)
    ledger.fault("not found")
    s = ledger.sums
    assert s.losses == 1
    assert s.causes == {"phase error deg; deg is the limit": 1}
    assert list(s.relock_s) == [3.0]
    assert s.stage_s["locked"] == pytest.approx(16.0)
    assert s.stage_s["degraded"] == pytest.approx(3.0)
    assert s.stage_s["coarse"] == pytest.approx(1.0)
    assert [name for name, _ in events] == ["phase.lost", "phase.relocked", "phase.wrap", "phase.fault"]
    n = ledger.numbers(LOCKED)
    assert n["uptime"] == pytest.approx(16 / 19)
    assert n["relock_s_p50"] == n["relock_s_p99"] == 3.0
    assert n["ledger_wraps_count"] == 1
    assert n["outage_s"] == 0.02
    assert n["locked"] is True
    assert n["stage_locked_s"] == pytest.approx(16.0)
    assert all(isinstance(v, int | float | bool) for v in n.values())


def test_a_pause_is_no_loss_and_a_long_gap_no_time() -> None:
    ledger = LockLedger(None, str)
    live(ledger)
    ledger.pause()
    ledger.see(1000.0, LOST)
    ledger.see(1001.0, LOCKED)
    ledger.see(5000.0, LOCKED)
    assert ledger.sums.losses == 1
    assert len(ledger.sums.relock_s) == 1
    assert sum(ledger.sums.stage_s.values()) == pytest.approx(20.0)


def test_survives_a_kill_at_any_byte(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = LockLedger(path, str)
    live(ledger)
    live(ledger, 100)
    whole = path.read_bytes()
    assert LockLedger(path, str).sums.losses == 2
    for cut in range(0, len(whole), 7):
        path.write_bytes(whole[:cut])
        again = LockLedger(path, str)
        assert 0 <= again.sums.losses <= 2
        again.wrapped(1, 0.02, True)
        assert LockLedger(path, str).sums.wraps == again.sums.wraps == 1


def test_rotates_and_keeps_the_sums(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROTATE_BYTES", 4000)
    path = tmp_path / "ledger.jsonl"
    ledger = LockLedger(path, str)
    for k in range(30):
        live(ledger, 100 * k)
    old = tmp_path / "ledger.jsonl.1"
    assert old.exists()
    assert path.stat().st_size < 6000
    assert json.loads(path.read_text().splitlines()[0])["event"] == "checkpoint"
    again = LockLedger(path, str)
    assert again.sums.losses == ledger.sums.losses == 30
    assert len(again.sums.relock_s) == 30


def test_foreign_lines_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    path.write_text('nonsense\n[1]\n{"event": "lost", "cause": "x"}\n{"no": 1}\n{"event": "relocked"}\n')
    assert LockLedger(path, str).sums.losses == 1
