"""Leases, sweeps and records from the operator's command line, with a module that answers from a script."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from qmodd.ctl import parser
from qmodd.ctl_errors import CtlError
from qmodd.ctl_lab import LAB, Desk, differences, show_calibrations
from qmodd.messages import CalibrationRecord, Reply, ReplyError

ID = "00000000-0000-4000-8000-000000000000"
NOW = datetime(2026, 3, 1, tzinfo=UTC)
LEASE = {
    "leases": [
        {"output": "heater.phase", "value": 0.012, "unit": "A", "low": 0.0, "high": 0.033, "keys_stop": True},
    ]
}
RELEASED = {"released": [{"output": "heater.phase", "owner": "loop interferometer phase", "value": 0.012}]}
SWEPT = {
    "columns": [{"name": "heater.phase", "unit": "A"}, {"name": "adc.pb0", "unit": "V"}],
    "rows": [[0.0, 0.5], [0.01, 0.6]],
    "value": 0.012,
}


class Module:
    """Answers by command; notes what it was asked."""

    def __init__(self, **answers: Any) -> None:
        self.answers = {"lease": LEASE, "release": RELEASED, "sweep": SWEPT, **answers}
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.text = io.StringIO()

    async def send(self, command: str, arguments: dict[str, Any]) -> Reply:
        self.asked.append((command, arguments))
        answer = self.answers[command]
        if isinstance(answer, Callable):  # type: ignore[arg-type]
            answer = answer(arguments)
        if isinstance(answer, ReplyError):
            return Reply(id=ID, ok=False, error=answer)
        return Reply(id=ID, ok=True, result=answer)

    async def run(self, *words: str) -> int:
        arguments = parser().parse_args(list(words))
        desk = Desk(self.send, arguments.json, Console(file=self.text, width=160))
        return await LAB[arguments.what](desk, arguments)

    @property
    def commands(self) -> list[str]:
        return [command for command, _ in self.asked]


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    real, found = asyncio.sleep, []

    async def sleep(seconds: float) -> None:
        found.append(seconds)
        await real(0)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    return found


async def test_a_lease_is_renewed_and_given_back(slept: list[float]) -> None:
    module = Module()
    assert await module.run("lease", "QM-B-0001", "heater.phase", "--seconds", "25") == 0
    assert module.commands == ["lease", "lease", "lease", "release"]
    assert [a["seconds"] for c, a in module.asked if c == "lease"] == [25.0, 15.0, 5.0]
    assert sum(slept) == 25.0
    told = module.text.getvalue()
    assert "heater.phase is yours: 0.012 A, 0 to 0.033 A is allowed; no keys are made meanwhile" in told
    assert "heater.phase given back; owner now loop interferometer phase" in told


async def test_ctrl_c_gives_it_back() -> None:
    module = Module()
    work = asyncio.ensure_future(module.run("lease", "QM-B-0001", "heater.phase"))
    while not module.asked:
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert module.commands == ["lease", "release"]


async def test_a_lease_that_the_module_took_back_is_no_fault(slept: list[float]) -> None:
    module = Module(release=ReplyError(code="not_leased", message="ada has not leased heater.phase"))
    assert await module.run("lease", "QM-B-0001", "heater.phase", "--seconds", "1") == 0
    broken = Module(release=ReplyError(code="device", message="no answer"))
    with pytest.raises(CtlError, match=r"release refused \(device\): no answer"):
        await broken.run("lease", "QM-B-0001", "heater.phase", "--seconds", "1")


async def test_release(capsys: pytest.CaptureFixture[str]) -> None:
    module = Module()
    assert await module.run("release", "QM-B-0001", "heater.phase", "--json") == 0
    assert json.loads(capsys.readouterr().out) == RELEASED


SWEEP = ("sweep", "QM-B-0001", "heater.phase", "--from", "0", "--to", "0.01", "--points", "2", "--read", "adc.pb0")


async def test_a_sweep_writes_its_raw_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "sweep.csv"
    module = Module()
    assert await module.run(*SWEEP, "--csv", str(file)) == 0
    assert module.commands == ["lease", "sweep", "release"]
    assert module.asked[1][1] == {
        "output": "heater.phase",
        "from": 0.0,
        "to": 0.01,
        "points": 2,
        "settle": 0.05,
        "read": ["adc.pb0"],
        "stay": False,
    }
    assert file.read_text() == "heater.phase (A),adc.pb0 (V)\n0.0,0.5\n0.01,0.6\n"
    assert await Module().run(*SWEEP) == 0
    assert capsys.readouterr().out == file.read_text()
    assert await Module().run(*SWEEP, "--json") == 0
    assert json.loads(capsys.readouterr().out) == SWEPT


async def test_a_refused_sweep_gives_the_output_back() -> None:
    module = Module(sweep=ReplyError(code="out_of_range", message="to = 0.5 A: at most 0.033 A"))
    with pytest.raises(CtlError, match=r"sweep refused \(out_of_range\): to = 0.5 A") as e:
        await module.run(*SWEEP)
    assert e.value.status == 1
    assert module.commands[-1] == "release"
    kept = Module()
    await kept.run(*SWEEP, "--keep")
    assert kept.commands == ["lease", "sweep"]


# records


def record(version: int, p_pi: float) -> dict[str, Any]:
    return {
        "name": "arm_phase",
        "version": version,
        "value": {"p_pi_w": p_pi, "order": 1.0, **({"xi_rad": 0.1} if version == 2 else {})},
        "sigma": {"p_pi_w": 3e-5},
    }


async def test_two_records_are_compared(capsys: pytest.CaptureFixture[str]) -> None:
    module = Module(record=lambda a: record(a.get("version", 2), 0.03 if a.get("version") == 1 else 0.0301))
    assert await module.run("calibrations", "QM-B-0001", "--diff", "arm_phase:1", "arm_phase") == 0
    assert [a for _, a in module.asked] == [{"calibration": "arm_phase", "version": 1}, {"calibration": "arm_phase"}]
    told = module.text.getvalue()
    assert "arm_phase:1 and arm_phase:2" in told
    assert "p_pi_w" in told
    await module.run("calibrations", "QM-B-0001", "--diff", "arm_phase:1", "arm_phase:2", "--json")
    report = json.loads(capsys.readouterr().out)
    assert (report["a"], report["b"]) == ("arm_phase:1", "arm_phase:2")
    with pytest.raises(CtlError, match="'arm_phase:x' is not NAME:VERSION"):
        await module.run("calibrations", "QM-B-0001", "--diff", "arm_phase:x", "arm_phase")


def test_differences_are_in_standard_uncertainties() -> None:
    rows = {r["name"]: r for r in differences(record(1, 0.03), record(2, 0.0301))}
    assert rows["p_pi_w"]["change"] == pytest.approx(1e-4)
    assert rows["p_pi_w"]["sigmas"] == pytest.approx(1e-4 / (2**0.5 * 3e-5))
    assert (rows["order"]["change"], rows["order"]["sigmas"]) == (0.0, None)
    assert (rows["xi_rad"]["a"], rows["xi_rad"]["change"]) == (None, None)


async def test_rollback() -> None:
    module = Module(rollback={"version": 1})
    assert await module.run("calibrations", "QM-B-0001", "--rollback", "arm_phase") == 0
    assert module.asked == [("rollback", {"calibration": "arm_phase"})]
    assert "arm_phase: version 1 is active" in module.text.getvalue()


def summary(**changes: Any) -> CalibrationRecord:
    return CalibrationRecord(
        **{
            "name": "arm_phase",
            "version": 2,
            "value": {"p_pi_w": 0.0301},
            "sigma": {"p_pi_w": 3e-5},
            "taken": NOW - timedelta(hours=3),
            "valid_until": NOW + timedelta(days=1),
            **changes,
        }
    )


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        ({}, 0, ("3 h", "24 h", "p_pi_w 30.100 ± 0.030 mW", "good")),
        ({"valid_until": NOW}, 1, ("over", "to be checked")),
        ({"invalid": "heater_iv was redone"}, 1, ("invalid: heater_iv was redone",)),
        ({"valid_until": None, "value": {}}, 0, ("good",)),
    ],
)
def test_what_is_active_is_shown(
    changes: dict[str, Any], status: int, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    out = io.StringIO()
    records = {"arm_phase": summary(**changes)}
    assert show_calibrations(records, False, Console(file=out, width=160), NOW) == status
    for word in words:
        assert word in out.getvalue()
    assert show_calibrations(records, True, Console(file=out), NOW) == status
    assert json.loads(capsys.readouterr().out)["calibrations"][0]["version"] == 2
