"""`qmodd selftest` as a technician and a build server see it: exit statuses, files, golden modules, wrong usage."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from rich.console import Console

from qmodd import cli
from qmodd.selftest import catalogue
from qmodd.selftest.bench import Bench, Production
from qmodd.selftest.model import Check, Finding, Level, Limits
from qmodd.selftest_cli import emulated
from qmodd.selftest_cli.command import FAILED, PASSED, UNREACHABLE, WRONG
from qmodd.selftest_cli.view import Bars, show, view
from tests.selftest.reports import broken, healthy


async def _rail(bench: Bench) -> Sequence[Finding]:
    reading = await bench.context.rail.read()
    limits = Limits(3.8, 4.2)
    witness = await bench.context.submount.read_celsius()
    channel = "pa0" if bench.side == "alice" else "pb0"
    dark = (await bench.context.adc.read_volts(1))[channel]
    return [
        Finding("dark", dark, "V", Limits(-1.0, 2.0), f"photodiode {channel}"),
        Finding("rail_voltage", reading.bus_v, "V", limits, "heater_rail", sigma=1e-3, hint="measure the supply"),
        Finding("submount_temperature", witness, "C", Limits(5.0, 60.0), "submount"),
    ]


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """One check instead of all of them."""
    checks = (Check("rail", Level.POWER_ON, _rail),)
    monkeypatch.setattr(catalogue, "CHECKS", checks)
    monkeypatch.setattr(emulated, "CHECKS", checks)


class Called:
    def __init__(self, capsys: pytest.CaptureFixture[str], *arguments: str) -> None:
        self.status = cli.main(["selftest", *arguments])
        captured = capsys.readouterr()
        self.told = captured.err
        self.json: dict[str, Any] = json.loads(captured.out.splitlines()[-1]) if captured.out else {}


POWER_ON = ("--emulated", "--level", "power-on")


def scenario(tmp_path: Path, on: str, what: str) -> str:
    path = tmp_path / "fault.toml"
    path.write_text(f'[[fault]]\nat = 0.0\nwhat = "{what}"\non = "{on}"\n')
    return str(path)


def test_a_good_module_with_all_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    html, xml = tmp_path / "r.html", tmp_path / "r.xml"
    called = Called(capsys, *POWER_ON, "--side", "bob", "--json", "--html", str(html), "--junit", str(xml))
    assert called.status == PASSED
    assert called.json["passed"]
    assert (called.json["side"], called.json["level"], called.json["suspects"]) == ("bob", "power-on", [])
    assert any(c["name"] == "rail_voltage" and c["unit"] == "V" for c in called.json["checks"])
    assert called.json["controller"] == "QM-B-0001"
    serial = called.json["serial"]
    assert serial.startswith("QB")
    assert f"Self-test of {serial}" in html.read_text()
    assert ElementTree.parse(xml).getroot().attrib["failures"] == "0"
    assert f"{serial}: passed" in called.told
    assert "power-on self-test: rail" in called.told


def test_production_takes_its_temperatures_and_hours(capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[Production] = []

    async def noted(bench: Bench) -> Sequence[Finding]:
        seen.append(bench.production)
        return []

    checks = (Check("noted", Level.POWER_ON, noted),)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(emulated, "CHECKS", checks)
        arguments = ("--emulated", "--level", "production", "--temperatures", "20,40", "--burn-in-hours", "1.5")
        assert Called(capsys, *arguments).status == PASSED
    assert (seen[0].temperatures_c, seen[0].burn_in_h) == ((20.0, 40.0), 1.5)
    assert Called(capsys, *POWER_ON, "--burn-in-hours", "2").status == WRONG
    assert Called(capsys, "--emulated", "--level", "production", "--burn-in-hours", "0").status == WRONG


def test_a_broken_module(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    called = Called(capsys, *POWER_ON, "--json", "--scenario", scenario(tmp_path, "alice.tmp117", "unplug"))
    assert called.status == FAILED
    assert called.json["part"] == "submount"
    assert "failed: submount" in called.told


def test_a_module_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [
        f'[[fault]]\nat = 0.0\nwhat = "nack"\non = "alice.{bus}"\n'
        for bus in ("i2c1", "i2c2", "spi0.0", "spi0.1", "spi1.0")
    ]
    lines += [f'[[fault]]\nat = 0.0\nwhat = "unplug"\non = "alice.{part}"\n' for part in PARTS]
    path = tmp_path / "gone.toml"
    path.write_text("".join(lines))
    assert Called(capsys, *POWER_ON, "--scenario", str(path)).status == UNREACHABLE


PARTS = ("ltc2672", "ltc2668", "ads131m08", "ina228", "tmp117", "pca9535", "tec", "laser", "source", "pmbus")


def test_golden_from_many_then_held_against_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "golden.json"
    made = Called(capsys, *POWER_ON, "--golden-from", "6", "--write-golden", str(file))
    assert made.status == PASSED
    assert json.loads(file.read_text())["kind"] == "population"
    held = Called(capsys, *POWER_ON, "--seed", "99", "--golden", str(file), "--json")
    assert held.status == PASSED
    rail = next(c for c in held.json["checks"] if c["name"] == "rail_voltage")
    assert rail["golden_z"] is not None
    other = Called(capsys, *POWER_ON, "--side", "bob", "--golden", str(file))
    assert other.status == WRONG
    assert "the golden module is of alice, the report of bob" in other.told


def test_a_unit_checks_its_station(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "unit.json"
    assert Called(capsys, *POWER_ON, "--repeat", "6", "--write-golden", str(file)).status == PASSED
    assert json.loads(file.read_text())["kind"] == "unit"
    called = Called(capsys, *POWER_ON, "--golden", str(file), "--station-check", "--json")
    assert called.status == PASSED
    names = {c["name"] for c in called.json["checks"]}
    assert names
    assert all(name.startswith(("station.", "gauge.")) for name in names)


def test_golden_from_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from qmodd.selftest.report_json import as_dict

    files = []
    for seed in range(6):
        path = tmp_path / f"{seed}.json"
        path.write_text("progress\n" + json.dumps(as_dict(healthy(seed))) + "\n")
        files.append(str(path))
    golden = tmp_path / "g.json"
    assert Called(capsys, "--write-golden", str(golden), *files).status == PASSED
    assert json.loads(golden.read_text())["serials"] == [f"QM-A-{seed:04d}" for seed in range(6)]
    few = Called(capsys, "--write-golden", str(golden), *files[:3])
    assert few.status == WRONG
    assert "at least 5" in few.told


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give --config FILE or --emulated"),
        (["--config", "x.toml", "--seed", "1"], "--seed goes with --emulated"),
        (["--config", "x.toml", "--side", "bob"], "--side goes with --emulated"),
        (["--config", "/nowhere.toml"], "/nowhere.toml"),
        (["--emulated", "--station-check"], "--golden FILE"),
        (["--emulated", "--golden", "/nowhere.json"], "/nowhere.json: cannot be read"),
        (["--emulated", "--golden-from", "5"], "--write-golden FILE"),
        (["--emulated", "--repeat", "0"], "at least 1 is allowed"),
        (["--emulated", "report.json"], "reports go with --write-golden alone"),
        (["--write-golden", "g.json", "/nowhere.json"], "/nowhere.json: cannot be read"),
        (["--emulated", "--scenario", "/nowhere.toml"], "/nowhere.toml"),
    ],
)
def test_wrong_usage(capsys: pytest.CaptureFixture[str], arguments: list[str], said: str) -> None:
    called = Called(capsys, *arguments)
    assert called.status == WRONG
    assert said in called.told.replace("\n", "")


# the terminal


def terminal(width: int = 110) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=width)


def text(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_bars_on_a_terminal() -> None:
    console = terminal()
    with view(console) as shown:
        assert isinstance(shown, Bars)
        shown.say("opening [the] devices")
        shown.progress("rail", 0.0, "power-on self-test")
        shown.progress("adc", 0.5, "power-on self-test")
        shown.say("light-off")
    assert "opening [the] devices" in text(console)
    assert "power-on self-test" in text(console)


def test_the_result_lists_what_is_wrong_and_why() -> None:
    console = Console(file=io.StringIO(), width=110)
    show(broken(), console)
    said = text(console)
    assert "failed: heater split: open circuit; replace the chip" in said
    assert "resistance.split" in said
    assert "heater split has failed" in said
    assert "disk_free" not in said
    show(healthy(1), console, every=True)
    assert "disk_free" in text(console)
