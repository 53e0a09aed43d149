"""The golden module: what is unlike all others is seen, what is like them is not, and a station is checked."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from qmodd.selftest.golden import T2_NAME, BadGolden, Golden, make
from qmodd.selftest.model import Level, Report, Verdict
from tests.selftest.reports import broken, changed, healthy

MADE = "2026-01-01T00:00:00+00:00"


@pytest.fixture(scope="module")
def golden() -> Golden:
    return make([healthy(seed) for seed in range(30)], MADE, "0.1")


def finding(report: Report, name: str) -> Verdict:
    return next(f.verdict for f in report.findings if f.name == name)


def test_what_it_is_made_of(golden: Golden) -> None:
    assert golden.kind == "population"
    assert "rail_voltage" in golden.vector
    # Yes or no, and what is the same in all, are no measured values with a spread.
    assert "opens.laser" not in golden.values
    assert "disk_free" in golden.values
    assert "disk_free" not in golden.vector
    heater = golden.values["resistance.split"]
    seen = [next(f.value for f in healthy(s).findings if f.name == "resistance.split") for s in range(30)]
    assert heater.mean == pytest.approx(np.mean(seen))
    assert heater.sigma == pytest.approx(np.std(seen, ddof=1))
    assert (heater.station_sigma, heater.low, heater.high) == (0.1, 60.0, 130.0)


def test_z_adds_the_station(golden: Golden) -> None:
    known = golden.values["resistance.split"]
    expected = 5.0 / np.hypot(known.sigma, 0.1)
    assert known.z(known.mean + 5.0) == pytest.approx(expected)


def test_healthy_modules_are_like_it(golden: Golden) -> None:
    """T^2 of modules that were not in it: about as many beyond its 99.9 % as there should be, and none failed."""
    applied = [golden.applied(healthy(seed)) for seed in range(1000, 1400)]
    assert all(r.passed for r in applied)
    unlike = sum(finding(r, T2_NAME) is Verdict.WARNED for r in applied)
    assert unlike <= 8
    t2 = [r.mahalanobis for r in applied if r.mahalanobis is not None]
    assert 0.6 * len(golden.vector) < np.mean(t2) < 1.5 * len(golden.vector)


def test_an_outlier_within_its_limits_is_a_warning(golden: Golden) -> None:
    applied = golden.applied(changed(healthy(1000), "rail_voltage", 4.14))
    assert applied.passed
    rail = next(f for f in applied.findings if f.name == "rail_voltage")
    assert rail.verdict is Verdict.WARNED
    assert rail.golden_z is not None
    assert rail.golden_z > 5.0
    assert "is usual" in rail.why
    assert rail.limits.high == 4.2


def test_a_combination_that_nobody_else_has_is_seen(golden: Golden) -> None:
    """Each resistance is usual; one high and its neighbours low is not, on one wafer."""
    base = healthy(1000)
    means = {n: golden.values[f"resistance.{n}"] for n in ("filter", "split", "phase", "shutter")}
    alike, odd = base, base
    for i, (name, known) in enumerate(means.items()):
        alike = changed(alike, f"resistance.{name}", known.mean + 2.0 * known.sigma)
        odd = changed(odd, f"resistance.{name}", known.mean + (2.0 if i % 2 else -2.0) * known.sigma)
    usual, unusual = golden.applied(alike), golden.applied(odd)
    assert finding(usual, T2_NAME) is Verdict.PASSED
    assert finding(unusual, T2_NAME) is Verdict.WARNED
    assert finding(unusual, "resistance.split") is Verdict.PASSED


def test_in_production_an_outlier_fails(golden: Golden) -> None:
    spoilt = changed(healthy(1000), "rail_voltage", 4.14)
    applied = golden.applied(replace(spoilt, level=Level.PRODUCTION))
    assert not applied.passed
    assert applied.suspects == ("heater_rail",)


def test_applying_twice_is_applying_once(golden: Golden) -> None:
    once = golden.applied(healthy(1000))
    assert golden.applied(once) == once


def test_what_failed_stays_failed(golden: Golden) -> None:
    applied = golden.applied(broken())
    assert applied.suspects[0] == "heater split"
    assert not applied.passed


def test_a_file_keeps_everything(golden: Golden, tmp_path: Path) -> None:
    golden.save(tmp_path / "g.json")
    assert Golden.load(tmp_path / "g.json") == golden


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not a golden module's file"),
        ("{}", "not a golden module's file"),
        ('{"schema": 99}', "another schema"),
        ('{"schema": 1, "values": {}, "vector": []}', "not a golden module's file"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(BadGolden, match=rf"bad.json: .*{said}"):
        Golden.load(path)
    with pytest.raises(BadGolden, match="cannot be read"):
        Golden.load(tmp_path / "absent.json")


def test_changed_limits_are_told(golden: Golden) -> None:
    report = healthy(1000)
    assert golden.changed_limits(report) == []
    findings = [
        replace(f, limits=replace(f.limits, high=99.0)) if f.name == "loss.input" else f for f in report.findings
    ]
    other = replace(report, findings=tuple(findings))
    assert golden.changed_limits(other) == ["loss.input"]


def test_only_good_and_alike_reports_make_one() -> None:
    good = [healthy(seed) for seed in range(6)]
    with pytest.raises(BadGolden, match="at least 5"):
        make(good[:4], MADE, "0.1")
    with pytest.raises(BadGolden, match=r"has failed .*QM-A-0001"):
        make([*good, broken()], MADE, "0.1")
    with pytest.raises(BadGolden, match="different sides"):
        make([*good, replace(good[0], side="bob")], MADE, "0.1")
    with pytest.raises(BadGolden, match="different levels"):
        make([*good, replace(good[0], level=Level.POWER_ON)], MADE, "0.1")


def test_the_other_side_is_refused(golden: Golden) -> None:
    with pytest.raises(BadGolden, match="of alice, the report of bob"):
        golden.applied(replace(healthy(1), side="bob"))


# the station


def unit(sigma_ohm: float) -> Golden:
    """One module, measured ten times."""
    rng = np.random.default_rng(5)
    base = healthy(1, "QM-A-0001")
    noisy = [changed(base, "resistance.split", 90.0 + sigma_ohm * rng.normal()) for _ in range(10)]
    return make(noisy, MADE, "0.1")


def station(file: Golden, ohm: float) -> dict[str, Verdict]:
    found = file.station(changed(healthy(1, "QM-A-0001"), "resistance.split", ohm))
    return {f.name: f.verdict for f in found if f.name.endswith("split")}


def test_a_good_station() -> None:
    assert station(unit(0.2), 90.1) == {
        "station.resistance.split": Verdict.PASSED,
        "gauge.resistance.split": Verdict.PASSED,
    }


def test_a_station_that_reads_otherwise() -> None:
    assert station(unit(0.2), 93.0)["station.resistance.split"] is Verdict.FAILED


def test_a_gauge_that_takes_too_much_of_the_tolerance() -> None:
    """6 sigma of 2 ohm are 12 ohm of 70."""
    found = station(unit(2.0), 90.0)
    assert found["gauge.resistance.split"] is Verdict.FAILED


def test_only_the_same_unit_checks_a_station(golden: Golden) -> None:
    with pytest.raises(BadGolden, match="file of one unit"):
        golden.station(healthy(1))
    with pytest.raises(BadGolden, match="is of QM-A-0001, this is QM-A-0002"):
        unit(0.2).station(healthy(2))


def test_the_file_is_plain_json(golden: Golden, tmp_path: Path) -> None:
    golden.save(tmp_path / "g.json")
    raw = json.loads((tmp_path / "g.json").read_text())
    assert raw["schema"] == 1
    assert len(raw["limits_sha256"]) == 64
    assert raw["values"]["rail_voltage"]["n"] == 30
    assert len(raw["correlation"]) == len(raw["vector"])
