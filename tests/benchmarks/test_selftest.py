"""The benchmark of the self-test on a few modules: a fault is seen and named, and what it makes of what it is told."""

from __future__ import annotations

import multiprocessing
from typing import Any

import pytest

from benchmarks import selftest, selftest_trials
from benchmarks.__main__ import line
from benchmarks.selftest import sound_ones, times
from benchmarks.selftest_trials import Trial, broken, fault_trial, fault_trials, healthy_trial, population
from qmodd.selftest.model import Level
from sim.fault_library import CASES, FaultCase

BY_NAME = {c.name: c for c in CASES}
DEAD = BY_NAME["alice: spi 0 reads zeros"]
GONE = BY_NAME["bob: rail monitor gone"]


def trial(name: str = "x", **more: object) -> Trial:
    return Trial(**{"name": name, "side": "bob", "suspects": (), "failed": (), "seconds": {}, **more})  # type: ignore[arg-type]


@pytest.mark.parametrize("case", [DEAD, GONE], ids=lambda c: c.name)
def test_a_dead_part_is_seen_and_named(case: FaultCase) -> None:
    found = fault_trial(case)
    assert found.error == ""
    assert found.detected
    assert found.named, found.failed


def test_a_sound_module_is_left_alone_in_time() -> None:
    (module,) = [m for m in population(1) if m.side == "bob"]
    found = healthy_trial(module)
    assert (found.error, found.failed) == ("", ())
    assert all(r.ok for r in times([found]))


def test_sound_modules_are_drawn_within_their_specification() -> None:
    drawn = population(50)
    assert [m.side for m in drawn].count("alice") == 50
    assert len({(m.side, m.seed) for m in drawn}) == 100
    assert all(15.0 <= m.room_c <= 35.0 and 0.0 <= m.age_h <= 87_600.0 for m in drawn)
    assert drawn == population(50)
    scenario = drawn[7].scenario()
    assert (scenario.seed, scenario.ambient.mean_c) == (drawn[7].seed, drawn[7].room_c)
    assert scenario.modules.age_h == drawn[7].age_h


def test_every_case_is_another_individual() -> None:
    assert len({broken(c).seed for c in CASES}) == len(CASES)
    assert broken(DEAD).fault == DEAD.lines()


def test_figures_say_what_was_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[float] = []
    trials = {
        DEAD.name: trial(
            DEAD.name, suspects=("bus spi:0",), failed=("why",), parts=DEAD.parts, seconds={"power-on": 11.0}
        ),
        GONE.name: trial(GONE.name, suspects=("supply",), failed=("why",), parts=GONE.parts),
    }
    monkeypatch.setattr(selftest_trials, "fault_trial", lambda case: trials[case.name])
    monkeypatch.setattr(selftest_trials, "healthy_trial", lambda m: trial(m.name, failed=("fan: too slow",)))
    results = {r.name: r for r in selftest.run([DEAD, GONE], 1, processes=1, progress=lambda f, _text: told.append(f))}
    assert line(results[DEAD.name]).endswith("bus spi:0")
    assert "MISNAMED: supply (right: heater_rail)" in line(results[GONE.name])
    assert (results["detected"].value, results["named"].value) == (1.0, 0.5)
    assert (results["detected"].ok, results["named"].ok) == (True, False)
    assert results["detected"].detail["dead_share"] == 1.0
    assert (results["false failures"].value, results["false failures"].ok) == (2.0, False)
    assert "fan: too slow" in results["false failures"].note
    assert not results["power-on"].ok
    assert told == sorted(told)
    assert told[-1] == 1.0


def test_a_bug_is_told_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def stumbles(*_: object, **__: object) -> None:
        raise ExceptionGroup("two", [KeyError("x"), ValueError("y")])

    monkeypatch.setattr(selftest_trials, "selftest_module", stumbles)
    found = fault_trial(DEAD)
    assert not found.detected
    assert selftest.said(found).startswith("BUG: ExceptionGroup")
    assert "ValueError: y" in found.error
    (result,) = sound_ones([], [found])
    assert not result.ok


def test_temperature_checks_are_timed_apart() -> None:
    t = trial(
        seconds={"power-on": 9.0, "light-off": 4.0, "light-off.tec": 100.0, "light-on": 3.0, "light-on.tec": 20.0}
    )
    assert t.spent(Level.LIGHT_OFF, Level.LIGHT_ON) == 7.0
    assert t.spent(Level.LIGHT_OFF, Level.LIGHT_ON, tec=True) == 120.0


def test_not_detected_is_told() -> None:
    assert selftest.said(trial()) == "NOT DETECTED"
    assert not trial().named


def test_processes_are_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spawned: nothing that this process has done is in a module's run."""
    asked: list[str] = []
    context = multiprocessing.get_context

    def noted(method: str) -> Any:
        asked.append(method)
        return context(method)

    monkeypatch.setattr(multiprocessing, "get_context", noted)
    found = fault_trials([DEAD, GONE], lambda _n, _trial: None, 2)
    assert asked == ["spawn"]
    assert [t.name for t in found] == [DEAD.name, GONE.name]
    assert all(t.named for t in found)


def test_command_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert selftest.main(["--only", "no such case"]) == 2
    monkeypatch.setattr(
        selftest_trials, "fault_trial", lambda c: trial(c.name, suspects=("bus spi:0",), failed=("why",), parts=c.parts)
    )
    assert selftest.main(["--only", DEAD.name, "--processes", "1"]) == 0
    assert "    why" in capsys.readouterr().out
    monkeypatch.setattr(selftest, "CASES", (DEAD,))
    monkeypatch.setattr(selftest_trials, "healthy_trial", lambda m: trial(m.name))
    assert selftest.main(["--healthy", "1", "--processes", "1"]) == 0
    assert "false failures" in capsys.readouterr().out
