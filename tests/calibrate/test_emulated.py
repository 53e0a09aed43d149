"""`qmodd calibrate --emulated`: both graphs from power-on, as a newcomer sees it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from calibration.procedures import alice_graph, bob_graph
from qmodd import cli
from qmodd.calibrate.command import DONE, REFUSED, WRONG
from qmodd.report import svg

GRAPHS = {"alice": alice_graph(), "bob": bob_graph()}


class Run:
    """One call of the command: exit status, what people read, what programs read."""

    def __init__(self, capsys: pytest.CaptureFixture[str], arguments: Sequence[str]) -> None:
        self.status = cli.main(["calibrate", *arguments])
        captured = capsys.readouterr()
        self.told = captured.err
        self.json: dict[str, Any] = json.loads(captured.out.splitlines()[-1]) if captured.out else {}

    def names(self, side: str) -> list[str]:
        return [r["name"] for r in self.json["records"] if r["side"] == side]


def test_the_whole_pair(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    html = tmp_path / "report.html"
    run = Run(capsys, ["--emulated", "--seed", "1", "--html", str(html), "--json"])
    assert run.status == DONE
    assert run.json["ok"]
    assert run.json["refused"] == []
    for side, graph in GRAPHS.items():
        assert run.names(side) == list(graph.names)
    for record in run.json["records"]:
        # The plant was identified on the way to temperature, before the walk.
        assert record["redone"] or record["name"] == "tec_plant"
        assert record["seconds"] >= 0.0
        assert set(record["units"]) == set(record["value"])
        assert set(record["sigma"]) <= set(record["value"])
    p_pi = next(r for r in run.json["records"] if r["name"] == "heater_iv" and r["side"] == "alice")
    assert p_pi["units"]["split_r0_ohm"] == "ohm"
    assert p_pi["sigma"]["split_r0_ohm"] > 0.0
    # The work of each adds up to what is told of the whole, less the time that the chips took to their temperature.
    assert 0.0 < sum(r["seconds"] for r in run.json["records"]) < run.json["seconds"] < 200.0
    text = html.read_text()
    assert "Transmitter QM-A-0001" in text
    assert "Receiver QM-B-0001" in text
    assert "not kept any more" not in text
    assert len(text) < 3_000_000
    assert "redone" in run.told
    assert f"report: {html}" in run.told


def test_a_target_takes_what_it_rests_on(capsys: pytest.CaptureFixture[str]) -> None:
    run = Run(capsys, ["--emulated", "filter_peak", "--json"])
    assert run.status == DONE
    assert set(run.names("alice")) == GRAPHS["alice"].ancestors(["filter_peak"])
    assert run.names("bob") == []


def test_the_plan_of_a_new_pair(capsys: pytest.CaptureFixture[str]) -> None:
    run = Run(capsys, ["--emulated", "--plan", "--json"])
    assert run.status == DONE
    assert [d["name"] for d in run.json["plan"] if d["side"] == "alice"] == list(GRAPHS["alice"].names)
    assert {d["why"] for d in run.json["plan"]} == {"never calibrated"}
    assert {d["disturbs"] for d in run.json["plan"]} <= {"nothing", "keys", "link"}
    assert run.json["records"] == []
    assert "disturbs" in run.told


def test_a_dead_heater_is_named_and_the_rest_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What does not rest on it is calibrated; what does, waits; the report says which part, reading and limit."""
    scenario = tmp_path / "open.toml"
    scenario.write_text('[[fault]]\nat = 0.0\nwhat = "open"\non = "alice.heater.1"\n')
    html = tmp_path / "report.html"
    run = Run(capsys, ["--emulated", "--scenario", str(scenario), "--html", str(html), "--json"])
    assert run.status == REFUSED
    assert not run.json["ok"]
    refused = {r["name"]: r for r in run.json["refused"] if r["side"] == "alice"}
    assert refused["heater_iv"]["state"] == "refused"
    assert "heater 'split' is open" in refused["heater_iv"]["why"]
    assert "ohm is the limit" in refused["heater_iv"]["why"]
    assert refused["mean_photon"]["state"] == "waiting"
    assert "photodiode_zero" in run.names("alice")
    assert "laser" in run.names("alice")
    text = html.read_text()
    assert "is open" in text
    assert "refused" in text
    # The receiver has no light to ask for, and says whose fault that is.
    assert any(r["side"] == "bob" and "transmitter" in r["why"] for r in run.json["refused"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--emulated", "nose"], "no calibration 'nose'; there are"),
        (["--emulated", "--scenario", "/nowhere.toml"], "/nowhere.toml"),
        (["--config", "alice.toml", "--seed", "1"], "--seed and --scenario go with --emulated"),
    ],
)
def test_wrong_usage(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    run = Run(capsys, arguments)
    assert run.status == WRONG
    assert message in run.told


def test_a_report_without_matplotlib_is_refused_first(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing() -> None:
        raise svg.NoPlots("plots need matplotlib: install the extra")

    monkeypatch.setattr(svg, "ready", missing)
    run = Run(capsys, ["--emulated", "--html", "x.html"])
    assert run.status == WRONG
    assert run.told == "qmodd calibrate: --html: plots need matplotlib: install the extra\n"
    assert not Path("x.html").exists()
