"""What is drawn of modules: fits its width, says the reason, tells what is worst; and the fleet's line and totals."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from qmodd.ctl_fleet import fleet_view, rate, row, totals
from qmodd.ctl_seen import SILENT_S, Fleet
from qmodd.ctl_watch import _picture
from qmodd.ctl_watch_view import WatchView
from tests.ctl_fakes import alarm, event, hear, history, said, telemetry
from tests.uplink_fakes import START, HandClock

A, B = "QM-A-0001", "QM-B-0001"
LONG = history(B, dip=True)


def pair(seconds: int = 60) -> Fleet:
    fleet = Fleet()
    hear(fleet, A, said(A, kpis=history(A, 0.1, lock=False)))
    hear(fleet, B, said(B, kpis=LONG, alarms=[alarm("phase-lost", "minor", acknowledged="ann")]))
    for n in range(seconds):
        hear(fleet, A, telemetry(n, receiver=False), n)
        hear(fleet, B, telemetry(n), n)
    return fleet


def drawn(fleet: Fleet, width: int = 80, height: int = 40, now_s: float = 60.0) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width, height=height).print(WatchView(fleet, HandClock(now_s)))
    return out.getvalue().splitlines()


def test_two_modules_in_80_columns() -> None:
    lines = drawn(pair())
    assert all(cell_len(line) == 80 for line in lines)
    text = "\n".join(lines)
    assert re.search(r"QBER Z +0\.\d\d%  [▁-█]{40}", text)
    assert re.search(r"SKR +\d\d\.\d kb/s  [▁-█]{40}", text)
    assert re.search(r"24 h +97\.8\d%  [▁-█]{40}", text)
    assert "locked  error -0.3°, visibility 98.7%, 24 h 100.00%" in text.replace("+0.3°", "-0.3°")
    assert "usable after 3.2 s" in text
    assert "minor phase-lost for 60 s, ann: less than 5%" in text
    assert "distilling keys" in text


@settings(max_examples=25, deadline=None)
@given(st.integers(40, 200), st.integers(10, 80), st.integers(0, 9))
def test_it_fits_every_terminal(width: int, height: int, modules: int) -> None:
    fleet = Fleet()
    for i in range(modules):
        serial, why = f"QM-B-{i:04}", ["keying", "safe", "locking"][i % 3]
        hear(fleet, serial, said(serial, why, online=i != 4, kpis=LONG if i % 2 else None, alarms=[alarm("no-light")]))
        for n in range(3):
            hear(fleet, serial, telemetry(n))
    lines = drawn(fleet, width, height)
    assert all(cell_len(line) <= width for line in lines)
    assert sum("QM-B-" in line for line in lines) >= modules


def test_many_modules_are_a_line_each_and_the_worst_is_first() -> None:
    fleet = pair()
    for serial, activity, online, severity in (
        ("QM-B-0002", "keying", True, "critical"),
        ("QM-B-0003", "safe", True, ""),
        ("QM-B-0004", "keying", False, ""),
        ("QM-B-0005", "keying", True, ""),
        ("QM-B-0006", "keying", True, ""),
    ):
        hear(fleet, serial, said(serial, activity, online=online, alarms=[alarm("x", severity)] if severity else []))
    order = [line.split()[0] for line in drawn(fleet) if line.startswith("QM-")]
    assert order == ["QM-B-0004", "QM-B-0002", "QM-B-0001", "QM-B-0003", "QM-A-0001", "QM-B-0005", "QM-B-0006"]


def test_a_dark_module_says_why_and_what_it_holds_off() -> None:
    fleet = Fleet()
    hear(fleet, B, said(B, "safe", alarms=[alarm(f"a{i}") for i in range(7)]))
    text = "\n".join(drawn(fleet))
    assert re.search(r"^│ interlock cover: open  unlocked disabled", text, re.M)
    assert "4 outputs held off: interlock cover: open" in text
    assert "and 2 more alarms" in text


def test_what_waits_for_a_second_person_is_told() -> None:
    fleet = Fleet()
    hear(fleet, B, {**said(B), "approval/00ff": b'{"what": "purge"}'})
    assert "1 waiting for a second person: qmodctl approvals QM-B-0001" in "\n".join(drawn(fleet))
    summary = fleet.views.modules[B].summary()
    assert summary["approvals"] == ["00ff"]
    hear(fleet, B, {"approval/00ff": b""})
    assert fleet.views.modules[B].summary()["approvals"] == []


def test_old_telemetry_is_called_old() -> None:
    fleet = pair(1)
    assert "no telemetry" not in "\n".join(drawn(fleet, now_s=SILENT_S - 1))
    assert "no telemetry for 100 s" in "\n".join(drawn(fleet, now_s=100.0))


def test_events_are_told_but_not_those_of_every_block() -> None:
    fleet = pair(1)
    for seq, name in ((1, "phase.relocked"), (2, "block.kept"), (3, "key.usable")):
        hear(fleet, B, event(seq, name))
    text = "\n".join(drawn(fleet))
    assert "00:00:01 phase.relocked" in text
    assert "block.kept" not in text


def test_what_makes_no_sense_is_shown_as_nothing() -> None:
    fleet = Fleet()
    for suffix, payload in (
        ("state", b"[]"),
        ("alive", b'"x"'),
        ("kpi", b"{}"),
        ("telemetry/keys", b'{"qber_z": "x"}'),
    ):
        hear(fleet, B, {suffix: payload})
    assert "offline" in "\n".join(drawn(fleet))
    assert row(fleet.modules[B])["qber_z"] is None


def test_shelved_alarms_are_not_counted() -> None:
    fleet = Fleet()
    hear(fleet, B, said(B, alarms=[alarm("no-light", shelved_until=START)]))
    assert fleet.modules[B].alarms == []


def test_totals_count_a_link_once() -> None:
    fleet = pair()
    t = totals(list(fleet.modules.values()))
    assert (t["modules"], t["keying"], t["offline"], t["links"]) == (2, 2, 0, 1)
    assert t["skr_bps"] == row(fleet.modules[B])["skr_bps"]
    assert t["alarms"] == {"minor": 1}
    assert t["keys_delivered_24h"] == sum(row(m)["keys_delivered_24h"] for m in fleet.modules.values())
    assert t["availability_24h_min"] == row(fleet.modules[B])["availability_24h"]


def test_wide_terminals_get_pictures() -> None:
    for width, there in ((80, False), (140, True)):
        out = io.StringIO()
        Console(file=out, width=width).print(fleet_view(pair().worst_first(), width))
        assert ("SKR, 24 h" in out.getvalue()) is there


@pytest.mark.parametrize(
    ("bps", "text"), [(None, "-"), (0.0, "0 b/s"), (999.0, "999 b/s"), (77_400.0, "77.4 kb/s"), (2.5e6, "2.5 Mb/s")]
)
def test_rates(bps: float | None, text: str) -> None:
    assert rate(bps) == text


def test_a_picture_of_it(tmp_path: Path) -> None:
    _picture(WatchView(pair(), HandClock(60.0)), 40, tmp_path / "watch.svg")
    text = (tmp_path / "watch.svg").read_text()
    assert text.startswith("<svg")
    assert "url(http" not in text.replace("url(#", "")
    assert "cdn" not in text
    assert "QM-B-0001" in text
