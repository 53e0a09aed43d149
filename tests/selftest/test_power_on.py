"""Sound modules pass the power-on level in its time and are left as they were; each finding is named once."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from qmodd.selftest.bench import Bench
from qmodd.selftest.model import Level, Report, Verdict
from qmodd.selftest.power_on import CHECKS
from qmodd.selftest.runner import run as run_checks
from qmodd.soak import Run
from tests.selftest.bench import on_bench
from tests.selftest.power_on import examined

# What a sound module may leave out: nothing when it has just been switched on.
FINDINGS_AT_LEAST = 120


@pytest.mark.parametrize("side", ["alice", "bob"])
@pytest.mark.parametrize("seed", [1, 2, 17, 123])
def test_a_sound_module_passes_completely_and_in_time(side: str, seed: int) -> None:
    report = examined(side, seed=seed)
    assert [f.why for f in report.findings if f.verdict is not Verdict.PASSED] == []
    assert report.suspects == ()
    assert report.seconds <= 10.0
    assert len(report.findings) >= FINDINGS_AT_LEAST


@pytest.mark.parametrize("side", ["alice", "bob"])
def test_findings_have_names_of_their_own(side: str) -> None:
    report = examined(side)
    assert [n for n, count in Counter(f.name for f in report.findings).items() if count > 1] == []


def test_a_warm_module_passes_too_and_thermometers_do_not_vote() -> None:
    report = examined("bob", settled=True)
    assert report.passed
    voting = {f.name: f.verdict for f in report.findings if f.name.startswith("rest.")}
    assert set(voting.values()) == {Verdict.SKIPPED}


@pytest.mark.parametrize("side", ["alice", "bob"])
def test_outputs_are_left_as_they_were(side: str) -> None:
    async def state(bench: Bench, run: Run) -> dict[str, Any]:
        module = bench.module
        out: dict[str, Any] = {c: module.heaters.current(c) for c in module.heaters.channels}
        out |= {f"bias {c}": module.biases.voltage(c) for c in module.biases.channels}
        lines = ("led", "laser_enable", "heater_enable")
        out |= {line: await module.platform.read(line) for line in lines}
        if side == "alice":
            out["run"] = (await module.source.now())[0]
            out["mode"] = await module.source.mode()  # type: ignore[attr-defined]
        rig = run.rigs[side]
        out["tripped"] = rig.watchdog.trips
        out["mux"] = rig.part("ltc2672").mux
        out["inputs of the converter"] = list(rig.part("ads131m08")._mux)
        return out

    async def work(bench: Bench, run: Run) -> tuple[dict[str, Any], Report, dict[str, Any]]:
        await bench.module.heaters.set_current("spare", 0.002)
        await bench.module.biases.set_voltage("spare", 0.5)
        before = await state(bench, run)
        report = await run_checks(bench, Level.POWER_ON, CHECKS, only=Level.POWER_ON)
        return before, report, await state(bench, run)

    before, report, after = on_bench(side, work)
    assert report.passed
    assert after == before


def test_heaters_that_are_driven_keep_their_rail() -> None:
    async def work(bench: Bench, run: Run) -> tuple[Report, bool]:
        switched: list[bool] = []
        board = run.rigs["alice"].watchdog
        real = board.lines

        def watched(levels: int) -> None:
            switched.append(bool(levels >> 2 & 1))
            real(levels)

        run.rigs["alice"].part("pca9535")._on_levels = watched
        await bench.module.heaters.set_current("split", 0.01)
        report = await run_checks(bench, Level.POWER_ON, CHECKS, only=Level.POWER_ON)
        return report, all(switched) and bool(switched)

    report, kept = on_bench("alice", work)
    assert kept
    assert report.passed
    (told,) = [f for f in report.findings if f.name == "rail_off"]
    assert told.verdict is Verdict.SKIPPED


def test_a_run_that_is_on_is_not_disturbed() -> None:
    async def work(bench: Bench, _run: Run) -> tuple[Report, int, int]:
        number = await bench.module.source.run()
        report = await run_checks(bench, Level.POWER_ON, CHECKS, only=Level.POWER_ON)
        return report, number, (await bench.module.source.now())[0]

    report, before, after = on_bench("alice", work)
    assert before == after
    assert any(f.name == "symbols" and f.verdict is Verdict.SKIPPED for f in report.findings)
