"""Faults inside the electronic parts, followed from the script to what the parts do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from sim.faults import Fault, FaultSchedule
from sim.partfaults import PART_KINDS, PartFaults, fits
from sim.trouble import Trouble


class Part:
    def __init__(self) -> None:
        self.changes = 0
        self.trouble = Trouble(self.changed)

    def changed(self) -> None:
        self.changes += 1


class Parts:
    """A rig of two parts that have faults and one that has none."""

    def __init__(self) -> None:
        self.parts: dict[str, Any] = {"ltc2672": Part(), "tec": Part(), "bench meter": object()}
        self.watchdog = Part()

    def __iter__(self) -> Iterator[str]:
        return iter(self.parts)

    def part(self, name: str) -> Any:
        return self.parts[name]


def test_parts_hear_of_their_faults_and_of_their_end() -> None:
    rig, dac = Parts(), "alice.ltc2672"
    script = FaultSchedule([Fault(1.0, "stuck", f"{dac}.2", 5.0, 77.0), Fault(2.0, "error", "alice.tec")])
    faults, trouble = PartFaults("alice", script), rig.parts["ltc2672"].trouble
    faults.follow(rig, 0.0)
    assert not trouble
    assert rig.parts["ltc2672"].changes == 0
    faults.follow(rig, 1.0)
    faults.follow(rig, 2.5)
    assert trouble.has("stuck", 2)
    assert not trouble.has("stuck", 1)
    assert trouble.value("stuck", 2, default=0.0) == 77.0
    assert rig.parts["ltc2672"].changes == 1
    assert rig.parts["tec"].trouble.value("error", default=30.0) == 30.0
    faults.follow(rig, 6.0)
    assert not trouble
    assert rig.parts["ltc2672"].changes == 2


def test_the_other_modules_and_the_buses_faults_are_not_the_parts() -> None:
    rig = Parts()
    script = [
        Fault(0.0, "stuck", "bob.ltc2672.1"),
        Fault(0.0, "stuck", "alice.ltc2672"),
        Fault(0.0, "never", "alice.watchdog"),
    ]
    PartFaults("alice", FaultSchedule(script)).follow(rig, 0.0)
    assert not rig.parts["ltc2672"].trouble
    assert rig.watchdog.trouble.has("never")
    PartFaults("alice", None).follow(rig, 0.0)


def test_kinds_are_of_a_channel_or_of_the_whole() -> None:
    assert fits(PART_KINDS["ltc2672"], "stuck", "0")
    assert not fits(PART_KINDS["ltc2672"], "stuck", "")
    assert fits(PART_KINDS["ltc2672"], "echo", "")
    assert not fits(PART_KINDS["ltc2672"], "unknown", "")


def test_noise_is_repeatable_and_changes_with_every_moment() -> None:
    samples = []
    for _ in range(2):
        part = Part()
        part.trouble.seed((1, 2))
        taken = []
        for _ in range(4):
            part.trouble.set({("noisy", "3"): 5.0})
            taken.append(part.trouble.noise(3, default=1.0))
        assert part.changes == 4
        assert part.trouble.noise(2, default=1.0) == 0.0
        samples.append(taken)
    assert samples[0] == samples[1]
    assert len(set(samples[0])) == 4


def test_outputs_are_exchanged_in_pairs() -> None:
    trouble = Trouble()
    trouble.set({("swapped", "0-2"): None})
    assert [trouble.exchanged(c) for c in range(4)] == [2, 1, 0, 3]


def test_a_share_of_occasions() -> None:
    trouble = Trouble()
    assert not trouble.strikes("upset", default=1.0)
    trouble.set({("upset", ""): 0.25})
    struck = np.mean([trouble.strikes("upset", default=1.0) for _ in range(4000)])
    assert struck == pytest.approx(0.25, abs=0.03)
