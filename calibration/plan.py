"""What a walk would do now and what it would cost, without touching anything."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from calibration.context import CalibrationContext
from calibration.graph import Cause, Graph, State, state_of
from calibration.procedure import Disturbs, Procedure

# A margin of time is never more than this share of a record's whole validity.
MARGIN_SHARE = 0.25


@dataclass(frozen=True)
class Due:
    """One calibration that is out or soon will be. `disturbs` and `cost_s` are those of the action; a check that does
    not pass is followed by a calibration. `remaining_s`: how long the record still holds (<= 0: it does not)."""

    name: str
    why: str
    action: Literal["check", "calibrate"]
    disturbs: Disturbs
    cost_s: float
    remaining_s: float = 0.0
    deferred: bool = False
    cause: Cause = Cause.RECORD


def plan(
    graph: Graph,
    context: CalibrationContext,
    submount_c: float,
    *,
    margin_s: float = 0.0,
    in_service: bool = False,
    force: Collection[str] = (),
) -> list[Due]:
    """In order, with everything that rests on something to be redone. What runs out within `margin_s` counts, too.

    `in_service`: the age of what a loop holds does not count.
    """
    out: list[Due] = []
    redone: dict[str, float] = {}
    for p in (p for p in graph if not p.by_service):
        due = (
            _forced(p) if p.name in force else _follows(p, redone) or _own(p, context, submount_c, margin_s, in_service)
        )
        if due is not None:
            out.append(due)
            if due.action == "calibrate":
                redone[p.name] = due.remaining_s
    return out


def _calibrate(p: Procedure, why: str, remaining_s: float, cause: Cause) -> Due:
    return Due(p.name, why, "calibrate", p.disturbs, p.cost_s, remaining_s, p.deferred, cause)


def _forced(p: Procedure) -> Due:
    return _calibrate(p, "asked for", 0.0, Cause.RECORD)


def _follows(p: Procedure, redone: dict[str, float]) -> Due | None:
    parents = [n for n in p.needs if n in redone]
    if not parents:
        return None
    return _calibrate(p, f"rests on {' and '.join(parents)}", min(redone[n] for n in parents), Cause.RECORD)


def _own(p: Procedure, context: CalibrationContext, submount_c: float, margin_s: float, in_service: bool) -> Due | None:
    state = state_of(p, context, submount_c)
    if in_service and p.held and state.cause in (Cause.NONE, Cause.AGE):
        return None
    if state.why is None:
        if state.remaining_s > min(margin_s, MARGIN_SHARE * p.valid_s):
            return None
        state = State(f"valid for {state.remaining_s:.0f} s more", Cause.AGE, state.remaining_s)
    assert state.why is not None
    if state.renewable and p.renews:
        return Due(
            p.name, state.why, "check", p.check_disturbs, p.check_cost_s, state.remaining_s, p.deferred, state.cause
        )
    return _calibrate(p, state.why, state.remaining_s, state.cause)
