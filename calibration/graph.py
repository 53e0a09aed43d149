"""Which calibration needs which, and a walk that redoes only what is out (Kelly et al. 2018; reference control B12)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter

from calibration.context import CalibrationContext, CalibrationRefused, LightRefused
from calibration.fit import FitRefused
from calibration.procedure import Procedure
from calibration.record import Record

ATTEMPTS = 2


class Graph:
    """The calibrations of one side, in an order in which each follows what it needs."""

    def __init__(self, procedures: Iterable[Procedure]) -> None:
        """Raises ValueError: a name twice, a need that is not there, or a cycle."""
        self._all: dict[str, Procedure] = {}
        for p in procedures:
            if p.name in self._all:
                raise ValueError(f"two procedures are called {p.name!r}")
            self._all[p.name] = p
        for p in self._all.values():
            for need in p.needs:
                if need not in self._all:
                    raise ValueError(f"{p.name} needs {need!r}, which is not in the graph")
        try:
            order = list(TopologicalSorter({n: sorted(p.needs) for n, p in self._all.items()}).static_order())
        except CycleError as e:
            raise ValueError(f"the calibrations need each other in a circle: {e.args[1]}") from None
        # Among those that may come next, the order of declaration counts: it saves switching the light.
        self._order = _stable(list(self._all), {n: set(self._all[n].needs) for n in order})

    def __iter__(self) -> Iterator[Procedure]:
        return (self._all[n] for n in self._order)

    def __getitem__(self, name: str) -> Procedure:
        return self._all[name]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._order)

    def ancestors(self, names: Iterable[str]) -> set[str]:
        """The names and everything they rest on. Raises KeyError for an unknown name."""
        found: set[str] = set()
        todo = list(names)
        while todo:
            n = todo.pop()
            if n not in found:
                found.add(n)
                todo.extend(self._all[n].needs)
        return found

    def descendants(self, name: str) -> tuple[str, ...]:
        """Everything that rests on a name, in order."""
        return tuple(n for n in self._order if n != name and name in self.ancestors([n]))


def _stable(declared: list[str], needs: Mapping[str, set[str]]) -> list[str]:
    out: list[str] = []
    while len(out) < len(declared):
        out.append(next(n for n in declared if n not in out and needs[n] <= set(out)))
    return out


def check_state(procedure: Procedure, context: CalibrationContext, submount_c: float) -> str | None:
    """Why the active record cannot be used, without touching a device; None when it can.

    Looks at presence, invalidation, parents' versions, validity time and temperature window.
    """
    record = context.store.active(procedure.name)
    if record is None:
        return "never calibrated"
    invalid = context.store.invalid_reason(procedure.name)
    if invalid is not None:
        return invalid
    if missing := [g for g in procedure.gives if g not in record.value]:
        return f"taken by an older version, without {', '.join(missing)}"
    for need in procedure.needs:
        parent = context.store.active(need)
        if parent is None or record.parents.get(need) != parent.version:
            return f"{need} has changed since"
    if context.clock.utc() >= record.valid_until:
        return f"valid until {record.valid_until:%Y-%m-%d %H:%M:%S} UTC"
    then = record.conditions.temperatures_c.get("submount", submount_c)
    if abs(then - submount_c) > context.settings.temperature_window_k:
        return f"taken at {then:.2f} C, now {submount_c:.2f} C"
    return None


async def bring_up(
    graph: Graph,
    context: CalibrationContext,
    targets: Iterable[str] | None = None,
    force: Iterable[str] = (),
) -> dict[str, Record]:
    """Make every target (default: all) good and in force: apply what still holds, redo what does not.

    A redone calibration invalidates everything that rests on it, targets or not. Raises CalibrationRefused naming the
    procedure, or a drivers.errors.DriverError; what was good before stays stored.
    """
    wanted = graph.ancestors(graph.names if targets is None else targets)
    forced = set(force)
    submount_c = await context.submount.read_celsius()
    done: dict[str, Record] = {}
    for procedure in graph:
        if procedure.name in wanted:
            done[procedure.name] = await _ensure(graph, procedure, context, submount_c, procedure.name in forced)
    return done


async def _ensure(
    graph: Graph, procedure: Procedure, context: CalibrationContext, submount_c: float, forced: bool
) -> Record:
    why = "asked for" if forced else check_state(procedure, context, submount_c)
    if why is None:
        record = context.record(procedure.name)
        await procedure.apply(context, record)
        why = await procedure.check(context, record)
        if why is None:
            procedure.report(context, 1.0, "still good")
            return record
    procedure.report(context, 0.0, why)
    record = context.store.append(await _calibrate(procedure, context))
    for name in graph.descendants(procedure.name):
        context.store.invalidate(name, f"{procedure.name} was redone ({why})")
    procedure.report(context, 1.0, "done")
    return record


async def _calibrate(procedure: Procedure, context: CalibrationContext) -> Record:
    """One repeat: a single bad reading must not stop a boot, a bad part fails twice."""
    for attempt in range(ATTEMPTS):
        try:
            return await procedure.calibrate(context)
        except (FitRefused, LightRefused) as e:
            if attempt + 1 == ATTEMPTS:
                raise CalibrationRefused(procedure.name, str(e)) from e
            procedure.report(context, 0.0, f"again: {e}")
    raise AssertionError("unreachable")
