"""Truth of the records, the comparison with it, and what the broken modules are told apart by."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from benchmarks import calibration
from benchmarks.__main__ import line
from benchmarks.diagnoses import CASES, Case, Diagnosis, diagnose
from benchmarks.honesty import CLASSES, Cold, Row, accuracy, cold, honesty, overall, report
from benchmarks.moment import near
from benchmarks.rig import Pair, pair, scenario
from benchmarks.truth import truth_of
from calibration.graph import bring_up
from calibration.names import HEATERS
from calibration.procedures import alice_graph
from calibration.record import Record
from sim.individuals import draw_alice, draw_ballast
from sim.loop import SimulatedLoop, run_simulated

SEED = 3


@pytest.fixture(scope="module")
def one() -> Cold:
    return cold(SEED)


def test_a_pair_from_cold_is_compared_with_the_truth(one: Cold) -> None:
    assert one.failed == ()
    assert one.missing == ()
    keys = [r.key for r in one.rows]
    for side in ("alice", "bob"):
        for name in HEATERS[side]:
            assert f"{side}.heater_iv.{name}_r0_ohm" in keys
    assert {"alice.mean_photon.mu_signal", "bob.arm_phase.power_w", "bob.detector_delay.delay_dx0_ps"} <= set(keys)
    # One pair alone: no value is further from the truth than its uncertainty could ever explain.
    assert max(r.nees for r in one.rows if r.sigma > 0.0) < 6.0**2
    assert 0.5 < overall([one]) < 2.0
    assert sum(one.seconds.values()) < calibration.COLD_S
    assert sum(one.warm_s.values()) < calibration.WARM_S
    assert (one.redone, one.points <= calibration.POINTS) == (0, True)


def test_figures_have_their_limits(one: Cold) -> None:
    found = {r.name: r for r in calibration.figures([one])}
    assert set(found) >= {"calibrated", "cold pair", "sweep", "warm pair", "redone when warm", "honesty", "P_pi"}
    assert found["calibrated"].value == 1.0
    assert found["calibrated"].detail["wilson_low"] < 0.5
    assert all(found[c.name].limit == c.limit for c in CLASSES)
    assert found["cold pair"].ok
    broken = replace(one, failed=("bob: detector_bias: no light",))
    assert not next(iter(calibration.figures([one, broken]))).ok
    text = report([one, broken])
    assert "overall NEES" in text
    assert f"seed {SEED} failed: bob: detector_bias: no light" in text


def test_honesty_is_the_mean_normalised_error() -> None:
    row = Row(1, "alice", "filter_peak", "p_pi_w", 0.041, 0.040, 0.0005, 100.0 / 0.040)
    assert row.nees == pytest.approx(4.0)
    assert row.error == pytest.approx(2.5)
    shy = replace(row, seed=2, value=0.040)
    setting = replace(row, name="margin", sigma=0.0)
    runs = [Cold(1, (row, shy, setting), {}, {}, 0, {}, {}, 8, (), ())]
    (only,) = honesty(runs)
    assert (only.key, only.count) == ("alice.filter_peak.p_pi_w", 2)
    assert [only.nees, only.worst] == pytest.approx([2.0, 2.0])
    assert overall(runs) == pytest.approx(2.0)
    n, rms, most = accuracy(runs, CLASSES[0])
    assert [n, rms, most] == pytest.approx([2, 2.5 / math.sqrt(2.0), 2.375])
    assert math.isnan(accuracy(runs, CLASSES[4])[1])


def test_near_counts_whole_periods() -> None:
    assert near(0.1, 12.5, 2.0 * math.pi) == pytest.approx(0.1 + 4.0 * math.pi)
    assert near(-3.0, 3.0, 8.0) == 5.0


def _record(p: Pair, name: str, **value: float) -> Record:
    now = p.clock.utc()
    return Record(name=name, value=value, created=now, valid_until=now)


def test_truth_follows_the_world() -> None:
    """A power and a voltage that the truth names bring the element there; ageing and ballast are in R0."""

    async def main(loop: SimulatedLoop) -> None:
        sections: dict[str, Any] = {"modules": {"ballast": True}, "drifts": {"bias": 0.0, "phase": 0.0}}
        async with pair(loop, scenario(SEED, **sections)) as p:
            await bring_up(alice_graph(), p.alice.context, ["filter_peak"])
            drive, world = p.alice.context.drive, p.world
            found = truth_of(world, "alice", _record(p, "filter_peak", power_w=0.0, phi0_rad=0.0))
            h = world.alice.individual.heaters
            believed = drive.resistance("filter").power(p.alice.context.heaters.current("filter"))
            phase = found["phi0_rad"] + math.pi * believed / found["p_pi_w"]
            assert math.remainder(phase, 2.0 * math.pi) == pytest.approx(0.0, abs=0.05)
            assert found["p_pi_w"] == pytest.approx(h.p_pi[0], rel=1e-3)
            world.alice.set_bias(1, truth_of(world, "alice", _record(p, "state_bias", null_v=1.0))["null_v"])
            assert math.sin(float(world.alice.biases()[1])) == pytest.approx(0.0, abs=1e-9)
            iv = truth_of(world, "alice", _record(p, "heater_iv"))
            assert iv["ballast_r0_ohm"] == pytest.approx(draw_ballast(SEED, "alice").r0, rel=1e-3)
            assert iv["split_r0_ohm"] == pytest.approx(draw_alice(SEED).heaters.r0[1], rel=1e-3)
            assert truth_of(world, "alice", _record(p, "no_such_calibration")) == {}

    run_simulated(main)


@pytest.mark.parametrize("case", CASES[:3], ids=lambda c: c.name)
def test_a_broken_part_is_named(case: Case) -> None:
    found = diagnose(case)
    assert found.ok, found.reason


def test_a_diagnosis_names_part_reading_and_limit() -> None:
    case = CASES[0]
    good = "heater_iv: heater 'split' is open: 4.001 V at 9.9 mA, 404 ohm; 130 ohm is the limit"
    assert Diagnosis(case, good, False).ok
    assert not Diagnosis(case, good, True).ok
    assert not Diagnosis(case, good.replace("split", "phase"), False).ok
    assert not Diagnosis(case, "heater 'split' is open; there is a limit", False).ok
    assert not Diagnosis(case, "heater 'split' is open: 404 ohm", False).ok
    assert not Diagnosis(case, "", True).ok


def test_diagnoses_tell_what_was_said(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[float, str]] = []
    monkeypatch.setattr(calibration, "diagnose", lambda case: Diagnosis(case, "", True))
    found = list(calibration.diagnoses(lambda f, text: told.append((f, text))))
    assert [r.name for r in found] == [c.name for c in CASES]
    assert not any(r.ok for r in found)
    assert line(found[0]).endswith("not noticed")
    assert told[0] == (0.0, CASES[0].name)


def test_command_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], one: Cold) -> None:
    asked: list[range] = []

    def many(seeds: range, **_: object) -> list[Cold]:
        asked.append(seeds)
        return [one]

    monkeypatch.setattr(calibration, "many", many)
    monkeypatch.setattr(calibration, "CASES", ())
    assert calibration.main(["--pairs", "2", "--table"]) == 0
    assert "overall NEES" in capsys.readouterr().out
    assert calibration.main(["--pairs", "1"]) in (0, 1)
    assert "cold pair" in capsys.readouterr().out
    assert [len(r) for r in asked] == [2, 1]
