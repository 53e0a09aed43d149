"""The receiver's phase in service: its fault outlives a restart, and a person clears its latch."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qmodd.app.phase import FAULT_FILE, LEDGER_FILE, PhaseFault
from qmodd.lifecycle import Activity
from qmodd.soak import Run
from tests.app.pair import events, keying, simulate, until, until_keying


def test_a_fault_on_disk_is_read_back_whatever_became_of_the_file(tmp_path: Path) -> None:
    fault = PhaseFault(tmp_path / FAULT_FILE)
    assert fault.read() == ""
    fault.clear()
    fault.write({"why": "not found in 6 sweeps", "history": [{"t_s": 1.0}]})
    assert fault.read() == "not found in 6 sweeps"
    assert json.loads(fault.path.read_text())["history"]
    assert not list(tmp_path.glob("*.new"))
    fault.path.write_text('{"why": "cut o')
    assert "cannot be read" in fault.read()
    fault.path.write_text("[]")
    assert "cannot be read" in fault.read()
    fault.clear()
    assert fault.read() == ""


def test_given_up_stops_keys_until_a_person_clears_it_and_a_restart_does_not(tmp_path: Path) -> None:
    async def script(run: Run) -> None:
        await until_keying(run)
        operator = run.sites["bob"].core.operator
        life = run.sites["bob"].core.life
        assert operator.latches() == {}
        numbers = operator.phase_numbers()  # type: ignore[union-attr]
        assert numbers["locked"] in (True, False)
        assert numbers["faults_count"] == 0
        with pytest.raises(LookupError):
            await operator.clear_latch("phase", "maintainer")

        phase = operator.phase  # type: ignore[union-attr]
        assert phase is not None
        phase.loop.lock.tracker.exchanged = "detectors DX0 and DX1 look exchanged"
        await until(run, lambda: life.activity is Activity.LOCKING, 30.0, "keys stop for the latch")
        assert "given up: detectors DX0" in life.why("activity")
        assert operator.latches() == {"phase": "detectors DX0 and DX1 look exchanged"}
        snapshot = json.loads((run.directory / "bob" / "state" / FAULT_FILE).read_text())
        assert set(snapshot["temperatures_c"]) == {"submount", "object", "sink"}
        assert snapshot["history"]

        operator.interrupt("restart")
        await until(run, lambda: operator.phase not in (None, phase), 200.0, "a new session")  # type: ignore[union-attr]
        await until(run, lambda: life.activity is Activity.LOCKING, 30.0, "latched again")
        assert not keying(run)
        assert operator.latches()
        await operator.clear_latch("phase", "maintainer")
        assert operator.latches() == {}
        await until(run, lambda: keying(run), 200.0, "keys again")
        assert events(run, "bob", "phase.latch_cleared")[0]["by"] == "maintainer"
        assert not (run.directory / "bob" / "state" / FAULT_FILE).exists()
        assert (run.directory / "bob" / "state" / LEDGER_FILE).exists()

    run = simulate(tmp_path, script)
    run.close()
