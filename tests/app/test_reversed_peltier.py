"""A Peltier element with its leads exchanged ends in a diagnosis, before the chip has moved by half a kelvin."""

from __future__ import annotations

from pathlib import Path

import pytest

from qmodd.lifecycle import Activity
from qmodd.soak import Run
from sim.scenario import Scenario
from tests.app.pair import events, simulate, until


@pytest.mark.parametrize("start_c", [25.0, 29.6])
def test_reversed_leads_are_named_and_nothing_runs_away(tmp_path: Path, start_c: float) -> None:
    seen: list[float] = []

    async def script(run: Run) -> None:
        core = run.sites["bob"].core
        await until(run, lambda: core.life.activity is Activity.SAFE, 40.0, "a diagnosis")
        seen.append(run.truth.snapshot().submount_c[1])
        await until(run, lambda: len(events(run, "bob", "session.failed")) >= 2, 60.0, "and again")
        seen.append(run.truth.snapshot().submount_c[1])

    world = Scenario.from_mapping(
        {
            "start": {"alice_c": start_c, "bob_c": start_c},
            "fault": [{"at": 0.0, "what": "reversed", "on": "bob.tec"}],
        }
    )
    run = simulate(tmp_path, script, scenario=world)
    whys = [str(e["why"]) for e in events(run, "bob", "session.failed")]
    assert all("CHECK POLARITY" in why and "Peltier element reversed" in why for why in whys)
    assert "K the wrong way is the limit" in whys[0]
    assert all(abs(c - start_c) < 1.0 for c in seen)
    assert run.sites["bob"].core.records.active("tec_plant") is None
    run.close()
