"""The receiver in its own diode's light: healthy ones pass in time, faults are blamed, and it is dark afterwards."""

from __future__ import annotations

import math

import pytest

from qmodd.selftest import interferometer_bob, light_off_bob, light_on_bob, loopback_bob, tones_bob
from qmodd.selftest.bench import Bench
from qmodd.selftest.diode import DRIVE, SHUTTER
from qmodd.selftest.loopback_findings import drive_for
from qmodd.selftest.model import Check, Level, Report
from qmodd.selftest.runner import run
from qmodd.soak import Run
from sim.individuals import draw_bob
from tests.selftest.bench import fault, on_bench

CHECKS = (
    *light_off_bob.CHECKS,
    *light_on_bob.CHECKS,
    *interferometer_bob.CHECKS,
    *tones_bob.CHECKS,
    *loopback_bob.CHECKS,
)


async def examine(bench: Bench, _run: Run) -> Report:
    return await run(bench, Level.LIGHT_ON, CHECKS)


def dark(bench: Bench) -> bool:
    return bench.module.biases.voltage(DRIVE) == 0.0 and bench.module.biases.voltage(SHUTTER) == 0.0


@pytest.mark.parametrize("seed", [1, 2])
def test_a_healthy_receiver_passes_within_its_time_and_is_dark_again(seed: int) -> None:
    async def work(bench: Bench, the_run: Run) -> tuple[Report, bool]:
        return await examine(bench, the_run), dark(bench)

    report, off = on_bench("bob", work, seed=seed, settled=True)
    assert [f.why for f in report.failed] == []
    assert report.level_seconds["light-on"] < 25.0
    assert off


def test_heaters_and_arms_are_those_of_the_individual() -> None:
    report = on_bench("bob", examine, seed=3, settled=True)
    found, i = {f.name: f.value for f in report.findings}, draw_bob(3)
    for k, heater in enumerate(("basis", "split", "phase", "combine")):
        assert found[f"p_pi.{heater}"] == pytest.approx(i.heaters.p_pi[k], rel=0.08)
    assert found["loss.long_arm"] == pytest.approx(i.long_db, abs=0.35)
    assert found["antiphase.DX"] == pytest.approx(math.pi, abs=0.15)


@pytest.mark.parametrize(
    ("on", "what", "value", "part"),
    [
        ("bob.diode", "dead", None, "self-test diode"),
        ("bob.diode_shutter", "stuck", 0.0, "diode shutter"),
        ("bob.diode_shutter", "stuck", 5.0, "diode shutter"),
        ("bob.shutter", "stuck", 0.0, "shutter"),
        ("bob.shutter", "stuck", 5.0, "shutter"),
        ("bob.photodiode.0", "insensitive", None, "photodiode pb0"),
        ("bob.photodiode.3", "insensitive", None, "photodiode pb2"),
        ("bob.photodiode.3", "swapped", 4, "cables of photodiode pb2 and photodiode pb3"),
        ("bob.heater.1", "swapped", 2, "cables of heater split and heater phase"),
        ("bob.heater.2", "slow", None, "heater phase"),
        ("bob.path.x", "loss", 4.0, "path x"),
        ("bob.path.amzi", "loss", 4.0, "path amzi"),
        ("bob.detector.0", "plateau", None, "detector DZ"),
        ("bob.detector.2", "insensitive", 0.3, "detector DX1"),
    ],
)
def test_a_fault_is_blamed_on_its_part(on: str, what: str, value: float | None, part: str) -> None:
    report = on_bench("bob", examine, seed=6, faults=[fault(on, what, value=value)], settled=True)
    assert report.suspects[:1] == (part,)


@pytest.mark.parametrize("check", [c for c in CHECKS if c.level is Level.LIGHT_ON], ids=lambda c: c.name)
def test_it_is_dark_after_an_error_in_the_middle_of_each_check(check: Check) -> None:
    """A photodiode's ADC, or the tagger, that fails while the diode shines."""

    class Broken(Exception):
        pass

    async def work(bench: Bench, the_run: Run) -> tuple[bool, bool]:
        await examine(bench, the_run)
        shone = False

        async def fails(*_: object) -> None:
            nonlocal shone
            if bench.module.biases.voltage(DRIVE) > 0.0:
                shone = True
                raise Broken

        # Every step of every check waits for something to settle: it breaks there, in the light.
        bench.sleep = fails
        with pytest.raises(Broken):
            await check.run(bench)
        return shone, dark(bench)

    assert on_bench("bob", work, settled=True) == (True, True)


def test_weak_light_is_weak() -> None:
    """1e6 photons/s behind 60 dB: a tenth of a volt above threshold, not more."""
    law = (1.0, 2.5e-6)
    assert 0.03 < drive_for(law, 1e6) - law[0] < 0.1
