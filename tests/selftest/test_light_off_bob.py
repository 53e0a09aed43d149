"""The receiver in the dark: healthy ones pass in time, and each fault is blamed on its part."""

from __future__ import annotations

import pytest

from qmodd.selftest.bench import Bench
from qmodd.selftest.light_off_bob import CHECKS
from qmodd.selftest.model import Level, Report
from qmodd.selftest.receiver import SWITCHING
from qmodd.selftest.runner import run
from qmodd.soak import Run
from sim.individuals import draw_bob
from tests.selftest.bench import fault, on_bench


async def examine(bench: Bench, _run: Run) -> Report:
    return await run(bench, Level.LIGHT_OFF, CHECKS, only=Level.LIGHT_OFF)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_healthy_receiver_passes_within_its_time(seed: int) -> None:
    report = on_bench("bob", examine, seed=seed)
    assert [f.why for f in report.failed] == []
    assert report.seconds < 12.0


def test_switching_currents_are_found_to_a_step() -> None:
    async def work(bench: Bench, the_run: Run) -> list[float]:
        await examine(bench, the_run)
        return [float(a) for a in bench.notes[SWITCHING]]

    found = on_bench("bob", work, seed=5)
    assert all(0.0 <= true - seen < 0.26e-6 for true, seen in zip(draw_bob(5).switch_a, found, strict=True))


def test_bias_and_shutter_are_as_they_were() -> None:
    async def work(bench: Bench, the_run: Run) -> tuple[list[float], float]:
        await bench.module.detectors.set_bias([12e-6, 0.0, 13e-6])
        await bench.module.biases.set_voltage("shutter", 5.0)
        await examine(bench, the_run)
        bias = [float(b) for b in the_run.world.bob.bank.bias]
        return bias, bench.module.biases.voltage("shutter")

    bias, shutter = on_bench("bob", work)
    assert bias == pytest.approx([12e-6, 0.0, 13e-6])
    assert shutter == pytest.approx(5.0, abs=1e-3)


@pytest.mark.parametrize(
    ("on", "what", "value", "part"),
    [
        ("bob.detector.1", "normal", None, "detector DX0"),
        ("bob.detector.0", "dead", None, "detector DZ"),
        ("bob.detector.2", "leaky", None, "detector DX1"),
        ("bob.detector.1", "noisy", None, "detector DX0"),
        ("bob.detector.2", "weak", None, "detector DX1"),
        ("bob.detector", "swapped", None, "cables of DX0 and DX1"),
        ("bob.cryostat", "warm", 1.0, "cryostat"),
    ],
)
def test_a_fault_is_blamed_on_its_part(on: str, what: str, value: float | None, part: str) -> None:
    report = on_bench("bob", examine, seed=4, faults=[fault(on, what, value=value)])
    assert report.suspects[:1] == (part,)


def test_a_detector_that_is_latched_where_it_stands_is_told() -> None:
    async def work(bench: Bench, the_run: Run) -> Report:
        await bench.module.detectors.set_bias([12e-6, 12e-6, 28e-6])
        await bench.module.detectors.set_bias([12e-6] * 3)
        return await examine(bench, the_run)

    report = on_bench("bob", work)
    assert [f.name for f in report.failed] == ["latched.DX1"]
