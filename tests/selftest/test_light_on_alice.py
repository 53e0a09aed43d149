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


# Service is some 0.54 photons a slot.
SERVICE_W = 0.54 * 1.282e-19 * 125e6


def light_outside(seed: int, **more: object) -> list[float]:
    """What leaves whenever outputs have settled, over that of service, from the laser's first light on."""
    seen: list[float] = []

    async def work(bench: Bench, run: Run) -> Report:
        real = bench.context.settle

        async def settle() -> None:
            await real()
            if run.world.alice.laser()[0]:
                seen.append(run.world.alice.output_watts() / SERVICE_W)

        bench.context.settle = settle  # type: ignore[method-assign]
        return await both_levels(bench, run)

    on_bench("alice", work, seed=seed, settled=True, **more)  # type: ignore[arg-type]
    return seen


@pytest.mark.parametrize("seed", [2, 5])
def test_what_leaves_the_module_stays_at_or_below_service(seed: int) -> None:
    """Above it are a few settings of the search for the shutter, and never twice as much."""
    seen = light_outside(seed)
    assert 0.0 < max(seen) < 2.0
    above = [k for k, share in enumerate(seen) if share > 1.0]
    assert len(above) <= 6
    assert max(above, default=0) < len(seen) // 3
    assert sum(seen) / len(seen) < 0.5


def test_an_attenuator_stuck_open_is_met_with_carver_and_shutter_closed() -> None:
    """Its own check opens nothing then; what the search let out before is bounded by laser and losses."""
    seen = light_outside(5, faults=[fault("alice.attenuator", "stuck", value=0.0)])
    assert max(seen) * SERVICE_W < 1e-6
    assert max(seen) > 1.0
    # The check of the attenuator is the last one then: carver and shutter stay closed until the laser is off.
    assert seen[-1] < 1.0


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
