"""`qmodd soak`: a pair in simulated time from the command line, fast and the same again."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest

from qmodd.cli import main
from qmodd.clock import LoopClock
from qmodd.soak import RANDOM_FIELDS, availability, lock_ledger, soak, spans
from sim.scenario import Link, Scenario

# Just past the first block.
DAYS = 0.0023


def test_reaches_keys_much_faster_than_real_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "events.jsonl"
    status = main(["soak", "--days", str(DAYS), "--seed", "1", "--json", "--events", str(log)])
    said = capsys.readouterr()
    report = json.loads(said.out)
    assert said.out.count("\n") == 1  # one JSON object, everything else on stderr
    assert status == 0
    assert report["days"] == DAYS
    assert report["speedup"] > 0.0  # how fast is the benchmarks' business
    assert report["blocks"] >= 1
    assert report["keys_created"] == report["keys_delivered"] > 0
    assert report["keys_lost"] == 0
    assert 0.0 < report["qber_z"] <= 0.02
    assert report["skr_bps"] > 0.0
    assert all(report["invariants"].values())
    assert len(report["event_log_sha256"]) == 64
    for name in report:
        assert name in said.err
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert len(lines) == report["events"]
    assert lines == sorted(lines, key=lambda e: (e["t"], e["module"], e["seq"]))
    assert all(not RANDOM_FIELDS & e.keys() for e in lines)


def test_without_keys_it_is_not_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["soak", "--days", "0.0002", "--seed", "1", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert (report["keys_created"], report["qber_z"], report["skr_bps"]) == (0, None, 0.0)


def test_scenario_comes_from_a_file_and_its_seed_is_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dark, log = tmp_path / "dark.toml", tmp_path / "events.jsonl"
    dark.write_text('seed = 9\n[[fault]]\nat = 0\non = "alice.laser"\nwhat = "dead"\n')
    assert (
        main(["soak", "--days", "0.0005", "--seed", "1", "--scenario", str(dark), "--json", "--events", str(log)]) == 1
    )
    assert json.loads(capsys.readouterr().out)["keys_created"] == 0
    assert "no emission" in log.read_text()


def test_seed_decides_about_individuals(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first, report = soak(0.0001, 1, tmp_path / "a", Scenario(seed=4, link=Link(loss_db=12.0)))
    second, other = soak(0.0001, 2, tmp_path / "b")
    assert first.scenario.seed == 1
    assert first.world.fibre.loss_db == pytest.approx(12.0, abs=0.5)
    assert first.world.alice.serial != second.world.alice.serial
    assert report["event_log_sha256"] != other["event_log_sha256"]
    first.close()
    second.close()


def test_wrong_scenario_is_2_and_says_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = tmp_path / "wrong.toml"
    wrong.write_text("[link]\nloss_db = 100.0\n")
    assert main(["soak", "--scenario", str(wrong)]) == 2
    said = capsys.readouterr().err
    for word in (str(wrong), "link.loss_db", "80", "100.0"):
        assert word in said


def said(at_s: float, event: str, **fields: str) -> dict[str, str]:
    return {
        "t": (LoopClock.epoch + timedelta(seconds=at_s)).isoformat(timespec="milliseconds"),
        "event": event,
        **fields,
    }


def test_availability_is_the_share_in_which_both_key() -> None:
    alice = [said(0, "state.activity", value="boot"), said(10, "state.activity", value="keying")]
    bob = [
        said(20, "state.activity", value="keying"),
        said(25, "state.activity", value="keying"),
        said(60, "state.activity", value="safe"),
        said(90, "state.activity", value="keying"),
    ]
    assert spans(bob, "state.activity", "value", "keying", 100.0) == [(20.0, 60.0), (90.0, 100.0)]
    assert availability(alice, bob, 100.0) == pytest.approx(0.5)
    assert availability(alice, [], 100.0) == 0.0


def test_the_ledger_counts_losses_and_the_way_back() -> None:
    stages = [(10, "fine"), (20, "locked"), (50, "degraded"), (54, "locked"), (80, "relock"), (88, "locked")]
    log = [said(at, "phase.stage", stage=stage) for at, stage in stages]
    ledger = lock_ledger(log, 120.0)
    assert ledger["losses"] == 2
    assert ledger["uptime"] == pytest.approx(0.88)
    assert ledger["relock_s_p99"] == pytest.approx(8.0, abs=0.1)
    assert lock_ledger(log[:1], 120.0) == {"uptime": 0.0, "losses": 0, "relock_s_p99": None}
