"""Modules pulled and put in while keys are made: identified, calibrated, keying again; keys never of two modules."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.swap import Outcome, hot_swaps
from qmodd.soak import Run
from tests.app.pair import events

# Half a minute of processor time, more beside others.
pytestmark = pytest.mark.timeout(300)
SWAPS = (("alice", None), ("bob", 5))


@pytest.fixture(scope="module")
def swapped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Run, Outcome]]:
    """Two swaps in one run: the transmitter's own module again, then another receiver."""
    run, out = hot_swaps(Path(tmp_path_factory.mktemp("swap")), SWAPS)
    yield run, out
    run.close()


def test_keys_again_without_a_person(swapped: tuple[Run, Outcome]) -> None:
    _, out = swapped
    assert not out.faults
    assert [(s.side, s.kind) for s in out.swaps] == [("alice", "same"), ("bob", "other")]
    assert out.swaps[0].keying_s < 120.0
    assert out.swaps[1].keying_s < 300.0
    assert out.keys > 0
    assert out.blocks >= 2


def test_the_same_serial_uses_its_records_again(swapped: tuple[Run, Outcome]) -> None:
    """Nothing that still holds is redone: its heaters' characteristic is version 1 to the end."""
    run, out = swapped
    found = list(events(run, "alice", "module.identified"))
    assert [e["assembly"] for e in found] == [out.swaps[0].old] * 2
    assert found[0]["records"] == 0
    assert int(str(found[1]["records"])) > 10
    assert not events(run, "alice", "module.swapped")
    stored = [e for e in events(run, "alice", "calibration.stored") if e["name"] == "heater_iv"]
    assert [e["version"] for e in stored] == [1]


def test_another_serial_has_records_of_its_own(swapped: tuple[Run, Outcome]) -> None:
    run, out = swapped
    core = run.sites["bob"].core
    told = events(run, "bob", "module.swapped")
    assert [(e["old"], e["new"]) for e in told] == [(out.swaps[1].old, out.swaps[1].new)]
    library = core.wiring.bay.library
    assert library.serial == out.swaps[1].new
    assert set(library.known()) == {out.swaps[1].old, out.swaps[1].new}
    assert all(r.provenance.split()[1] == library.serial for n in core.records.names() for r in core.records.history(n))
    assert core.wiring.factory.serial == library.serial


def test_the_module_out_is_said_once_and_in_one_sentence(swapped: tuple[Run, Outcome]) -> None:
    run, _ = swapped
    for side in ("alice", "bob"):
        (told,) = events(run, side, "module.removed")
        assert "no part of module" in str(told["why"])
        reasons = [str(e["why"]) for e in events(run, side, "state.activity")]
        assert any("is out: no part of it answers; waiting for one" in why for why in reasons)


def test_the_module_out_is_one_alarm_of_the_pair(swapped: tuple[Run, Outcome]) -> None:
    run, _ = swapped
    raised = {side: [e["alarm"] for e in events(run, side, "alarm.raised")] for side in ("alice", "bob")}
    assert raised == {"alice": ["module-removed"], "bob": ["module-removed"]}
    for side in raised:
        assert not run.sites[side].core.wiring.alarms.active()


def test_every_block_says_which_modules_made_it(swapped: tuple[Run, Outcome]) -> None:
    run, out = swapped
    store = run.sites["alice"].core.store
    pairs = {e["uuid"]: e["modules"] for e in events(run, "alice", "block.kept")}
    assert pairs
    assert set(pairs.values()) == {f"{out.swaps[0].old} {s}" for s in (out.swaps[1].old, out.swaps[1].new)}
    assert store.audit() is None
