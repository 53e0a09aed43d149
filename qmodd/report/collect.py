"""Gathers what a walk has left behind into a report: records, readings, figures, and the procedures' own words."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING

from calibration.context import CalibrationContext
from calibration.plot import Figure
from calibration.procedure import Procedure
from calibration.record import Record
from qmodd.report.dag import State
from qmodd.report.model import Entry, Report, Side

if TYPE_CHECKING:
    from qmodd.calibrate.walk import Walk

NO_RAW = "the raw readings are not kept any more"


def report_of(walks: Mapping[str, Walk], serials: Mapping[str, str], seconds: float, what: str) -> Report:
    """Every calibration of each walked side; those that were not asked for as they stand."""
    taken = max(walk.context.clock.utc() for walk in walks.values())
    sides = tuple(_side(side, serials.get(side, ""), walk) for side, walk in walks.items())
    return Report(what, taken, seconds, sides)


def _side(side: str, serial: str, walk: Walk) -> Side:
    entries = []
    for procedure in walk.graph:
        outcome = walk.outcomes.get(procedure.name)
        if outcome is None:
            entries.append(entry(procedure, walk.context, "unknown", "not asked for", 0.0))
        else:
            entries.append(entry(procedure, walk.context, outcome.state, outcome.why, outcome.seconds))
    return Side(side, serial, tuple(entries))


def entry(procedure: Procedure, context: CalibrationContext, state: State, why: str, seconds: float) -> Entry:
    """One calibration with its active record, if there is one."""
    record = context.store.active(procedure.name)
    figures, no_figures = ((), "") if record is None else _figures(procedure, context, record)
    return Entry(
        name=procedure.name,
        about=about(procedure),
        equation=procedure.equation,
        needs=tuple(procedure.needs),
        valid_s=procedure.valid_s,
        disturbs=procedure.disturbs,
        cost_s=procedure.cost_s,
        state=state,
        why=why,
        seconds=seconds,
        record=record,
        valid_until=context.store.valid_until(procedure.name),
        figures=tuple(figures),
        no_figures=no_figures,
    )


def about(procedure: Procedure) -> str:
    """What the class says of itself: the text below its name."""
    return inspect.cleandoc(type(procedure).__doc__ or "")


def _figures(procedure: Procedure, context: CalibrationContext, record: Record) -> tuple[tuple[Figure, ...], str]:
    raw = context.raw.get(record.raw_sha256)
    if raw is None:
        return (), NO_RAW
    return tuple(procedure.figures(record, raw)), ""
