"""`qmodctl selftest` and `qmodctl monitors`: what is shown, written, and their statuses."""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from qmodd import ctl
from qmodd.ctl_errors import CtlError
from qmodd.ctl_lab import Desk
from qmodd.ctl_selftest import monitor_table, run_monitors, run_selftest, show_selftest
from qmodd.messages import Reply, ReplyError, SelftestReport
from qmodd.selftest.model import Report
from qmodd.selftest.retained import message
from tests.selftest.reports import broken, healthy

ID = "5b0d5738-b9b1-4d3f-86f4-8ca81eb93850"


def parsed(*arguments: str) -> argparse.Namespace:
    return ctl.parser().parse_args([*arguments])


def screen(width: int = 160) -> Console:
    return Console(file=io.StringIO(), width=width)


def text(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


class Asked:
    """A module that answers every request with the same."""

    def __init__(self, result: dict[str, Any] | None = None, error: ReplyError | None = None) -> None:
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self._reply = Reply(id=ID, ok=error is None, result=result, error=error)

    async def send(self, command: str, arguments: dict[str, Any]) -> Reply:
        self.requests.append((command, arguments))
        return self._reply


def shown(report: Report, *more: str) -> tuple[int, str]:
    out = screen()
    status = show_selftest(message(report), parsed("selftest", "QM-A-0001", *more), out)
    return status, text(out)


def test_a_good_module() -> None:
    status, said = shown(healthy(1))
    assert status == 0
    assert "light-on self-test of 2026-01-01 00:00:12 UTC" in said
    assert "passed: 8 values within their limits" in said
    assert "rail_voltage" not in said
    assert "rail_voltage" in shown(healthy(1), "--all")[1]


def test_a_broken_module_has_status_1_and_names_the_part() -> None:
    status, said = shown(broken())
    assert status == 1
    assert "failed: heater split: open circuit; replace the chip" in said
    assert "resistance.split" in said


def test_the_page_comes_from_the_retained_report(tmp_path: Path) -> None:
    html = tmp_path / "page.html"
    shown(broken(), "--html", str(html))
    assert "What is to blame" in html.read_text()


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    shown(broken(), "--json")
    told = json.loads(capsys.readouterr().out)
    assert told["passed"] is False
    assert told["part"] == "heater split"


async def test_a_new_test_is_asked_for_and_shown() -> None:
    async def fetch() -> SelftestReport:
        return message(broken())

    asked, out = Asked({}), screen()
    arguments = parsed("selftest", "QM-A-0001", "--level", "light-on")
    assert await run_selftest(arguments, Desk(asked.send, False, out), fetch) == 1
    assert asked.requests == [("selftest", {"level": "light-on", "wait": True, "force": False})]
    refused = Asked(error=ReplyError(code="wrong_state", message="leased"))
    with pytest.raises(CtlError, match="leased"):
        await run_selftest(arguments, Desk(refused.send, False, out), fetch)


MONITORS: dict[str, Any] = {
    "utc": "2026-01-01T12:00:00.000+00:00",
    "span_s": 0.17,
    "serving": True,
    "monitors": [
        {
            "name": "fan",
            "value": 900.0,
            "unit": "rpm",
            "low_alarm": 1000.0,
            "low_warning": 1300.0,
            "high_warning": None,
            "high_alarm": None,
            "flags": ["low alarm", "low warning"],
            "latched": ["low alarm", "low warning"],
            "limits_from": "configuration: safety",
            "unread": "",
        }
    ],
}


async def test_monitors_with_an_alarm_have_status_1() -> None:
    asked, out = Asked(MONITORS), screen()
    assert await run_monitors(parsed("monitors", "QM-A-0001", "--clear"), Desk(asked.send, False, out)) == 1
    assert asked.requests == [("monitors", {"freeze": True, "clear": True})]
    assert "fan" in text(out)
    assert "low alarm" in text(out)


async def test_monitors_in_order_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    calm = {**MONITORS, "monitors": [{**MONITORS["monitors"][0], "flags": [], "latched": ["low warning"]}]}
    asked = Asked(calm)
    assert await run_monitors(parsed("monitors", "M", "--last", "--json"), Desk(asked.send, True, screen())) == 0
    assert asked.requests == [("monitors", {"freeze": False, "clear": False})]
    assert json.loads(capsys.readouterr().out)["monitors"][0]["name"] == "fan"


def test_what_could_not_be_read_is_said() -> None:
    out = screen()
    row = {**MONITORS["monitors"][0], "value": None, "flags": [], "latched": [], "unread": "no acknowledge"}
    out.print(monitor_table({**MONITORS, "monitors": [row]}))
    assert "no acknowledge" in text(out)
