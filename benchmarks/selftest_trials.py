"""An emulated module through its self-test from power-on, with a thing broken or sound; many of them, on all cores."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from qmodd.selftest.model import Level, Report, tec_seconds
from qmodd.selftest_cli.emulated import selftest_module
from sim.fault_library import CASES, FaultCase
from sim.scenario import Scenario

FAULT_SEED = 1000
# Healthy modules: drawn from these, within what is specified for the module and its room.
AGE_H = (0.0, 87_600.0)
ROOM_C = (15.0, 35.0)
T = TypeVar("T")


@dataclass(frozen=True)
class Healthy:
    """A sound module: its seed, hours in service, and its room, C."""

    side: str
    seed: int
    age_h: float
    room_c: float

    @property
    def name(self) -> str:
        return f"{self.side} {self.seed} ({self.age_h:.0f} h, {self.room_c:.1f} C)"

    def scenario(self) -> Scenario:
        ambient = {"mean_c": self.room_c}
        raw = {"seed": self.seed, "ambient": ambient, "modules": {"age_h": self.age_h}}
        return Scenario.from_mapping(raw)


def population(a_side: int, seed: int = 1) -> list[Healthy]:
    """`a_side` modules of each kind, seeds in order, ages and rooms drawn."""
    draw = np.random.Generator(np.random.Philox(key=[seed, a_side]))
    ages, rooms = draw.uniform(*AGE_H, 2 * a_side), draw.uniform(*ROOM_C, 2 * a_side)
    sides = [side for _ in range(a_side) for side in ("alice", "bob")]
    return [
        Healthy(side, seed + n // 2, float(age), float(room))
        for n, (side, age, room) in enumerate(zip(sides, ages, rooms, strict=True))
    ]


def broken(case: FaultCase) -> Scenario:
    """A module with the fault from power-on. Each case is another individual."""
    names = [c.name for c in CASES]
    seed = FAULT_SEED + names.index(case.name) if case.name in names else FAULT_SEED
    return Scenario(seed=seed, fault=case.lines())


@dataclass(frozen=True)
class Trial:
    """What a self-test said. seconds: of simulated time, as in `Report.level_seconds`. failed: why, one line a failed
    finding. error: a bug, empty otherwise."""

    name: str
    side: str
    suspects: tuple[str, ...]
    failed: tuple[str, ...]
    seconds: dict[str, float]
    parts: frozenset[str] = frozenset()
    error: str = ""

    @property
    def detected(self) -> bool:
        return bool(self.failed)

    @property
    def named(self) -> bool:
        """The first suspect is the part that is broken."""
        return bool(self.suspects) and self.suspects[0] in self.parts

    def spent(self, *levels: Level, tec: bool = False) -> float:
        """Seconds of these levels, beside the temperature checks, or of those alone."""
        names = [tec_seconds(level) if tec else level.value for level in levels]
        return sum(self.seconds.get(name, 0.0) for name in names)


def fault_trial(case: FaultCase) -> Trial:
    return replace(_trial(case.name, case.side, broken(case)), parts=case.parts)


def healthy_trial(module: Healthy) -> Trial:
    return _trial(module.name, module.side, module.scenario())


def _trial(name: str, side: str, scenario: Scenario) -> Trial:
    try:
        report = selftest_module(side, scenario, Level.LIGHT_ON)
    except Exception as e:  # told as what it is, a bug: one must not hide the other cases
        return Trial(name, side, (), (), {}, error=f"{type(e).__name__}: {e}{_inner(e)}")
    return Trial(name, side, report.suspects, _failed(report), report.level_seconds)


def _inner(error: BaseException) -> str:
    """What is inside a group of exceptions."""
    if not isinstance(error, BaseExceptionGroup):
        return ""
    return "".join(f"; {type(e).__name__}: {e}{_inner(e)}" for e in error.exceptions)


def _failed(report: Report) -> tuple[str, ...]:
    return tuple(f.why for f in report.failed)


def fault_trials(cases: Sequence[FaultCase], told: Callable[[int, Trial], None], processes: int = 2) -> list[Trial]:
    """In the order of the cases; `told` hears of each as it is done, with how many are."""
    return _all(_spread(fault_trial, cases, processes), told)


def healthy_trials(modules: Sequence[Healthy], told: Callable[[int, Trial], None], processes: int = 2) -> list[Trial]:
    """As `fault_trials`."""
    return _all(_spread(healthy_trial, modules, processes), told)


def _all(trials: Iterator[Trial], told: Callable[[int, Trial], None]) -> list[Trial]:
    done: list[Trial] = []
    for trial in trials:
        done.append(trial)
        told(len(done), trial)
    return done


def _spread(work: Callable[[T], Trial], items: Sequence[T], processes: int) -> Iterator[Trial]:
    """Fresh processes, so that nothing of one run is in another; in place for one process."""
    if processes <= 1 or len(items) <= 1:
        yield from map(work, items)
        return
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        yield from pool.imap(work, items)
