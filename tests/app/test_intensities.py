"""What the transmitter tells of its intensities holds in the world: its loops against drift, minute after minute."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from qmodd.app.alice import HELD, AliceOperator
from qmodd.keys.settings import PlanFacts
from qmodd.soak import Run
from sim.scenario import Scenario
from tests.app.pair import events, simulate, until_keying

pytestmark = pytest.mark.long

SECONDS = 180.0


class Watched:
    """Samples of (signal, decoy) as sent, means over the states, beside the intervals of the plan in force."""

    def __init__(self, directory: Path) -> None:
        self.sent: list[tuple[float, float]] = []
        self.told: list[tuple[tuple[float, float], ...]] = []
        world = Scenario.from_mapping({"modules": {"reading_noise": 0.005}})
        self.run = simulate(directory, self._script, seed=1, scenario=world, settings={"n_z": 100_000})

    async def _script(self, run: Run) -> None:
        core = run.sites["alice"].core
        operator = core.operator
        assert isinstance(operator, AliceOperator)
        plan: list[PlanFacts] = []
        provider = core.engine._plan_provider  # type: ignore[union-attr]

        async def watched() -> PlanFacts:
            plan.append(await provider())
            return plan[-1]

        core.engine._plan_provider = watched  # type: ignore[union-attr]
        await until_keying(run)
        p_x = operator.probabilities[0]
        shares = np.array([0.5 * (1 - p_x)] * 2 + [0.5 * p_x] * 2)
        for _ in range(int(SECONDS / 5)):
            await asyncio.sleep(5.0)
            if operator._keying():
                signal, decoy = shares @ np.array(run.truth.snapshot().mu).reshape(4, 2)
                self.sent.append((float(signal), float(decoy)))
                self.told.append(plan[-1].mu)
        assert operator.decoy is not None
        self.moved_v = abs(operator.decoy.volts - operator.decoy.peak_v)
        self.ratio = operator.context(core.module).record("decoy").value["ratio"]


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    found = Watched(tmp_path_factory.mktemp("intensities"))
    yield found
    found.run.close()


def test_true_intensities_stay_inside_what_was_told(watched: Watched) -> None:
    assert len(watched.sent) > 25
    for sent, told in zip(watched.sent, watched.told, strict=True):
        for mu, (low, high) in zip(sent, told, strict=True):
            assert low < mu < high


def test_the_decoys_ratio_is_held_and_not_by_luck(watched: Watched) -> None:
    off = np.array([decoy / signal / watched.ratio - 1 for signal, decoy in watched.sent])
    assert np.abs(off).max() < HELD["decoy"]
    assert abs(off.mean()) < 0.01
    # A degree of drift or two was taken out: 0.7 % of the ratio per 5 mV or so.
    assert watched.moved_v > 0.005


def test_the_source_aligns_itself_before_keys(watched: Watched) -> None:
    (aligned, *_) = events(watched.run, "alice", "source.aligned")
    assert aligned["why"] == ""
    assert abs(float(str(aligned["state_error"]))) < 0.01
    assert abs(float(str(aligned["decoy_error"]))) < 0.01


def test_plants_are_identified_while_it_warms_up(watched: Watched) -> None:
    for site in ("alice", "bob"):
        record = watched.run.sites[site].core.records.active("tec_plant")
        assert record is not None
        assert record.value["slope_k_per_a_s"] == pytest.approx(0.0133 * 303.15 / 8.05, rel=0.04)
        tec = watched.run.sites[site].core.operator.tec
        assert tec is not None
        assert tec.tuning.kp_a_per_k == record.value["kp_a_per_k"]
