"""Which calibration needs which, what is out, and a walk that redoes only that (Kelly et al. 2018, "Physical qubit
calibration on a directed acyclic graph"; reference control B12).

State is asked first and costs nothing: is there a record, may it be used, has its time or temperature window passed.
Data is a few readings against the record; a passed check renews one that is out by age or temperature alone. Readings
that make no sense send the walk to what the calibration rests on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from graphlib import CycleError, TopologicalSorter

from calibration.context import CalibrationContext, CalibrationRefused, LightRefused
from calibration.fit import FitRefused
from calibration.procedure import CheckResult, Procedure, Verdict
from calibration.record import Record, Renewal

ATTEMPTS = 2


class Graph:
    """The calibrations of one side, in an order in which each follows what it needs."""

    def __init__(self, procedures: Iterable[Procedure]) -> None:
        """Raises ValueError: a name twice, a need that is not there or that is made later, or a cycle."""
        self._all: dict[str, Procedure] = {}
        for p in procedures:
            if p.name in self._all:
                raise ValueError(f"two procedures are called {p.name!r}")
            self._all[p.name] = p
        for p in self._all.values():
            for need in p.needs:
                if need not in self._all:
                    raise ValueError(f"{p.name} needs {need!r}, which is not in the graph")
                if self._all[need].deferred and not p.deferred:
                    raise ValueError(f"{p.name} needs {need!r}, which is deferred: keys would rest on it")
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

    @property
    def prompt(self) -> tuple[str, ...]:
        """Those that keys rest on: all that are not deferred, in order."""
        return tuple(n for n in self._order if not self._all[n].deferred)

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


class Cause(StrEnum):
    """What put a record out."""

    NONE = ""
    AGE = "age"
    TEMPERATURE = "temperature"
    RECORD = "record"  # no record, or one that says by itself that it may not be used


@dataclass(frozen=True)
class State:
    """Why the active record cannot be used (None: it can), and how long it still can by its age, s."""

    why: str | None
    cause: Cause = Cause.NONE
    remaining_s: float = 0.0

    @property
    def renewable(self) -> bool:
        """A passed data check is enough."""
        return self.cause in (Cause.AGE, Cause.TEMPERATURE)


def state_of(procedure: Procedure, context: CalibrationContext, submount_c: float) -> State:
    """Looks at presence, layout, invalidation, firmware, parents' versions, validity time and temperature window,
    without touching a device."""
    record = context.store.active(procedure.name)
    if record is None:
        return State("never calibrated", Cause.RECORD)
    why = _refuted(procedure, context, record)
    if why is not None:
        return State(why, Cause.RECORD)
    until = context.store.valid_until(procedure.name) or record.valid_until
    remaining_s = (until - context.clock.utc()).total_seconds()
    if remaining_s <= 0.0:
        return State(f"valid until {until:%Y-%m-%d %H:%M:%S} UTC", Cause.AGE, remaining_s)
    renewal = context.store.renewal(procedure.name)
    temperatures = (renewal and renewal.temperatures_c) or record.conditions.temperatures_c
    then = temperatures.get("submount", submount_c)
    if abs(then - submount_c) > context.settings.temperature_window_k:
        return State(f"taken at {then:.2f} C, now {submount_c:.2f} C", Cause.TEMPERATURE)
    return State(None, Cause.NONE, remaining_s)


def _refuted(procedure: Procedure, context: CalibrationContext, record: Record) -> str | None:
    invalid = context.store.invalid_reason(procedure.name)
    if invalid is not None:
        return invalid
    if record.layout > procedure.layout:
        return f"written by a newer version (layout {record.layout}; this one knows {procedure.layout})"
    if record.layout < procedure.layout:
        return f"taken by an older version (layout {record.layout}, now {procedure.layout})"
    if missing := [g for g in procedure.gives if g not in record.value]:
        return f"taken by an older version, without {', '.join(missing)}"
    then, now = record.conditions.firmware_sha256, context.firmware_sha256
    if then and now and then != now:
        return f"a device or its firmware has changed since (firmware_sha256 {then[:12]}, now {now[:12]})"
    for need in procedure.needs:
        parent = context.store.active(need)
        if parent is None or record.parents.get(need) != parent.version:
            return f"{need} has changed since"
    return None


def check_state(procedure: Procedure, context: CalibrationContext, submount_c: float) -> str | None:
    """Why the active record cannot be used; None when it can."""
    return state_of(procedure, context, submount_c).why


async def bring_up(
    graph: Graph,
    context: CalibrationContext,
    targets: Iterable[str] | None = None,
    force: Iterable[str] = (),
    due: Mapping[str, str] | None = None,
) -> dict[str, Record]:
    """Make every target good and in force: apply what still holds, renew or redo what does not.

    Without targets: everything that keys rest on, everything forced, and deferred ones only where their record is good.
    `force` is redone whatever its state; `due` (name: why) is treated as out by age before it is. A redone calibration
    invalidates everything that rests on it, targets or not. Raises CalibrationRefused naming the procedure, KeyError
    for an unknown name, or a drivers.errors.DriverError; what was good before stays stored.
    """
    forced = {n for n in force if not graph[n].by_service}
    walk = _Walk(graph, context, forced, dict(due or {}), await context.submount.read_celsius())
    return await walk.run(targets)


async def verify(graph: Graph, context: CalibrationContext, name: str) -> CheckResult:
    """Data check of a record in service, moving nothing: a pass renews it, else it is invalid from now on, with the
    reason. For readings that make no sense what it rests on is checked likewise, as far as that moves nothing.

    Raises CalibrationRefused when there is no record or no light, or a drivers.errors.DriverError.
    """
    procedure, record = graph[name], context.record(name)
    found = await _checked(procedure, context, record)
    if found.good:
        await _renew(procedure, context, record, found)
        return found
    context.store.invalidate(name, f"data check: {found.why}")
    if found.verdict is Verdict.BAD_DATA:
        for need in procedure.needs:
            parent = graph[need]
            if _checkable(parent) and parent.check_disturbs == 0 and context.store.invalid_reason(need) is None:
                await verify(graph, context, need)
    return found


async def redo(graph: Graph, context: CalibrationContext, name: str, why: str) -> Record:
    """Calibrate one and store it; what rests on it becomes invalid. Nothing is applied before.

    Raises CalibrationRefused, or a drivers.errors.DriverError.
    """
    procedure = graph[name]
    try:
        record = await procedure.calibrate(context)
    except (FitRefused, LightRefused) as e:
        raise CalibrationRefused(name, str(e)) from e
    return context.store.append(record, dict.fromkeys(graph.descendants(name), f"{name} was redone ({why})"))


def _checkable(procedure: Procedure) -> bool:
    return type(procedure).check is not Procedure.check


async def _checked(procedure: Procedure, context: CalibrationContext, record: Record) -> CheckResult:
    """A check that cannot be made says that the readings make no sense; without light nothing is said at all."""
    try:
        return await procedure.checked(context, record)
    except (CalibrationRefused, FitRefused) as e:
        return CheckResult.bad_data(str(e))
    except LightRefused as e:
        raise CalibrationRefused(procedure.name, str(e)) from e


async def _renew(procedure: Procedure, context: CalibrationContext, record: Record, found: CheckResult) -> None:
    now = context.clock.utc()
    context.store.renew(
        Renewal(
            name=record.name,
            version=record.version,
            at=now,
            valid_until=now + timedelta(seconds=procedure.valid_s),
            by=context.operator,
            read={k: float(v) for k, v in found.read.items()},
            temperatures_c=await context.temperatures(),
        )
    )


class _Walk:
    """One walk: parents before children; each is redone at most once, and only when it is out."""

    def __init__(
        self, graph: Graph, context: CalibrationContext, force: set[str], due: dict[str, str], submount_c: float
    ) -> None:
        self._graph = graph
        self._context = context
        self._force = force
        self._due = due
        self._submount_c = submount_c
        self._redone: set[str] = set()
        self._cleared: set[str] = set()

    async def run(self, targets: Iterable[str] | None) -> dict[str, Record]:
        graph = self._graph
        wanted = graph.ancestors({*graph.prompt, *self._force, *self._due} if targets is None else targets)
        done: dict[str, Record] = {}
        while True:
            # A diagnosis may redo what was passed already: then what rests on it has its turn again.
            todo = [p for p in graph if p.name in wanted and (p.name not in done or self._left_behind(p))]
            if not todo:
                break
            for procedure in todo:
                done[procedure.name] = await self._ensure(procedure)
        if targets is None:
            await self._apply_deferred(set(done))
        return done

    def _left_behind(self, p: Procedure) -> bool:
        """Something that it rests on was redone after it."""
        store = self._context.store
        record = store.active(p.name)
        if record is None or store.invalid_reason(p.name) is not None:
            return True
        return any((q := store.active(n)) is None or record.parents.get(n) != q.version for n in p.needs)

    def _state(self, procedure: Procedure) -> State:
        state = state_of(procedure, self._context, self._submount_c)
        if state.why is None and procedure.name in self._due and procedure.name not in self._redone:
            return State(self._due[procedure.name], Cause.AGE)
        return state

    async def _apply_deferred(self, done: set[str]) -> None:
        for p in self._graph:
            if p.deferred and p.name not in done and self._state(p).why is None:
                await p.apply(self._context, self._context.record(p.name))

    async def _ensure(self, p: Procedure) -> Record:
        context, state = self._context, self._state(p)
        if p.name in self._force and p.name not in self._redone:
            return await self._redo(p, "asked for")
        if state.why is not None and not (state.renewable and p.renews):
            return await self._redo(p, state.why)
        record = context.record(p.name)
        await p.apply(context, record)
        found = await _checked(p, context, record)
        if not found.good:
            if found.verdict is Verdict.BAD_DATA:
                await self._diagnose(p)
            return await self._redo(p, found.why)
        if state.why is not None:
            await _renew(p, context, record, found)
            self._due.pop(p.name, None)
        p.report(context, 1.0, "still good")
        return record

    async def _redo(self, p: Procedure, why: str) -> Record:
        p.report(self._context, 0.0, why)
        for attempt in range(ATTEMPTS):
            try:
                record = await redo(self._graph, self._context, p.name, why)
                break
            except CalibrationRefused as e:
                # One repeat: a single bad reading must not stop a boot, a bad part fails twice. What has a name of its
                # own is no bad reading.
                if attempt + 1 == ATTEMPTS or not isinstance(e.__cause__, FitRefused | LightRefused):
                    raise
                p.report(self._context, 0.0, f"again: {e.reason}")
                if isinstance(e.__cause__, FitRefused):
                    await self._diagnose(p)
        self._redone.add(p.name)
        p.report(self._context, 1.0, "done")
        return record

    async def _diagnose(self, p: Procedure) -> None:
        """Look for the reason in what `p` rests on: redo what fails its check, and what rests on that, before `p`."""
        for need in p.needs:
            await self._suspect(self._graph[need])
        between = self._graph.ancestors([p.name]) - {p.name}
        for q in self._graph:
            if q.name in between and self._left_behind(q):
                await self._redo(q, self._state(q).why or "")

    async def _suspect(self, q: Procedure) -> None:
        if q.name in self._redone or q.name in self._cleared:
            return
        self._cleared.add(q.name)
        record = self._context.store.active(q.name)
        found = CheckResult.in_spec()
        if record is not None and _checkable(q):
            await q.apply(self._context, record)
            found = await _checked(q, self._context, record)
            if found.good:
                return
        if not _checkable(q) or found.verdict is Verdict.BAD_DATA:
            for need in q.needs:
                await self._suspect(self._graph[need])
        if not found.good:
            await self._redo(q, f"diagnosis: {found.why}")
