"""Light-on level of a transmitter on the emulator: healthy modules pass, single faults are named, nothing leaks out."""

from __future__ import annotations

import pytest

from qmodd.selftest.bench import Bench
from qmodd.selftest.light_off import CHECKS as OFF
from qmodd.selftest.light_on_alice import CHECKS as ON
from qmodd.selftest.model import Level, Report, Verdict
from qmodd.selftest.runner import run as run_level
from qmodd.soak import Run
from tests.selftest.bench import fault, on_bench

MAIN = tuple(c for c in (*OFF, *ON) if not c.lane)


async def both_levels(bench: Bench, run: Run) -> Report:
    context = bench.context
    assert context.laser is not None

    def outputs() -> list[float]:
        heaters = [context.heaters.current(c) for c in context.heaters.channels]
        return heaters + [context.biases.voltage(c) for c in context.biases.channels]

    before = outputs()
    report = await run_level(bench, Level.LIGHT_ON, MAIN)
    assert outputs() == before
    assert not (await context.laser.read()).emitting
    assert not run.world.alice.laser()[0]
    return report


@pytest.mark.parametrize("seed", [1, 8])
def test_healthy_modules_pass_in_time(seed: int) -> None:
    figures: dict[str, object] = {}

    async def work(bench: Bench, run: Run) -> Report:
        report = await both_levels(bench, run)
        figures.update(bench.figures)
        return report

    report = on_bench("alice", work, seed=seed, settled=True)
    assert report.failed == ()
    assert sum(report.level_seconds.values()) < 30.0
    names = {f.name: f for f in report.findings}
    assert len(names) == len(report.findings)
    for element in ("filter", "split", "phase", "shutter"):
        assert names[f"p_pi.{element}"].verdict in (Verdict.PASSED, Verdict.WARNED)
        assert names[f"tone.{element}"].ok
    assert {"tones", "modulators", "phase_heaters", "attenuator", "heater_iv"} <= set(figures)


def test_measured_values_are_the_individuals() -> None:
    truth: dict[str, float] = {}

    async def work(bench: Bench, run: Run) -> Report:
        alice = run.world.alice.individual
        truth.update({f"v_pi.{n}": getattr(alice, n).v_pi for n in ("carver", "state", "decoy")})
        truth.update(
            {f"p_pi.{n}": float(alice.heaters.p_pi[i]) for n, i in (("filter", 0), ("split", 1), ("shutter", 3))}
        )
        truth["loss.amzi"] = alice.long_db
        return await both_levels(bench, run)

    report = on_bench("alice", work, seed=4, settled=True)
    found = {f.name: f.value for f in report.findings}
    for name, value in truth.items():
        assert found[name] == pytest.approx(value, rel=0.1 if name == "loss.amzi" else 0.03), name


def test_what_leaves_the_module_stays_at_or_below_service() -> None:
    """The brightest moment, looked at by the world every 2 ms; service is some 0.5 photons a slot."""
    most = 0.0

    async def work(bench: Bench, run: Run) -> Report:
        real = bench.context.settle

        async def settle() -> None:
            nonlocal most
            await real()
            most = max(most, run.world.alice.output_watts())

        bench.context.settle = settle  # type: ignore[method-assign]
        return await both_levels(bench, run)

    on_bench("alice", work, seed=2, settled=True)
    service_w = 0.54 * 1.282e-19 * 125e6
    assert 0.0 < most < 30.0 * service_w


@pytest.mark.parametrize(
    ("on", "what", "more", "part"),
    [
        ("alice.laser", "dead", {}, "laser"),
        ("alice.photodiode.0", "insensitive", {}, "photodiode pa0"),
        ("alice.path.amzi_input", "loss", {}, "path amzi_input"),
        ("alice.path.amzi", "loss", {}, "path amzi"),
        ("alice.heater.0", "weak", {}, "heater filter"),
        ("alice.heater.0", "swapped", {"value": 1}, "cables of heater filter and heater split"),
        ("alice.modulator.1", "extinction", {}, "modulator state"),
        ("alice.rf.1", "open", {}, "modulator state"),
        ("alice.attenuator", "table", {}, "attenuator"),
    ],
)
def test_single_faults_are_named(on: str, what: str, more: dict[str, float], part: str) -> None:
    report = on_bench("alice", both_levels, seed=5, faults=[fault(on, what, **more)], settled=True)
    assert report.suspects[:1] == (part,), [f.why for f in report.failed]
