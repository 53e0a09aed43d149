"""The safety benchmark without its pairs: what is drawn, what a torn write leaves, what the table and results say."""

from __future__ import annotations

import math
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from benchmarks.safety_faults import DAEMON, Drawn, draw
from benchmarks.safety_report import Told, results, table
from benchmarks.safety_rig import Killed, Severable, Wires, dying_in_a_write
from sim.faults import understood

WELL = Told("hang alice.i2c1 for 2.0 s", "bus", True, safe_s=0.2, back_s=20.0, alarms=["alice: device-fault"])
LOST = Told("SIGKILL alice", "daemon", True, 0.4, 9.0, [], 2, 1, ["latch over-current of alice was lost"])
SLOW = Told("open bob.cover", "interlock", True, 1.3, 9.0, ["bob: cover-open"], failures=["outputs safe 1.30 s after"])
AWAY = Told("cut fibre", "world", False, math.nan, math.nan, failures=["2 alarms: a, b"])


def test_every_group_is_drawn_and_the_world_understands_its_own() -> None:
    rng = np.random.default_rng(1)
    drawn = [draw(rng) for _ in range(500)]
    assert set(Counter(d.group for d in drawn)) == {"world", "part", "bus", "sick", "interlock", "daemon"}
    assert {d.kind for d in drawn if d.group == "daemon"} == set(DAEMON)
    assert all(understood(d.kind, d.target) for d in drawn if d.group == "world")
    assert all(0.5 <= d.duration_s <= 20.0 for d in drawn)
    rng = np.random.default_rng(1)
    assert [draw(rng) for _ in range(500)] == drawn
    assert str(Drawn("cut", "fibre", "", 2.0)) == "cut fibre for 2.0 s"


def test_a_write_that_dies_leaves_its_share_and_nothing_after_it(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with dying_in_a_write(1, 0.5), pytest.raises(Killed):
        file = os.open(path, os.O_WRONLY | os.O_CREAT)
        os.write(file, b"0123456789")
    os.close(file)
    assert path.read_bytes() == b"01234"


def test_severed_wires_reach_nothing() -> None:
    class Bus:
        pec = 0
        closed = False

        def write(self, value: int) -> int:
            return value

        def close(self) -> None:
            self.closed = True

    wires, bus = Wires(), Bus()
    opened = wires.opener(lambda: bus)
    wire = opened()
    assert isinstance(wire, Severable)
    wire.pec = 1
    assert (bus.pec, wire.pec, wire.write(3)) == (1, 1, 3)
    wires.severed = True
    with pytest.raises(OSError, match="dead"):
        wire.write(3)
    with pytest.raises(OSError, match="dead"):
        opened()
    wire.close()
    assert bus.closed


def test_results_keep_their_limits_only_when_everything_held() -> None:
    assert all(r.ok for r in results([WELL]))
    found = {r.name: r for r in results([WELL, LOST, SLOW, AWAY])}
    assert not found["safety: outputs safe"].ok
    assert found["safety: outputs safe"].value == 1.3
    assert found["safety: latches lost"].value == 1.0
    assert found["safety: not one alarm"].value == 1.0
    assert found["safety: not back"].value == 1.0


def test_table_has_a_line_a_group_and_one_a_failure() -> None:
    text = table([WELL, LOST, SLOW, AWAY])
    assert [line.split()[0] for line in text.splitlines()[:5]] == ["group", "bus", "daemon", "interlock", "world"]
    assert "  SIGKILL alice: latch over-current of alice was lost" in text
    assert "hang alice" not in text
