"""`qmodctl kpi`: periods, files, statuses, what is shown; offline from recorded files, and what a broker retains."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from qmodd import ctl
from qmodd.app.kpi_desk import message
from qmodd.ctl import Ctl, CtlError
from qmodd.ctl_kpi import period
from tests.ctl_fakes import history

A, B = "QM-A-0001", "QM-B-0001"
DAY = ["--from", "2026-01-01", "--to", "2026-01-02"]


@pytest.fixture
def recorded(tmp_path: Path) -> str:
    path = tmp_path / "history.jsonl"
    kpis = [message(A, history(A, lock=False)), message(B, history(B, dip=True))]
    path.write_bytes(b"".join(k.payload() + b"\n" for k in kpis))
    return str(path)


def asked(*words: str) -> Any:
    return ctl.parser("kpi").parse_args(["kpi", *words])


def test_periods() -> None:
    now = datetime(2026, 2, 1, 12, tzinfo=UTC)
    for words, hours in ((["--last", "90min"], 1.5), ([], 24.0), (["--last", "7d"], 168.0), (["--last", "1.5h"], 1.5)):
        start, end = period(asked(*words), now)
        assert (end, (end - start).total_seconds() / 3600) == (now, hours)
    start, end = period(asked("--from", "2026-01-31T12:00+02:00", "--to", "2026-02-01"), now)
    assert (start, end) == (datetime(2026, 1, 31, 10, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--last", "x"], "90min, 24h or 30d"),
        (["--last=-1h"], "90min, 24h or 30d"),
        (["--last", "0h"], "90min, 24h or 30d"),
        (["--last", "9999999999d"], "90min, 24h or 30d"),
        (["--from", "yesterday"], "--from 'yesterday'"),
        (["--from", "2027-01-01", "--to", "2026-01-01"], "empty"),
    ],
)
def test_periods_that_are_none(words: list[str], says: str) -> None:
    with pytest.raises(CtlError, match=says):
        period(asked(*words), datetime(2026, 2, 1, tzinfo=UTC))


def test_a_report_from_a_recorded_file(recorded: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["kpi", "--offline", "--history", recorded, *DAY]
    assert ctl.main(words) == 0
    out = capsys.readouterr().out
    assert "97.8" in out
    assert "QM-A-0001" in out
    assert max(map(len, out.splitlines())) <= 80
    assert ctl.main([*words, "--min-availability", "0.99", "--max-mttr", "600"]) == 1
    out = capsys.readouterr().out
    assert "≥ 99.000%" in out
    assert "QM-B-0001: availability 97.847%, promised at least 99.000%" in out
    assert "time to repair (MTTR) 30 min, promised at most 10 min" in out
    assert "QM-A-0001: " not in out


def test_json_and_csv_say_the_same(recorded: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sheet = tmp_path / "kpi.csv"
    assert ctl.main(["kpi", B, "--offline", "--history", recorded, *DAY, "--json", "--csv", str(sheet)]) == 0
    told = json.loads(capsys.readouterr().out)["modules"]
    with sheet.open() as file:
        rows = list(csv.DictReader(file))
    assert [m["module"] for m in told] == [B]
    assert float(rows[0]["availability"]) == pytest.approx(told[0]["availability"], rel=1e-5)
    assert int(rows[0]["keys_delivered"]) == told[0]["keys_delivered"] > 0


def test_many_modules_are_a_line_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "history.jsonl"
    names = [f"QM-B-{i:04}" for i in range(6)]
    path.write_bytes(b"".join(message(n, history(n, 0.1)).payload() + b"\n" for n in names))
    assert ctl.main(["kpi", *names, "QM-B-9999", "--offline", "--history", str(path), *DAY]) == 1
    out = capsys.readouterr().out
    assert all(n in out for n in names)
    assert "QM-B-9999: nothing is known of this period" in out
    assert max(map(len, out.splitlines())) <= 80


def test_a_page_stands_alone(recorded: str, tmp_path: Path) -> None:
    page = tmp_path / "sla.html"
    words = ["--min-availability", "0.99", "--min-skr", "40000", "--max-qber-z", "0.02", "--html", str(page)]
    assert ctl.main(["kpi", "--offline", "--history", recorded, *DAY, *words]) == 1
    text = page.read_text()
    assert text.count("<svg") == 6
    assert "<script" not in text
    assert "http" not in text.replace('http-equiv="Content-Security-Policy"', "")
    assert "<strong>Missed</strong> by 1 of 2 modules: QM-B-0001" in text
    assert "below its floor in spans of together 45 min" in text
    ids = [part.split('"')[0] for part in text.split(' id="')[1:]]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("command", [["--offline"], ["--offline", "--history", "/nowhere"], ["--last", "x"]])
def test_wrong_usage(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert ctl.main(["kpi", *command]) == 2
    assert capsys.readouterr().err.startswith("qmodctl: ")


def test_a_file_that_cannot_be_written_is_named(recorded: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["kpi", "--offline", "--history", recorded, *DAY]
    assert ctl.main([*words, "--csv", "/nowhere/kpi.csv"]) == 2
    assert "/nowhere/kpi.csv: No such file or directory" in capsys.readouterr().err


def test_what_the_broker_has_is_saved_and_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def retained(_ctl: Ctl, module: str | None, *suffixes: str) -> dict[str, dict[str, bytes]]:
        assert (module, suffixes) == (None, ("kpi",))
        return {B: {"kpi": message(B, history(B)).payload()}, A: {"kpi": b'{"of": "another version"}'}}

    monkeypatch.setattr(Ctl, "retained", retained)
    save = tmp_path / "kept.jsonl"
    for _ in range(2):
        assert ctl.main(["kpi", *DAY, "--save", str(save), "--json"]) == 0
    first = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert ctl.main(["kpi", *DAY, "--offline", "--history", str(save), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == first
    assert len(save.read_bytes().splitlines()) == 2


def test_no_module_at_all(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    async def nothing(_ctl: Ctl, module: str | None, *suffixes: str) -> dict[str, Sequence[str]]:
        return {}

    monkeypatch.setattr(Ctl, "retained", nothing)
    assert ctl.main(["kpi"]) == 3
    assert "no module has published KPIs" in capsys.readouterr().err
