"""Temperature checks on the emulator: element, sensors and heat sink told apart."""

from __future__ import annotations

import pytest

from qmodd.selftest.bench import Bench
from qmodd.selftest.model import Level, Report
from qmodd.selftest.runner import run as run_level
from qmodd.selftest.tec_checks import LOOP_NOTE, OFF_CHECKS, ON_CHECKS
from qmodd.soak import Run
from tests.selftest.bench import fault, on_bench


async def temperature(bench: Bench, _run: Run) -> Report:
    return await run_level(bench, Level.LIGHT_ON, (*OFF_CHECKS, *ON_CHECKS))


@pytest.mark.parametrize(("side", "seed", "mean_c"), [("alice", 1, 25.0), ("bob", 2, 16.0), ("alice", 3, 34.0)])
def test_healthy_modules_pass_in_time(side: str, seed: int, mean_c: float) -> None:
    report = on_bench(side, temperature, seed=seed, settled=True, scenario={"ambient": {"mean_c": mean_c}})
    assert report.failed == ()
    assert report.seconds < 120.0
    value = {f.name: f.value for f in report.findings}
    assert value["tec_slope"] == pytest.approx(0.478, rel=0.15)
    assert value["peltier_resistance"] == pytest.approx(1.03, abs=0.05)
    assert value["sink_resistance"] == pytest.approx(1.5, rel=0.35)


@pytest.mark.parametrize(
    ("on", "what", "more", "part"),
    [
        ("bob.tec", "fan", {}, "heat sink"),
        ("bob.peltier", "weak", {}, "peltier"),
        ("bob.thermistor", "offset", {}, "thermistor"),
        ("bob.tmp117", "offset", {}, "submount"),
        ("bob.tmp117", "frozen", {"at": 20.0}, "submount"),
    ],
)
def test_single_faults_are_named(on: str, what: str, more: dict[str, float], part: str) -> None:
    report = on_bench("bob", temperature, seed=6, faults=[fault(on, what, **more)], settled=True)
    assert report.suspects[:1] == (part,), [f.why for f in report.failed]


def test_a_reversed_element_is_told_by_the_relay() -> None:
    """Reversed in the middle of the rest before the relay: what has been regulated well is no excuse."""
    report = on_bench("alice", temperature, seed=6, faults=[fault("alice.tec", "reversed", at=22.5)], settled=True)
    assert report.suspects == ("peltier",), [f.why for f in report.failed]
    assert any("CHECK POLARITY" in f.hint for f in report.failed)


def test_a_loop_that_has_given_up_is_a_finding_and_the_element_is_tried_all_the_same() -> None:
    async def work(bench: Bench, run: Run) -> Report:
        bench.notes[LOOP_NOTE] = "loop temperature: made up"
        return await temperature(bench, run)

    report = on_bench("alice", work, seed=6, settled=True)
    assert [f.name for f in report.failed] == ["temperature_loop"]
    assert any(f.name == "tec_slope" and f.ok for f in report.findings)
