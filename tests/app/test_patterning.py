"""Patterning counted in service: the record agrees with the world, and says nothing where there is nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from calibration.context import CalibrationContext
from calibration.record import Record
from qmodd.app.alice import AliceOperator
from qmodd.app.patterning import Patterns
from qmodd.clock import LoopClock
from qmodd.events import EventLog
from qmodd.keys.alice_engine import AliceEngine
from qmodd.keys.patterning import PatternTally
from qmodd.soak import Run
from sim.scenario import Scenario
from tests.app.pair import events, keying, simulate, until, until_keying

pytestmark = pytest.mark.long

WANTED = 250_000
NAMES = ("p_signal_signal", "p_signal_decoy", "p_decoy_signal", "p_decoy_decoy")


def _play(directory: Path, patterning: float) -> Run:
    """A pair until it has a record, from fewer detections than in service and every batch."""

    async def script(run: Run) -> None:
        core = run.sites["alice"].core
        operator, engine = core.operator, core.engine
        assert isinstance(operator, AliceOperator)
        assert isinstance(engine, AliceEngine)
        operator.patterns.wanted = WANTED
        engine.pattern_every = 1
        await until_keying(run)
        await until(run, lambda: core.records.active("patterning") is not None, 200.0, "a record of patterning", 1.0)
        assert keying(run)
        await asyncio.sleep(1.0)

    world = Scenario.from_mapping({"modules": {"patterning": patterning}})
    return simulate(directory, script, seed=5, scenario=world, settings={"n_z": 400_000})


@pytest.fixture(scope="module", params=[0.01, 0.0])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    found = _play(tmp_path_factory.mktemp("patterning"), request.param)
    yield found
    found.close()


def _record(run: Run) -> Record:
    record = run.sites["alice"].core.records.active("patterning")
    assert record is not None
    return record


def _truth(run: Run) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Against the mean of each intensity, as the record has it."""
    factor = 1.0 + run.world.alice.pattern.patterning
    p = np.array([0.5, 0.5])
    return np.asarray((factor / (factor @ p)[:, None] - 1.0).ravel())


def test_the_record_agrees_with_the_world(run: Run) -> None:
    record, truth = _record(run), _truth(run)
    seen = np.array([record.value[n] for n in NAMES])
    sigma = np.array([record.sigma(n) for n in NAMES])
    assert sigma.max() < 0.005
    assert np.abs((seen - truth) / sigma).max() < 4.0
    if run.scenario.modules.patterning:
        assert np.abs(truth).max() > 0.004


def test_it_is_published_and_nothing_was_disturbed(run: Run) -> None:
    stored = [e for e in events(run, "alice", "calibration.stored") if e["name"] == "patterning"]
    assert len(stored) >= 1
    since = str(stored[0]["t"])
    assert not [e for e in events(run, "alice", "run.ended") if str(e["t"]) < since]
    assert not events(run, "alice", "patterning.refused")
    assert _record(run).parents == {}


def _tally(counts: list[list[int]], p: tuple[float, float] = (0.5, 0.5)) -> PatternTally:
    return PatternTally(np.array(counts), np.array([20_000, 5_000]), 10_000_000, p)


def test_sums_add_up_and_begin_anew_at_other_probabilities() -> None:
    sums = Patterns()
    for _ in range(3):
        sums.add(_tally([[3, 2], [1, 1]]))
    assert sums.tally is not None
    assert (sums.tally.total, sums.tally.live) == (21, 30_000_000)
    sums.add(_tally([[3, 2], [1, 1]], (0.6, 0.4)))
    assert (sums.tally.total, sums.tally.p) == (7, (0.6, 0.4))


async def test_what_no_drive_has_is_an_event_and_no_record() -> None:
    context = CalibrationContext.__new__(CalibrationContext)  # refused before anything of it is looked at
    told = EventLog(None, LoopClock(asyncio.get_running_loop()), "alice")
    sums = Patterns(wanted=1_000_000)
    sums.add(_tally([[300_000, 200_000], [100_000, 100_000]]))
    await sums.store(context, told)
    assert sums.tally is not None
    assert not told.entries
    sums.add(_tally([[300_000, 200_000], [100_000, 100_000]]))
    await sums.store(context, told)
    (event,) = told.entries
    assert event["event"] == "patterning.refused"
    assert "5% is the limit" in str(event["why"])
    assert sums.tally is None
