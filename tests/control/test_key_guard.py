"""What is kept out of the key: pilot, actuator and bias facts alone decide (reference keys, no post-selection)."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import math

import pytest

from qmodd.control import key_guard
from qmodd.control.key_guard import HOP, MOVE, KeyGuard
from qmodd.control.phase_estimate import PhaseModel, PilotTally

MODEL = PhaseModel(0.98, -0.08)


def guard() -> KeyGuard:
    return KeyGuard(MODEL, 0.08, math.radians(8))


def tally(error: float, n: int = 10_000) -> PilotTally:
    s = 0.98 * math.sin(error + 0.08)
    return PilotTally(0.1, *(round(n / 4 * (1 + k * s)) for k in (1, -1, -1, 1)))


def test_it_cannot_know_of_x_errors() -> None:
    """By what it may be told: neither an import nor a parameter brings a count of X detections in."""
    imported = {
        (node.module, name.name)
        for node in ast.walk(ast.parse(inspect.getsource(key_guard)))
        if isinstance(node, ast.ImportFrom)
        for name in node.names
    }
    from_control = {name for module, name in imported if module and module.startswith("qmodd")}
    assert from_control == {"PhaseModel", "PilotTally", "from_pilot"}
    fields = {f.name for f in dataclasses.fields(PilotTally)}
    assert not any(name.startswith(("n_x", "e_x")) for name in fields)
    for _, method in inspect.getmembers(KeyGuard, inspect.isfunction):
        annotations = inspect.get_annotations(method)
        assert "PhaseCounts" not in str(annotations)
        assert "LockReport" not in str(annotations)


def test_a_batch_whose_pilot_is_beyond_the_limit_stays_out() -> None:
    g = guard()
    assert not g.pilot_far(tally(0.05))
    assert g.pilot_far(tally(0.4))
    assert g.pilot_far(tally(-0.5))
    assert not g.pilot_far(tally(-0.03))
    assert g.kept_out == 2
    assert not g.reasons(0.0), "an interval that is kept out would show no pilot"


def test_what_cannot_be_judged_keeps_nothing_out() -> None:
    g = guard()
    assert not g.pilot_far(PilotTally(0.1, 12, 8, 7, 11))
    assert not g.pilot_far(PilotTally(0.1, 0, 500, 0, 5))
    assert not g.pilot_far(PilotTally(0.1, 0, 0, 0, 0))


@pytest.mark.parametrize("reason", [HOP, MOVE])
def test_moves_keep_out_until_they_have_settled(reason: str) -> None:
    g = guard()
    g.moving(reason, 3.0)
    g.moving(reason, 2.0)
    assert set(g.reasons(2.9)) == {reason}
    assert not g.reasons(3.0)


def test_facts_keep_out_while_they_hold() -> None:
    g = guard()
    for name in (key_guard.ACTUATOR, key_guard.TEMPERATURE, key_guard.BIAS):
        g.fact(name, True, "why")
        assert name in g.reasons(1.0)
        g.fact(name, False)
        assert not g.reasons(1.0)
