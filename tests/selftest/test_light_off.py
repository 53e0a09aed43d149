"""Light-off level on the emulator: healthy modules pass, broken heaters and photodiodes are named."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from calibration.record import Record, diagonal
from qmodd.selftest.bench import Bench
from qmodd.selftest.diode_checks import dark_limits
from qmodd.selftest.heater_checks import resistances
from qmodd.selftest.light_off import CHECKS
from qmodd.selftest.model import Finding, Level, Report, Verdict
from qmodd.selftest.runner import run as run_level
from qmodd.soak import Run
from tests.selftest.bench import fault, on_bench

MAIN = tuple(c for c in CHECKS if not c.lane)
HEATERS = {"alice": ("filter", "split", "phase", "shutter"), "bob": ("basis", "split", "phase", "combine")}


async def light_off(bench: Bench, _run: Run) -> Report:
    before = {c: bench.context.heaters.current(c) for c in bench.context.heaters.channels}
    report = await run_level(bench, Level.LIGHT_OFF, MAIN, only=Level.LIGHT_OFF)
    assert before == {c: bench.context.heaters.current(c) for c in bench.context.heaters.channels}
    return report


def by_name(findings: Sequence[Finding]) -> dict[str, Finding]:
    assert len({f.name for f in findings}) == len(findings), "a name is used twice"
    return {f.name: f for f in findings}


@pytest.mark.parametrize(("side", "seed"), [("alice", 1), ("alice", 2), ("bob", 3), ("bob", 4)])
def test_healthy_modules_pass_in_time(side: str, seed: int) -> None:
    report = on_bench(side, light_off, seed=seed, settled=True)
    assert report.failed == ()
    assert report.seconds < 15.0
    names = by_name(report.findings)
    for heater in HEATERS[side]:
        assert names[f"heater_resistance.{heater}"].verdict is Verdict.PASSED
        assert abs(names[f"heater_rho.{heater}"].value - 0.9) < 0.05


def test_a_cold_module_passes() -> None:
    assert on_bench("alice", light_off, seed=7, scenario={"ambient": {"mean_c": 16.0}}).failed == ()


@pytest.mark.parametrize(
    ("on", "what", "more", "part"),
    [
        ("alice.heater.1", "open", {}, "heater split"),
        ("alice.heater.3", "short", {}, "heater shutter"),
        ("alice.heater.2", "railed", {}, "heater_dac"),
        ("alice.heater.2", "drifted", {"value": 1.3}, "heater phase"),
        ("alice.heater.0", "open", {"every": 0.2, "share": 0.3}, "heater filter"),
        ("alice.photodiode.3", "dead", {}, "photodiode pa3"),
        ("alice.photodiode.0", "short", {}, "photodiode pa0"),
        ("alice.photodiode.5", "leaky", {}, "photodiode pa5"),
        ("alice.photodiode.4", "noisy", {}, "photodiode pa4"),
        ("alice.ltc2672.1", "stuck", {"value": 20_000}, "heater_dac"),
        ("alice.ltc2672.2", "gain", {}, "heater_dac"),
        ("alice.ltc2672.0", "offset", {}, "heater_dac"),
        ("alice.ltc2672.1", "noisy", {}, "heater_dac"),
        ("alice.ina228", "gain", {}, "heater_rail"),
        ("alice.ina228", "frozen", {}, "heater_rail"),
    ],
)
def test_single_faults_are_named(on: str, what: str, more: dict[str, float], part: str) -> None:
    report = on_bench("alice", light_off, seed=5, faults=[fault(on, what, **more)], settled=True)
    assert report.suspects[:1] == (part,), [f.why for f in report.failed]


def test_a_heater_that_has_drifted_from_its_record_is_told_although_the_population_allows_it() -> None:
    async def work(bench: Bench, run: Run) -> Report:
        found = await resistances(bench)
        now = bench.clock.utc()
        value = {f"{c}_r0_ohm": r.r0_ohm for c, r in found.items()} | {f"{c}_rho_per_w": 0.9 for c in found}
        value["split_r0_ohm"] *= 0.98
        names = tuple(n for n in value if n.endswith("ohm"))
        bench.context.store.append(
            Record(
                name="heater_iv",
                value=value,
                covariance_names=names,
                covariance=diagonal([1e-3] * len(names)),
                created=now,
                valid_until=now.replace(year=now.year + 1),
            )
        )
        return await light_off(bench, run)

    report = on_bench("alice", work, seed=3, settled=True)
    assert [f.name for f in report.failed] == ["heater_drift.split"]
    assert report.suspects == ("heater split",)


def test_dark_limits_follow_the_chips_temperature() -> None:
    warm, cold = dark_limits(30.0), dark_limits(20.0)
    assert warm.high == pytest.approx(2.0 * cold.high)
    assert warm.judge(1.5e-10) is Verdict.PASSED
    assert warm.judge(1.0e-9) is Verdict.FAILED
